"""Products with sparse samples: sums over non-zeros, of as many columns at once as a register holds.

A piece of 16 columns goes over all rows of a tile before the next one: that much of a weight, or of a tile's gradient,
nearly fits into the first-level cache. The order of each sum depends on the data and the tile alone.
"""

# Legend: N samples, D features, B rows of a tile, O fan-out. weight (D, O), z (B, O), d_z (B, O), d_weight (D, O).
# By rows, the non-zeros of a sample are values[k] in columns[k] for row_starts[sample] <= k < row_starts[sample + 1].
# By columns, those of feature j in a tile are values[k] in row rows[k] of the tile, for starts[j] <= k < starts[j + 1].

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.compiling import kernel
from fastnet.backends.numba_backend.vectors import add, index_at, load, multiply_add, number_at, splat, store, zeros

__all__ = ["sample_at", "sparse_product", "sparse_product_backward", "tile_product_backward"]


@kernel
def sample_at(order, position):
    """Index of the sample at a position."""
    return order[position] if order.size else position


@kernel
def add_term(sums, values, rows, k, matrix, column):
    """``sums + values[k] * matrix[rows[k], column:]``, as wide as the vector `sums`."""
    row = load(sums, matrix, index_at(rows, k) * matrix.shape[1] + column)
    return multiply_add(splat(sums, number_at(sums, values, k)), row, sums)


@kernel
def weighted_sum(zero, values, rows, first, last, matrix, column):
    """``sum_k values[k] * matrix[rows[k], column:]`` over first <= k < last.

    Four sums are under way at once: one alone would wait for itself at every term.
    """
    a, b, c, d = zero, zero, zero, zero
    k = first
    while k + 4 <= last:
        a = add_term(a, values, rows, k, matrix, column)
        b = add_term(b, values, rows, k + 1, matrix, column)
        c = add_term(c, values, rows, k + 2, matrix, column)
        d = add_term(d, values, rows, k + 3, matrix, column)
        k += 4
    while k < last:
        a = add_term(a, values, rows, k, matrix, column)
        k += 1
    return add(add(a, b), add(c, d))


@kernel
def product_piece(zero, values, columns, row_starts, order, begin, weight, z, column):
    for i in range(z.shape[0]):
        sample = sample_at(order, begin + i)
        first, last = row_starts[sample], row_starts[sample + 1]
        store(z, i * z.shape[1] + column, weighted_sum(zero, values, columns, first, last, weight, column))


@kernel
def sparse_product(values, columns, row_starts, order, begin, weight, z):
    """``z = x @ weight`` for the B samples from position `begin` on."""
    column, width = 0, z.shape[1]
    while column + 16 <= width:
        product_piece(zeros(z, 16), values, columns, row_starts, order, begin, weight, z, column)
        column += 16
    while column + 4 <= width:
        product_piece(zeros(z, 4), values, columns, row_starts, order, begin, weight, z, column)
        column += 4
    while column < width:
        product_piece(zeros(z, 1), values, columns, row_starts, order, begin, weight, z, column)
        column += 1


@kernel
def backward_piece(zero, values, columns, row_starts, order, begin, d_z, d_weight, column):
    width = d_z.shape[1]
    for i in range(d_z.shape[0]):
        sample = sample_at(order, begin + i)
        d_row = load(zero, d_z, i * width + column)
        for k in range(row_starts[sample], row_starts[sample + 1]):
            at = index_at(columns, k) * width + column
            value = splat(zero, number_at(zero, values, k))
            store(d_weight, at, multiply_add(value, d_row, load(zero, d_weight, at)))


@kernel
def sparse_product_backward(values, columns, row_starts, order, begin, d_z, d_weight):
    """``d_weight += x.T @ d_z`` for the B samples from position `begin` on."""
    column, width = 0, d_z.shape[1]
    while column + 16 <= width:
        backward_piece(zeros(d_z, 16), values, columns, row_starts, order, begin, d_z, d_weight, column)
        column += 16
    while column + 4 <= width:
        backward_piece(zeros(d_z, 4), values, columns, row_starts, order, begin, d_z, d_weight, column)
        column += 4
    while column < width:
        backward_piece(zeros(d_z, 1), values, columns, row_starts, order, begin, d_z, d_weight, column)
        column += 1


@kernel
def tile_backward_piece(zero, values, rows, starts, d_z, d_weight, column):
    for j in range(d_weight.shape[0]):
        first, last = starts[j], starts[j + 1]
        if first < last:
            at = j * d_weight.shape[1] + column
            total = weighted_sum(zero, values, rows, first, last, d_z, column)
            store(d_weight, at, add(load(zero, d_weight, at), total))


@kernel
def tile_product_backward(values, rows, starts, d_z, d_weight):
    """``d_weight += x.T @ d_z`` for a tile whose non-zeros are at hand by columns."""
    column, width = 0, d_z.shape[1]
    while column + 16 <= width:
        tile_backward_piece(zeros(d_z, 16), values, rows, starts, d_z, d_weight, column)
        column += 16
    while column + 4 <= width:
        tile_backward_piece(zeros(d_z, 4), values, rows, starts, d_z, d_weight, column)
        column += 4
    while column < width:
        tile_backward_piece(zeros(d_z, 1), values, rows, starts, d_z, d_weight, column)
        column += 1
