"""Products with sparse samples: sums over non-zeros, one panel of the weight or of its gradient at a time.

Non-zeros are packed in multiples of TERMS, with zeros to fill up: see ``packing.py``.
"""

# Legend: D features, B rows of a tile, M non-zeros, w numbers of a vector.
# By rows, the non-zeros of a sample are values[k] in columns[k] for row_starts[sample] <= k < row_starts[sample + 1].
# By columns, those of feature j in a tile are values[k] in row rows[k] of the tile, for starts[j] <= k < starts[j + 1].
# The weight, its gradient, z and d_z lie in panels, as in products.py. Values, and columns, arrive as bytes.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from fastnet.backends.numba_backend.kernels.blocks import (
    add,
    gather,
    lanes_of,
    load,
    multiply_add,
    prefetch,
    splat,
    spread_run,
    store,
    sum_of_rows,
    zeros,
)
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, block_kernel, kernel, native_for
from fastnet.backends.numba_backend.layout import CACHE_LINE, TERMS

__all__ = ["SparseKernels", "sample_at", "sparse_kernels"]

# The samples of a batch lie anywhere, and the processor does not foresee where: each is fetched while so many others
# before it are multiplied, and where it starts is fetched so many earlier. That makes a step of digits-adam a tenth
# shorter on one machine.
_AHEAD = 3


@kernel
def sample_at(order, position):
    """Index of the sample at a position."""
    return order[position] if order.size else position


@kernel
def fetch_sample(values, columns, row_starts, order, position):
    """Have the non-zeros of the sample at a position of `order` fetched, if there is one."""
    if position + _AHEAD < order.size:
        prefetch(row_starts, order[position + _AHEAD])
    if position < order.size:
        sample = order[position]
        for k in range(row_starts[sample], row_starts[sample + 1], CACHE_LINE // values.itemsize):
            prefetch(values, k)
        for k in range(row_starts[sample], row_starts[sample + 1], CACHE_LINE // columns.itemsize):
            prefetch(columns, k)


@block_kernel
def weighted_sum(values, rows, first, last, matrix, start):
    """``sum_k values[k] * matrix[start + rows[k] * w:]`` over first <= k < last, as a block of one row."""
    total = zeros(matrix, TERMS)
    for k in range(first, last, TERMS):
        total = multiply_add(spread_run(total, values, k), gather(total, matrix, start, rows, k), total)
    return sum_of_rows(total)


@block_kernel
def weighted_sum_pair(values, rows, first, last, matrix, start, panel_stride):
    """The same for two panels, which share the look at values and rows."""
    one, other = zeros(matrix, TERMS), zeros(matrix, TERMS)
    for k in range(first, last, TERMS):
        numbers = spread_run(one, values, k)
        one = multiply_add(numbers, gather(one, matrix, start, rows, k), one)
        other = multiply_add(numbers, gather(other, matrix, start + panel_stride, rows, k), other)
    return sum_of_rows(one), sum_of_rows(other)


class SparseKernels(NamedTuple):
    """Kernels for one kind of values and of columns."""

    product: NativeFunction
    product_backward: NativeFunction
    sort_by_columns: NativeFunction


@cache
def sparse_kernels(value_dtype: np.dtype, column_dtype: np.dtype) -> SparseKernels:
    """Kernels for these dtypes of values and of columns."""

    @native_for(value_dtype, column_dtype)
    def sparse_product(
        packed_values, packed_columns, row_starts, order, begin, n_rows, n_features, weight, weight_start, bias_start,
        scale, n_panels, z, z_start, fetches,
    ):  # fmt: skip
        """``z = scale * (x @ weight) + bias`` for the samples from position `begin` on, which it fetches if so told."""
        values, columns = packed_values.view(value_dtype), packed_columns.view(column_dtype)
        scale = z.dtype.type(scale)
        single = zeros(z, 1)
        lanes = lanes_of(z)
        panel, panel_size = 0, n_features * lanes
        while panel + 2 <= n_panels:
            start = weight_start + panel * panel_size
            bias = load(single, weight, bias_start + panel * lanes, 0)
            bias_2 = load(single, weight, bias_start + (panel + 1) * lanes, 0)
            for i in range(n_rows):
                if fetches and panel == 0:
                    fetch_sample(values, columns, row_starts, order, begin + i + _AHEAD)
                sample = sample_at(order, begin + i)
                one, other = weighted_sum_pair(
                    values, columns, row_starts[sample], row_starts[sample + 1], weight, start, panel_size
                )
                place = z_start + (panel * n_rows + i) * lanes
                store(z, place, 0, multiply_add(one, splat(single, scale), bias))
                store(z, place + n_rows * lanes, 0, multiply_add(other, splat(single, scale), bias_2))
            panel += 2
        if panel < n_panels:
            start = weight_start + panel * n_features * lanes
            bias = load(single, weight, bias_start + panel * lanes, 0)
            for i in range(n_rows):
                if fetches and panel == 0:
                    fetch_sample(values, columns, row_starts, order, begin + i + _AHEAD)
                sample = sample_at(order, begin + i)
                total = weighted_sum(values, columns, row_starts[sample], row_starts[sample + 1], weight, start)
                place = z_start + (panel * n_rows + i) * lanes
                store(z, place, 0, multiply_add(total, splat(single, scale), bias))

    @native_for(value_dtype, column_dtype)
    def sparse_product_backward(
        packed_values, rows, starts, n_features, d_z, d_start, n_rows, n_panels, d_weight, weight_start, adds
    ):
        """``d_weight = x.T @ d_z`` for a tile, added to what is there if `adds`."""
        values = packed_values.view(value_dtype)
        lanes = lanes_of(d_weight)
        panel = 0
        while panel + 2 <= n_panels:
            start = d_start + panel * n_rows * lanes
            for j in range(n_features):
                first, last = starts[j], starts[j + 1]
                place = weight_start + (panel * n_features + j) * lanes
                place_2 = place + n_features * lanes
                if first < last:
                    one, other = weighted_sum_pair(values, rows, first, last, d_z, start, n_rows * lanes)
                    store(d_weight, place, 0, add(one, load(one, d_weight, place, 0)) if adds else one)
                    store(d_weight, place_2, 0, add(other, load(one, d_weight, place_2, 0)) if adds else other)
                elif not adds:
                    store(d_weight, place, 0, zeros(d_weight, 1))
                    store(d_weight, place_2, 0, zeros(d_weight, 1))
            panel += 2
        if panel < n_panels:
            start = d_start + panel * n_rows * lanes
            for j in range(n_features):
                first, last = starts[j], starts[j + 1]
                place = weight_start + (panel * n_features + j) * lanes
                if first < last:
                    total = weighted_sum(values, rows, first, last, d_z, start)
                    store(d_weight, place, 0, add(total, load(total, d_weight, place, 0)) if adds else total)
                elif not adds:
                    store(d_weight, place, 0, zeros(d_weight, 1))

    @native_for(value_dtype, column_dtype)
    def sort_by_columns(packed_values, packed_columns, row_starts, order, begin, n_rows, starts, sorted_values, rows):
        """Sort the non-zeros of the tile's samples by column, those of a column by row; columns are filled up anew."""
        values, columns = packed_values.view(value_dtype), packed_columns.view(column_dtype)
        tile_values = sorted_values.view(value_dtype)
        n_features = starts.size - 1
        starts[:] = 0
        for i in range(n_rows):
            sample = sample_at(order, begin + i)
            for k in range(row_starts[sample], row_starts[sample + 1]):
                starts[np.uint64(columns[k])] += 1
        end = 0
        for j in range(n_features):
            start, end = end, end + (starts[j] + (TERMS - 1)) // TERMS * TERMS
            starts[j] = start
            for k in range(max(start, end - TERMS), end):
                tile_values[k] = 0
                rows[k] = 0
        # While non-zeros are put in place, starts[j] is where the next one of column j goes.
        for i in range(n_rows):
            sample = sample_at(order, begin + i)
            for k in range(row_starts[sample], row_starts[sample + 1]):
                column = np.uint64(columns[k])
                at = np.uint64(starts[column])
                tile_values[at] = values[k]
                rows[at] = i
                starts[column] = at + 1
        for j in range(n_features, 0, -1):
            starts[j] = (starts[j - 1] + (TERMS - 1)) // TERMS * TERMS
        starts[0] = 0

    return SparseKernels(sparse_product, sparse_product_backward, sort_by_columns)
