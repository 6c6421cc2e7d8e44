"""Loops that pack samples: ``packing.py`` of the backend says how they are packed."""

# Legend: N samples, D features, T tiles.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, native_for
from fastnet.backends.numba_backend.kernels.views import (
    bytes_at,
    matrix_of,
    own_bytes_at,
    own_wholes_at,
    wholes_at,
)
from fastnet.backends.numba_backend.layout import TERMS

__all__ = ["TilePackers", "dense_packer", "sparse_packer", "tile_packers"]


@cache
def dense_packer(value_dtype: np.dtype, column_dtype: np.dtype) -> NativeFunction:
    """Puts the non-zeros of dense samples to where their rows start."""

    @native_for(value_dtype, column_dtype)
    def pack_dense_rows(packing):
        row_starts, n_features = wholes_at(packing.row_starts, packing.row_starts_size), packing.n_features
        numbers = bytes_at(packing.numbers, packing.numbers_size).view(value_dtype)
        values = own_bytes_at(packing.values, packing.values_size).view(value_dtype)
        columns = own_bytes_at(packing.columns, packing.columns_size).view(column_dtype)
        for i in range(row_starts.size - 1):
            k = row_starts[i]
            for j in range(n_features):
                number = numbers[i * n_features + j]
                if number != 0:
                    values[k] = number
                    columns[k] = j
                    k += 1

    return pack_dense_rows


@cache
def sparse_packer(
    number_dtype: np.dtype, index_dtype: np.dtype, value_dtype: np.dtype, column_dtype: np.dtype
) -> NativeFunction:
    """The same for samples in CSR format."""

    @native_for(number_dtype, index_dtype, value_dtype, column_dtype)
    def pack_sparse_rows(packing):
        row_starts = wholes_at(packing.row_starts, packing.row_starts_size)
        numbers = bytes_at(packing.numbers, packing.numbers_size).view(number_dtype)
        indices = bytes_at(packing.indices, packing.indices_size).view(index_dtype)
        indptr = bytes_at(packing.indptr, packing.indptr_size).view(index_dtype)
        values = own_bytes_at(packing.values, packing.values_size).view(value_dtype)
        columns = own_bytes_at(packing.columns, packing.columns_size).view(column_dtype)
        for i in range(row_starts.size - 1):
            k = row_starts[i]
            for source in range(indptr[i], indptr[i + 1]):
                values[k] = numbers[source]
                columns[k] = indices[source]
                k += 1

    return pack_sparse_rows


class TilePackers(NamedTuple):
    """To be called one after the other."""

    count_columns: NativeFunction
    fill_tiles: NativeFunction


@cache
def tile_packers(value_dtype: np.dtype, column_dtype: np.dtype) -> TilePackers:
    """Find out where each column of each tile starts, and put its non-zeros there.

    They allocate nothing, as compiling what allocates takes three times as long: `of_columns` (D,) is scratch.
    """

    @native_for(value_dtype, column_dtype)
    def count_columns(packing):
        values = bytes_at(packing.values, packing.values_size).view(value_dtype)
        columns = bytes_at(packing.columns, packing.columns_size).view(column_dtype)
        row_starts = wholes_at(packing.row_starts, packing.row_starts_size)
        bounds = wholes_at(packing.bounds, packing.bounds_size)
        counts = own_wholes_at(packing.of_columns, packing.of_columns_size)
        n_tiles, n_features = bounds.size - 1, counts.size
        starts = matrix_of(own_wholes_at(packing.starts, packing.starts_size), 0, n_tiles, n_features + 1)
        end = 0
        for tile in range(n_tiles):
            for j in range(n_features):
                counts[j] = 0
            for k in range(row_starts[bounds[tile]], row_starts[bounds[tile + 1]]):
                counts[columns[k]] += values[k] != 0
            starts[tile, 0] = end
            for j in range(n_features):
                end += (counts[j] + (TERMS - 1)) // TERMS * TERMS
                starts[tile, j + 1] = end

    @native_for(value_dtype, column_dtype)
    def fill_tiles(packing):
        values = bytes_at(packing.values, packing.values_size).view(value_dtype)
        columns = bytes_at(packing.columns, packing.columns_size).view(column_dtype)
        row_starts = wholes_at(packing.row_starts, packing.row_starts_size)
        bounds = wholes_at(packing.bounds, packing.bounds_size)
        places = own_wholes_at(packing.of_columns, packing.of_columns_size)
        n_tiles, n_features = bounds.size - 1, places.size
        starts = matrix_of(wholes_at(packing.starts, packing.starts_size), 0, n_tiles, n_features + 1)
        tile_values = own_bytes_at(packing.tile_values, packing.tile_values_size).view(value_dtype)
        tile_rows = own_bytes_at(packing.tile_rows, packing.tile_rows_size)
        for tile in range(n_tiles):
            for j in range(n_features):
                places[j] = starts[tile, j]
            for i in range(bounds[tile], bounds[tile + 1]):
                for k in range(row_starts[i], row_starts[i + 1]):
                    if values[k] != 0:
                        at = places[columns[k]]
                        tile_values[at] = values[k]
                        tile_rows[at] = i - bounds[tile]
                        places[columns[k]] = at + 1

    return TilePackers(count_columns, fill_tiles)
