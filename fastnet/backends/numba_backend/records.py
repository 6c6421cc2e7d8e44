"""What kernels are told: named tuples of arrays and numbers, with codes in place of names.

They are data, not types: one compilation serves every network shape, activation, loss and optimizer of a dtype.
"""

# Legend: N samples, D features, C outputs, L layers, P parameters, S steps, K workers (threads), G groups of rows,
# T tiles of all groups, M non-zeros.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LAYER_DTYPE",
    "CodedNetwork",
    "CodedOptimizer",
    "GroupSums",
    "OptimizerState",
    "Run",
    "Samples",
    "Scratch",
    "Step",
]


# A layer's sizes, where its weight and bias start in the flat buffer, where its z, h and d start in a tile (see
# ``gradients.py``, in columns: times the rows of a tile), and its activation's code.
LAYER_DTYPE = np.dtype(
    [(name, np.int64) for name in ("fan_in", "fan_out", "weight", "bias", "z", "h", "d", "activation")]
)


class CodedNetwork(NamedTuple):
    """A ``fastnet.spec.NetworkSpec`` and the layout of its parameters.

    Every layer has a bias here: without biases, those of the layout are followed by zeros that no update reaches. And
    every layer has an activation: the last one's is the identity.
    """

    layers: NDArray  # (L,) of LAYER_DTYPE
    n_columns: int  # of a tile
    output: int
    head: int
    task: int
    is_mean: bool
    l2: float
    input_scale: float
    n_weights: int
    n_parameters: int  # P


class CodedOptimizer(NamedTuple):
    """An optimizer of ``fastnet.optimizers``, or the wish for gradients alone."""

    kind: int
    momentum: float = 0.0
    beta_1: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0
    weight_decay: float = 0.0


class Samples(NamedTuple):
    """Data as `fastnet.data.Dataset` has it, each array read-only; what there is none of is an empty array.

    Dense samples are rows of bytes, so that one compilation reads them as uint8 or as the network's dtype.
    """

    bytes: NDArray  # (N, D) of uint8, or (N, D * itemsize) of the network's dtype; empty for CSR and packed samples
    values: NDArray  # CSR
    columns: NDArray  # CSR, int32
    row_starts: NDArray  # CSR, (N + 1,) int64; empty for dense samples
    labels: NDArray  # (N,) int32
    targets: NDArray  # (N, C)
    weights: NDArray  # (N,)
    # Packed samples (see ``packing.py``): their non-zeros by rows,
    packed_values: NDArray  # (M,) uint8
    packed_columns: NDArray  # (M,) uint16
    packed_row_starts: NDArray  # (N + 1,) int64
    # and by columns within each tile, where the tiles are always the same samples.
    tile_values: NDArray  # (M,) uint8
    tile_rows: NDArray  # (M,) uint8, within the tile
    tile_starts: NDArray  # (T, D + 1) int64
    first_tiles: NDArray  # (G,) int64, of each group


class OptimizerState(NamedTuple):
    """What an update reads and writes."""

    flat: NDArray  # (P,) and zeros for missing biases
    gradient: NDArray  # like `flat`
    first: NDArray  # (P,) velocity or first moment; empty for plain SGD
    second: NDArray  # (P,) second moment; empty for SGD
    penalties: NDArray  # float64, sum of squared weights of each chunk of parameters


class Scratch(NamedTuple):
    """A tile and a weight gradient for each worker; see ``gradients.py`` for what lies where."""

    memory: NDArray  # (K, ...)
    tile_rows: int


class GroupSums(NamedTuple):
    """What each group of rows contributes to a step."""

    gradients: NDArray  # (G, size of `flat`)
    losses: NDArray  # (G,) float64
    n_correct: NDArray  # (G,) int64


class Run(NamedTuple):
    """The steps of one run. Positions count along `order`, or along the samples where `order` is empty."""

    order: NDArray  # int64
    stride: int  # positions from one step to the next; 0 for full batch
    batch_rows: int
    n_groups: int
    n_groups_last: int  # of the last step, whose batch may be shorter
    first_update: int  # number of updates once the first step is done
    rates: NDArray  # (S,) float64
    losses: NDArray  # (S,) float64, written
    n_correct: NDArray  # (S,) int64, written


class Step(NamedTuple):
    """One of them."""

    begin: int  # positions [begin, end)
    end: int
    n_groups: int
    scale: float  # from the sum of weighted losses to the objective
    rate: float
    n_updates: int  # once it is done
