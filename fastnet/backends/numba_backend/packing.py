"""Samples of bytes that are mostly zero, packed: three bytes for each number that is not, instead of one for each.

For the full batch the same non-zeros are packed a second time, by columns within each tile, so that the backward pass
can keep a row of the gradient in registers while it goes through all samples of the tile.
"""

# Legend: N samples, D features, M non-zeros, T tiles, G groups of tiles.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.compiling import compiled
from fastnet.backends.numba_backend.partition import share_start
from fastnet.backends.numba_backend.records import Samples
from fastnet.data import is_sparse

__all__ = ["pack_samples"]

# From this share of non-zeros on, a product over all numbers is the faster one, as it need not look up where they are.
_LARGEST_DENSITY = 0.35


def pack_samples(samples: Samples, x: Any, n_groups: int, tile_rows: int) -> Samples:
    """The same samples, packed if x (N, D) is of bytes and it is worth it.

    Parameters
    ----------
    samples : Samples
    x : ndarray or CSR
        What `samples` were made of.
    n_groups, tile_rows : int
        Of the full batch, whose tiles are then packed as well; zero for mini-batches, which are never the same twice.
    """
    if is_sparse(x) or x.dtype != np.uint8 or x.shape[1] > np.iinfo(np.uint16).max + 1:
        return samples
    x = read_only(x, np.uint8)
    row_starts = np.zeros(x.shape[0] + 1, np.int64)
    np.cumsum(_count_non_zeros(x), out=row_starts[1:])
    if not 0 < row_starts[-1] <= _LARGEST_DENSITY * x.size:
        return samples
    values, columns = np.empty(row_starts[-1], np.uint8), np.empty(row_starts[-1], np.uint16)
    _fill_rows(x, values, columns, row_starts)
    packed = {"packed_values": values, "packed_columns": columns, "packed_row_starts": row_starts}
    if n_groups:
        packed |= _pack_tiles(values, columns, row_starts, x.shape[1], n_groups, tile_rows)
    read_only_views = {name: read_only(array, array.dtype) for name, array in packed.items()}
    return samples._replace(bytes=samples.bytes[:0], **read_only_views)


def _pack_tiles(
    values: NDArray, columns: NDArray, row_starts: NDArray, n_features: int, n_groups: int, tile_rows: int
) -> dict[str, NDArray]:
    """The tiles of each group, as ``gradients.py`` cuts them."""
    n_samples = len(row_starts) - 1
    tile_begins: list[int] = []
    first_tiles: list[int] = []
    for group in range(n_groups):
        begin, end = (share_start.py_func(group + part, n_groups, 0, n_samples) for part in (0, 1))
        n_tiles = -(-(end - begin) // tile_rows)
        first_tiles.append(len(tile_begins))
        tile_begins += [share_start.py_func(tile, n_tiles, begin, end) for tile in range(n_tiles)]
    tiles = {
        "tile_values": np.empty_like(values),
        "tile_rows": np.empty(values.shape, np.uint8),
        "tile_starts": np.empty((len(tile_begins), n_features + 1), np.int64),
        "first_tiles": np.array(first_tiles, np.int64),
    }
    bounds = np.array([*tile_begins, n_samples], np.int64)
    _fill_tiles(values, columns, row_starts, bounds, tiles["tile_values"], tiles["tile_rows"], tiles["tile_starts"])
    return tiles


@compiled
def _count_non_zeros(x):
    counts = np.zeros(x.shape[0], np.int64)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            counts[i] += x[i, j] != 0
    return counts


@compiled
def _fill_rows(x, values, columns, row_starts):
    for i in range(x.shape[0]):
        k = row_starts[i]
        for j in range(x.shape[1]):
            if x[i, j]:
                values[k] = x[i, j]
                columns[k] = j
                k += 1


@compiled
def _fill_tiles(values, columns, row_starts, bounds, tile_values, tile_rows, starts):
    """Sort the non-zeros of each tile by column, those of a column by row; bounds (T + 1,) are rows."""
    n_features = starts.shape[1] - 1
    for tile in range(starts.shape[0]):
        begin, end = bounds[tile], bounds[tile + 1]
        room = np.zeros(n_features, np.int64)
        for k in range(row_starts[begin], row_starts[end]):
            room[columns[k]] += 1
        starts[tile, 0] = row_starts[begin]
        for j in range(n_features):
            starts[tile, j + 1] = starts[tile, j] + room[j]
            room[j] = starts[tile, j]
        for i in range(begin, end):
            for k in range(row_starts[i], row_starts[i + 1]):
                at = room[columns[k]]
                tile_values[at] = values[k]
                tile_rows[at] = i - begin
                room[columns[k]] = at + 1
