"""Samples that are mostly zero, packed: for each number that is not, its column in two bytes and its value in one.

Values are bytes where all of them are bytes times one number, such as pixels divided by 255, and else have the dtype of
the network. For the full batch the same non-zeros are packed a second time, by columns within each tile, so that the
backward pass can keep a row of the gradient in registers while it goes through all samples of the tile.
"""

# Legend: N samples, D features, M non-zeros, T tiles, G groups of tiles.
# Every sample's non-zeros, and those of every column of a tile, are filled up with zeros to a multiple of TERMS.

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend.kinds import AnyKind, DensePackingKind, SparsePackingKind, TilePackingKind
from fastnet.backends.numba_backend.layout import TERMS
from fastnet.backends.numba_backend.native import native_functions
from fastnet.backends.numba_backend.partition import count_tiles, tile_start
from fastnet.backends.numba_backend.records import RowPacking, TilePacking, as_record
from fastnet.data import Dataset, is_sparse

__all__ = [
    "PackedRows",
    "PackedTiles",
    "TileColumns",
    "bound_tiles",
    "pack_rows",
    "pack_tiles",
    "pay_off_as_tiles",
    "transpose_tiles",
]

# From this share of non-zeros on, a product over all numbers is the faster one, as it need not look up where they are.
_LARGEST_DENSITY = 0.35

# What bytes are divided by before they come here: pixels by 255 or 256, scikit-learn's digits by 16.
_DIVISORS = (1, 255, 256, 16)

# Numbers, and rows, that are looked at together, so that what is made on the way takes little memory.
_NUMBERS_OF_PART, _ROWS_OF_PART = 2**20, 2**12

# Rows that are looked at first, so that dense data are not read to the end.
_N_PROBED = 256

# Memory for where columns start that is no matter.
_BYTES_OF_STARTS = 2**25

_NOTHING = np.empty(0, np.uint8)


class PackedRows(NamedTuple):
    """Non-zeros by rows: those of sample i are values[k] in columns[k], for row_starts[i] <= k < row_starts[i + 1]."""

    values: NDArray  # (M,) uint8, or of the network's dtype
    columns: NDArray  # (M,) uint16, or uint32
    row_starts: NDArray  # (N + 1,) int64
    scale: float  # what the values are to be multiplied by


class PackedTiles(NamedTuple):
    """Non-zeros by columns within each tile."""

    values: NDArray  # (M,) like those of the rows
    rows: NDArray  # (M,) uint8, within the tile
    starts: NDArray  # (T, D + 1) int64


class TileColumns(NamedTuple):
    """Dense samples across, with what is wanted of them, in slots of as many rows as a tile has at most.

    What fills up S is zero.
    """

    samples: NDArray  # (T, tile_rows * D), each (D, S)
    targets: NDArray  # (T, tile_rows * C), each (C, S), or labels (T, tile_rows) int32
    weights: NDArray  # (T, tile_rows)


def pack_rows(x: Any, dtype: np.dtype) -> PackedRows | None:
    """Samples (N, D), CSR or dense, packed; None for dense samples of which that would be no gain."""
    column_dtype = np.dtype(np.uint16 if x.shape[1] <= np.iinfo(np.uint16).max + 1 else np.uint32)
    if is_sparse(x):
        row_starts = _starts_of_rows(np.diff(x.indptr))
        values, columns = np.zeros(row_starts[-1], dtype), np.zeros(row_starts[-1], column_dtype)
        kind = SparsePackingKind(x.data.dtype, x.indices.dtype, dtype, column_dtype)
        indptr = _raw(x.indptr.astype(x.indices.dtype, copy=False))
        packing = RowPacking(x.shape[1], _raw(x.data), _raw(x.indices), indptr, row_starts, _raw(values), _raw(columns))
        _call(kind, "pack", packing)
        return _in_bytes(values, columns, row_starts)
    if x.size == 0 or np.count_nonzero(x[:_N_PROBED]) > 2 * _LARGEST_DENSITY * x[:_N_PROBED].size:
        return None
    counts = np.concatenate([np.count_nonzero(x[part], axis=1) for part in _parts(len(x), _ROWS_OF_PART)])
    if counts.sum() > _LARGEST_DENSITY * x.size:
        return None
    row_starts = _starts_of_rows(counts)
    values, columns = np.zeros(row_starts[-1], x.dtype), np.zeros(row_starts[-1], column_dtype)
    packing = RowPacking(x.shape[1], _raw(x), _NOTHING, _NOTHING, row_starts, _raw(values), _raw(columns))
    _call(DensePackingKind(x.dtype, column_dtype), "pack", packing)
    return _in_bytes(values, columns, row_starts)


def _raw(array: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


_Native = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _call(kind: AnyKind, name: str, packing: RowPacking | TilePacking) -> None:
    """Call a function that a kind of packing needs."""
    record = as_record(packing)
    _Native(native_functions(kind)[name])(record.ctypes.data)


def _in_bytes(values: NDArray, columns: NDArray, row_starts: NDArray) -> PackedRows:
    """Packed rows whose values are bytes if each is a whole number up to 255, divided by one of the usual divisors."""
    if values.dtype != np.uint8:
        for divisor in _DIVISORS:
            whole = np.empty(values.shape, np.uint8)
            if all(_fill_whole(values[part], divisor, whole[part]) for part in _parts(len(values), _NUMBERS_OF_PART)):
                return PackedRows(whole, columns, row_starts, 1 / divisor)
    return PackedRows(values, columns, row_starts, 1.0)


def _parts(size: int, longest: int) -> Iterator[slice]:
    """Slices that cover `size` numbers; the first is short, as most data that are not what they might be fail there."""
    yield slice(0, longest // 64)
    for start in range(longest // 64, size, longest):
        yield slice(start, start + longest)


def _fill_whole(values: NDArray, divisor: int, whole: NDArray[np.uint8]) -> bool:
    """Fill `whole` with ``values * divisor``; False if dividing it again does not give the same values."""
    with np.errstate(over="ignore"):  # what becomes infinite is no whole number up to 255
        scaled = np.rint(values * values.dtype.type(divisor))
    if scaled.size and not (scaled.min() >= 0 and scaled.max() <= np.iinfo(np.uint8).max):
        return False
    whole[:] = scaled
    return bool((whole / values.dtype.type(divisor) == values).all())


def _starts_of_rows(counts: NDArray) -> NDArray[np.int64]:
    row_starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(-(-counts // TERMS) * TERMS, out=row_starts[1:])
    return row_starts


def bound_tiles(n_samples: int, n_groups: int, tile_rows: int) -> NDArray[np.int64]:
    """Where each of the T tiles of a full batch begins, and the last one ends."""
    n_tiles = count_tiles(n_samples, n_groups, tile_rows)
    places = (tile_start(tile, n_tiles, tile_rows, 0, n_samples) for tile in range(n_tiles + 1))
    return np.fromiter(places, np.int64)


def pay_off_as_tiles(packed: PackedRows, n_features: int, bounds: NDArray[np.int64]) -> bool:
    """Whether tiles need little memory: where there are more columns than non-zeros, most of it says where none are."""
    n_tiles = len(bounds) - 1
    return n_tiles * (n_features + 1) * 8 <= max(packed.values.nbytes + packed.columns.nbytes, _BYTES_OF_STARTS)


def pack_tiles(packed: PackedRows, n_features: int, bounds: NDArray[np.int64]) -> PackedTiles:
    """The non-zeros of each tile by columns."""
    kind = TilePackingKind(packed.values.dtype, packed.columns.dtype)
    starts = np.empty((len(bounds) - 1, n_features + 1), np.int64)
    values, columns, of_columns = _raw(packed.values), _raw(packed.columns), np.empty(n_features, np.int64)
    packing = TilePacking(values, columns, packed.row_starts, bounds, of_columns, starts, _NOTHING, _NOTHING)
    _call(kind, "count_columns", packing)
    size = starts[-1, -1]
    tiles = PackedTiles(np.zeros(size, packed.values.dtype), np.zeros(size, np.uint8), starts)
    _call(kind, "fill_tiles", packing._replace(tile_values=_raw(tiles.values), tile_rows=tiles.rows))
    return tiles


def transpose_tiles(
    dataset: Dataset, bounds: NDArray[np.int64], tile_rows: int, row_multiple: int, dtype: np.dtype
) -> TileColumns:
    """The tiles of dense samples."""

    def transpose(rows: NDArray, dtype: np.dtype) -> NDArray:
        n_columns = rows[0].size
        slots = np.zeros((len(bounds) - 1, tile_rows * n_columns), dtype)
        for slot, begin, end in zip(slots, bounds, bounds[1:], strict=False):
            size = -(-(end - begin) // row_multiple) * row_multiple
            columns = slot[: size * n_columns].reshape(n_columns, size)
            columns[:, : end - begin] = rows[begin:end].reshape(-1, n_columns).T
        return slots

    weights = np.ones(dataset.n_samples, dtype) if dataset.sample_weight is None else dataset.sample_weight
    return TileColumns(
        transpose(dataset.x, dtype), transpose(dataset.targets, dataset.targets.dtype), transpose(weights, dtype)
    )
