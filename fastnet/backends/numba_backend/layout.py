"""Where everything lies in a plan's memory: parameters in panels, and the activations of a tile.

Parameters cross the seam in the canonical order of :mod:`fastnet.parameters`; within a plan they lie as the kernels
read them. One array of positions leads from one order to the other.
"""

# Legend: P parameters, L layers, C outputs, I fan-in, O fan-out, w numbers of a vector, B rows of a tile, S as many
# columns, in whole vectors. A panel is w columns of a matrix, row after row; see products.py.
#
# Two ways to lay a tile out:
# - upright, a row for each sample: hidden layers are (B, O) in panels, and so are their weights (I, O). The last
#   weight lies transposed, (C, I) in panels, so that logits come out as (C, S), however few they are.
# - across, a column for each sample: every layer is (O, S), and every weight (I, O) as it is. No vector is filled up
#   with zeros, whatever the width; but each weight's gradient is a dot product of its own.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend.records import LAYER_DTYPE
from fastnet.spec import NetworkSpec

__all__ = ["CACHE_LINE", "KEEPS_Z", "TERMS", "VECTOR_BYTES", "MemoryLayout", "lanes_of_dtype", "lay_out"]

VECTOR_BYTES = 64

# Bytes that a cache fetches and keeps together.
CACHE_LINE = 64

# Terms of a sum that are under way at once, as one alone would wait for itself. What is summed so comes in multiples.
TERMS = 4

# Activations whose derivatives cannot be had from the activation alone.
KEEPS_Z = frozenset({"gelu", "silu"})

# Rows of a tile's memory that a loss works in: the largest logit, the sum of exponentials, the loss and the weight of
# each sample; targets follow.
LOSS_ROWS = 4


def lanes_of_dtype(dtype: np.dtype) -> int:
    """Numbers of a vector."""
    return VECTOR_BYTES // dtype.itemsize


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """The layout of a network's memory.

    Attributes
    ----------
    layers : ndarray of LAYER_DTYPE, shape (L,)
        See there.
    positions : ndarray of int64, shape (P,)
        Where each parameter of the canonical order lies.
    n_weights, n_parameters : int
        Numbers that weights take, which come first, and all parameters, with what fills them up.
    first_weight_size : int
        Numbers that the first weight takes.
    logits, outputs, d_logits, loss_rows : int
        Columns of a tile where they start.
    n_columns : int
        Numbers of a tile for each of its rows.
    n_transposed : int
        Numbers that transposed weights of hidden layers take besides.
    across : bool
    lanes : int
        Numbers of a vector.
    row_multiple : int
        S is a multiple of it.
    """

    layers: NDArray
    positions: NDArray[np.int64]
    n_weights: int
    n_parameters: int
    first_weight_size: int
    logits: int
    outputs: int
    d_logits: int
    loss_rows: int
    n_columns: int
    n_transposed: int
    across: bool
    lanes: int
    row_multiple: int


def lay_out(network: NetworkSpec, *, sparse: bool) -> MemoryLayout:
    """The layout for samples that are packed (`sparse`) or dense."""
    lanes = lanes_of_dtype(network.numpy_dtype)
    across = not sparse and max(network.layer_sizes) <= lanes
    n_layers, n_outputs = network.n_layers, network.n_outputs
    layers = np.zeros(n_layers, LAYER_DTYPE)
    layers["fan_in"], layers["fan_out"] = network.layer_sizes[:-1], network.layer_sizes[1:]
    unit = 1 if across else lanes
    layers["width"] = -(-layers["fan_out"] // unit) * unit

    positions: list[NDArray] = []
    size = first_weight_size = 0
    for i, (fan_in, fan_out) in enumerate(zip(layers["fan_in"], layers["fan_out"], strict=True)):
        rows, columns = np.arange(fan_in)[:, None], np.arange(fan_out)[None, :]
        if across:
            n_rows, n_columns, at = fan_in, fan_out, rows * fan_out + columns
        elif i == n_layers - 1 and i > 0:
            n_rows, n_columns, at = fan_out, layers["width"][i - 1], _panel_position(columns, rows, fan_out, lanes)
        else:
            n_rows = fan_in if i == 0 else layers["width"][i - 1]
            n_columns, at = layers["width"][i], _panel_position(rows, columns, n_rows, lanes)
        layers["weight"][i] = size
        positions.append((size + at).ravel())
        size += _rounded_up(n_rows * n_columns, lanes)
        first_weight_size = first_weight_size or size
    n_weights = size
    # That of the first layer comes last, so that the other layers' parameters lie together: see kernels/panels.py.
    for i in [*range(1, n_layers), 0]:
        layers["bias"][i] = size
        size += _rounded_up(int(layers["fan_out"][i]), lanes)
    if network.bias:
        positions += [layer["bias"] + np.arange(layer["fan_out"]) for layer in layers]

    columns_of_tile = 0 if sparse else network.n_features  # packed samples are read where they lie
    n_transposed = 0
    for i in range(n_layers if across or n_layers == 1 else n_layers - 1):
        width = layers["width"][i]
        layers["h"][i], layers["d"][i] = columns_of_tile, columns_of_tile + width
        columns_of_tile += 2 * width
        keeps_z = i < n_layers - 1 and network.activations[i] in KEEPS_Z
        layers["kept"][i] = columns_of_tile if keeps_z else layers["h"][i]
        columns_of_tile += width * keeps_z
        layers["clears"][i] = i < n_layers - 1 and network.activations[i] == "sigmoid" and width > layers["fan_out"][i]
        if 0 < i < n_layers - 1 and not across:
            layers["transposed"][i] = n_transposed
            n_transposed += int(layers["width"][i - 1] * width)
    return MemoryLayout(
        layers,
        np.concatenate(positions),
        n_weights=n_weights,
        n_parameters=size,
        first_weight_size=first_weight_size,
        logits=int(layers["h"][-1]) if across else columns_of_tile,
        outputs=columns_of_tile + n_outputs,
        d_logits=int(layers["d"][-1]) if across else columns_of_tile + 2 * n_outputs,
        loss_rows=columns_of_tile + 3 * n_outputs,
        n_columns=columns_of_tile + 4 * n_outputs + LOSS_ROWS,
        n_transposed=n_transposed,
        across=across,
        lanes=lanes,
        row_multiple=lanes * (TERMS if across else 1),
    )


def _panel_position(rows: NDArray, columns: NDArray, n_rows: int, lanes: int) -> NDArray:
    return columns // lanes * (n_rows * lanes) + rows * lanes + columns % lanes


def _rounded_up(number: int, multiple: int) -> int:
    return -(-int(number) // multiple) * multiple
