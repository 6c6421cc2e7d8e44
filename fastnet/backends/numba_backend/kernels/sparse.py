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

from fastnet.backends.numba_backend.kernels.block_sums import add, multiply_add, sums_of_terms
from fastnet.backends.numba_backend.kernels.blocks import (
    gather,
    lanes_of,
    load,
    prefetch,
    splat,
    spread_run,
    store,
    zeros,
)
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, block_kernel, kernel, native_for
from fastnet.backends.numba_backend.layout import CACHE_LINE, TERMS

__all__ = ["SparseKernels", "sample_at", "sparse_kernels"]

# The samples of a batch lie anywhere, and the processor does not foresee where: each is fetched while so many others
# before it are multiplied, and where it starts is fetched so many earlier. That makes a step of digits-adam a tenth
# shorter on one machine.
_AHEAD = 3

_TERMS_OF_TWO = 2 * TERMS  # panels


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
def weighted_sums(total, values, rows, first, last, matrix, start, panel_stride):
    """``sum_k values[k] * matrix[start + rows[k] * w:]`` over first <= k < last, for some panels that lie so far apart.

    The result has a row for each panel, and `total` TERMS rows of zeros. Panels share the look at values and rows.
    """
    terms = zeros(matrix, TERMS)
    for k in range(first, last, TERMS):
        numbers = spread_run(terms, values, k)
        total = multiply_add(gather(total, matrix, start, panel_stride, rows, k, terms), numbers, total)
    return sums_of_terms(total, terms)


@block_kernel
def multiply_panels(
    total, panel, values, columns, row_starts, order, begin, n_rows, n_features, weight, weight_start, bias_start,
    scale, z, z_start, fetches,
):  # fmt: skip
    """The product for as many panels as `total` is for, see :func:`weighted_sums`, from `panel` on."""
    lanes, panel_size = lanes_of(z), n_features * lanes_of(z)
    start, place = weight_start + panel * panel_size, z_start + panel * n_rows * lanes
    sums = sums_of_terms(total, zeros(z, TERMS))
    bias, factor = load(sums, weight, bias_start + panel * lanes, lanes), splat(sums, scale)
    for i in range(n_rows):
        if fetches and panel == 0:
            fetch_sample(values, columns, row_starts, order, begin + i + _AHEAD)
        sample = sample_at(order, begin + i)
        first, last = row_starts[sample], row_starts[sample + 1]
        sums = weighted_sums(total, values, columns, first, last, weight, start, panel_size)
        store(z, place + i * lanes, n_rows * lanes, multiply_add(sums, factor, bias))


@block_kernel
def multiply_panels_backward(
    total, panel, values, rows, starts, n_features, d_z, d_start, n_rows, d_weight, weight_start, adds
):
    """The gradient for as many panels."""
    lanes, panel_size = lanes_of(d_weight), n_features * lanes_of(d_weight)
    start, place = d_start + panel * n_rows * lanes, weight_start + panel * panel_size
    for j in range(n_features):
        first, last = starts[j], starts[j + 1]
        if first < last:
            sums = weighted_sums(total, values, rows, first, last, d_z, start, n_rows * lanes)
            before = load(sums, d_weight, place, panel_size)
            store(d_weight, place, panel_size, add(sums, before) if adds else sums)
        elif not adds:
            store(d_weight, place, panel_size, sums_of_terms(total, zeros(d_weight, TERMS)))
        place += lanes


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
        scale, panel, two, one = z.dtype.type(scale), 0, zeros(z, _TERMS_OF_TWO), zeros(z, TERMS)
        while panel + 2 <= n_panels:
            multiply_panels(
                two, panel, values, columns, row_starts, order, begin, n_rows, n_features,
                weight, weight_start, bias_start, scale, z, z_start, fetches,
            )  # fmt: skip
            panel += 2
        if panel < n_panels:
            multiply_panels(
                one, panel, values, columns, row_starts, order, begin, n_rows, n_features,
                weight, weight_start, bias_start, scale, z, z_start, fetches,
            )  # fmt: skip

    @native_for(value_dtype, column_dtype)
    def sparse_product_backward(
        packed_values, rows, starts, n_features, d_z, d_start, n_rows, n_panels, d_weight, weight_start, adds
    ):
        """``d_weight = x.T @ d_z`` for a tile, added to what is there if `adds`."""
        values, panel = packed_values.view(value_dtype), 0
        two, one = zeros(d_weight, _TERMS_OF_TWO), zeros(d_weight, TERMS)
        while panel + 2 <= n_panels:
            multiply_panels_backward(
                two, panel, values, rows, starts, n_features, d_z, d_start, n_rows, d_weight, weight_start, adds
            )
            panel += 2
        if panel < n_panels:
            multiply_panels_backward(
                one, panel, values, rows, starts, n_features, d_z, d_start, n_rows, d_weight, weight_start, adds
            )

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
