"""What kernels are told: named tuples of arrays and numbers, which they get as records of addresses and numbers.

They are data, not types: one compilation serves every network shape and kind of samples of a dtype.
"""

# Legend: N samples, D features, C outputs, L layers, P parameters, S steps, K workers (threads), G groups of rows,
# T tiles of all groups, M non-zeros.

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ADAM",
    "GRADIENT_ONLY",
    "KERNELS_DTYPE",
    "LAYER_DTYPE",
    "MOMENTUM",
    "NESTEROV",
    "PLAIN_SGD",
    "CodedNetwork",
    "CodedOptimizer",
    "GroupSums",
    "OptimizerState",
    "Prediction",
    "RowPacking",
    "Run",
    "Samples",
    "Scratch",
    "Step",
    "TilePacking",
    "Training",
    "as_record",
    "record_dtype",
    "refill",
]


@cache
def record_dtype(kind: Any, dtype: np.dtype | None = None) -> np.dtype:
    """The dtype of the record of a named tuple.

    An array becomes its address and ``NAME_size``, and a whole number or a truth value an int64. Numbers are float64,
    but for those of the network's own `dtype`, which are declared as `np.floating`.
    """
    fields: list[tuple[str, Any]] = []
    for name, hint in get_type_hints(kind).items():
        fields.append((name, {float: np.float64, np.floating: dtype}.get(hint, np.int64)))
        if hint == NDArray:
            fields.append((f"{name}_size", np.int64))
    return np.dtype(fields)


def as_record(values: NamedTuple, dtype: np.dtype | None = None) -> NDArray:
    """The record of a named tuple, as an array (1,); the arrays must be kept as long as it is used."""
    return np.array([_fields(values)], record_dtype(type(values), dtype))


def refill(record: NDArray, values: NamedTuple) -> None:
    """Make it the record of another named tuple of the same kind."""
    record[0] = _fields(values)


def _fields(values: NamedTuple) -> tuple[Any, ...]:
    fields: list[Any] = []
    for value in values:
        fields += (value.ctypes.data, value.size) if isinstance(value, np.ndarray) else (value,)
    return tuple(fields)


# A layer as kernels see it; see ``layout.py``.
LAYER_DTYPE = np.dtype(
    [
        ("fan_in", np.int64),
        ("fan_out", np.int64),
        ("width", np.int64),  # the fan-out, with what fills up the last vector
        ("weight", np.int64),  # where it starts in the flat buffer
        ("bias", np.int64),
        ("h", np.int64),  # where it starts in a tile, in columns: times the rows of a tile
        ("d", np.int64),
        ("kept", np.int64),  # z where the derivative needs it, else h
        ("clears", np.int64),  # whether the activation leaves anything but zeros in what fills up the last vector
        ("transposed", np.int64),  # where the transposed weight starts
        ("activate", np.int64),  # the address of the activation
        ("backward", np.int64),  # and that of its derivative
    ]
)


class CodedNetwork(NamedTuple):
    """A ``fastnet.spec.NetworkSpec`` and its ``layout.MemoryLayout``.

    Every layer has a bias here: those that the network has not are zeros that no update reaches.
    """

    layers: NDArray  # (L,) of LAYER_DTYPE
    n_outputs: int  # C
    across: bool
    lanes: int
    row_multiple: int
    logits: int
    outputs: int
    d_logits: int
    loss_rows: int
    is_mean: bool
    l2: float
    l2_averaged: bool
    input_scale: float
    first_weight_size: int
    n_weights: int
    n_parameters: int  # that updates reach


# The addresses of compiled functions that kernels call, chosen for the network and the samples; zero for those that are
# not needed. Some are those of a file's function of the same name, others of one of several that take the same
# arguments.
KERNELS_DTYPE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "multiply", "dot_with_panels", "row_sums", "panel_sums", "combine_rows", "dots_of_rows",
            "sparse_product", "sparse_product_backward", "sort_by_columns",
            "load_rows", "load_columns", "load_targets", "load_weights",
            "transpose_weight", "transpose_to_columns", "transpose_to_panels", "clear_filling",
            "output", "head", "weigh", "count",
            "forward", "backward", "gradient_share", "update_share", "panel_share", "update",
            "run_steps", "predict", "predict_share",
        )
    ]
)  # fmt: skip


GRADIENT_ONLY, PLAIN_SGD, MOMENTUM, NESTEROV, ADAM = range(5)


class CodedOptimizer(NamedTuple):
    """An optimizer of ``fastnet.optimizers``, or the wish for gradients alone."""

    kind: int  # one of those above
    momentum: float = 0.0
    beta_1: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0
    weight_decay: float = 0.0


class Samples(NamedTuple):
    """Data as `fastnet.data.Dataset` has it; what there is none of is an empty array.

    Samples are dense and of the network's dtype, dense bytes, or packed non-zeros (see ``packing.py``).
    """

    n_features: int  # D
    numbers: NDArray  # (N * D,) of the network's dtype
    bytes: NDArray  # (N * D,) uint8
    packed_values: NDArray  # (M * itemsize,) uint8, whatever the dtype
    packed_columns: NDArray  # (M * itemsize,) uint8, whatever the dtype
    row_starts: NDArray  # (N + 1,) int64; empty for dense samples
    # Where the tiles are always the same samples, what depends on them alone is laid out for each: the non-zeros by
    # columns, or dense samples across, with what is wanted of them.
    tile_columns: NDArray  # (T, tile_rows * D), each (D, S)
    tile_labels: NDArray  # (T, tile_rows) int32
    tile_targets: NDArray  # (T, tile_rows * C), each (C, S)
    tile_weights: NDArray  # (T, tile_rows)
    tile_values: NDArray  # (M * itemsize,) uint8, whatever the dtype
    tile_rows: NDArray  # (M,) uint8, within the tile
    tile_starts: NDArray  # (T, D + 1) int64
    labels: NDArray  # (N,) int32
    targets: NDArray  # (N * C,)
    weights: NDArray  # (N,)


class OptimizerState(NamedTuple):
    """What an update reads and writes, each in the order of the memory layout."""

    flat: NDArray
    gradient: NDArray
    first: NDArray  # velocity or first moment; empty for plain SGD
    second: NDArray  # second moment; empty for SGD
    penalties: NDArray  # float64, sum of squared weights of each part of the parameters that is updated by itself


class Scratch(NamedTuple):
    """Working memory; see ``layout.py`` for what lies where in a tile.

    There is a place for the tile of each worker, or, if the first layer is divided by panels, for that of each group.
    In that case dense samples of a step are copied while those of the step before are still needed.
    """

    n_workers: int  # K
    by_panels: bool
    n_places: int
    tile_rows: int
    memory: NDArray  # (places, ...)
    # Of samples that are sorted by columns as they come:
    values: NDArray  # (places, ...) uint8
    rows: NDArray  # (places, ...) uint8
    starts: NDArray  # (places, D + 1) int64
    batches: NDArray  # (2, rows of a batch * D): of steps of even and odd numbers; or empty
    transposed: NDArray  # (K, ...): transposed weights of hidden layers
    labels: NDArray  # (K, 2, tile_rows) int32: labels and predictions
    n_correct: NDArray  # (K, ...) int64


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
    figures: NDArray  # (3, S) float64, written: losses, penalties, and how many samples were right


class Step(NamedTuple):
    """One of them."""

    number: int  # from 0 on
    begin: int  # positions [begin, end)
    end: int
    n_groups: int
    scale: float  # from the sum of weighted losses to the objective
    rate: float
    n_updates: int  # once it is done


class Training(NamedTuple):
    """All that a run of training steps needs: each field is the record of the named tuple that it is called after."""

    network: NDArray
    kernels: NDArray
    samples: NDArray
    optimizer: NDArray
    state: NDArray
    scratch: NDArray
    sums: NDArray
    run: NDArray
    step: NDArray  # written
    like: np.floating  # any number: its dtype is that of the network


class Prediction(NamedTuple):
    """All that a prediction needs: records, the parameters as they lie in memory, and the outputs."""

    network: NDArray
    kernels: NDArray
    samples: NDArray
    scratch: NDArray
    flat: NDArray
    outputs: NDArray  # (N, C), written
    like: np.floating


class RowPacking(NamedTuple):
    """Samples, dense or in CSR format, and room for their non-zeros; see ``packing.py``. Arrays are seen as bytes."""

    n_features: int  # D
    numbers: NDArray  # (N * D,), or those of the CSR format
    indices: NDArray  # of the CSR format, else empty
    indptr: NDArray
    row_starts: NDArray  # (N + 1,) int64
    values: NDArray  # (M,), written
    columns: NDArray  # (M,), written


class TilePacking(NamedTuple):
    """Packed samples, and room for the same by columns within each tile."""

    values: NDArray  # (M,), seen as bytes
    columns: NDArray  # (M,), seen as bytes
    row_starts: NDArray  # (N + 1,) int64
    bounds: NDArray  # (T + 1,) int64, rows
    of_columns: NDArray  # (D,) int64, scratch
    starts: NDArray  # (T, D + 1) int64, written first
    tile_values: NDArray  # seen as bytes, written then
    tile_rows: NDArray  # uint8, written then
