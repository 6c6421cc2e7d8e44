"""Matrix products of a tile: BLAS for dense operands, sums over non-zeros for sparse samples."""

# Legend: B rows of a tile, D features, I fan-in, O fan-out. x (B, D) samples, z (B, O), d_z like it, weight (I, O).
# A position is an index into `order`, or into the samples where `order` is empty.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from fastnet.backends.numba_backend.compiling import inlined, kernel
from fastnet.backends.numba_backend.sparse import (
    sample_at,
    sparse_product,
    sparse_product_backward,
    tile_product_backward,
)

__all__ = ["first_product", "first_product_backward", "product", "product_backward"]

# Up to this size of a weight, BLAS takes longer to begin than the product takes here.
LARGEST_SMALL = 64


@inlined
def first_product(samples, order, begin, weight, x, z):
    """``z = x @ weight`` for the B samples from position `begin` on; dense samples are left in `x`."""
    if samples.packed_values.size:
        values, columns, row_starts = samples.packed_values, samples.packed_columns, samples.packed_row_starts
        sparse_product(values, columns, row_starts, order, begin, weight, z)
    elif samples.row_starts.size:
        sparse_product(samples.values, samples.columns, samples.row_starts, order, begin, weight, z)
    else:
        load_rows(samples.bytes, order, begin, x)
        product(x, weight, z)


@inlined
def first_product_backward(samples, order, begin, tile, x, d_z, d_weight, scratch, is_first):
    """``d_weight = x.T @ d_z``, added to what is there unless `is_first`."""
    if samples.packed_values.size == 0 and samples.row_starts.size == 0:
        product_backward(x, d_z, d_weight, scratch, is_first)
    else:
        if is_first:
            d_weight[:] = d_weight.dtype.type(0)
        if samples.tile_values.size:
            starts = samples.tile_starts[tile]
            tile_product_backward(samples.tile_values, samples.tile_rows, starts, d_z, d_weight)
        elif samples.packed_values.size:
            packed_values, packed_columns = samples.packed_values, samples.packed_columns
            row_starts = samples.packed_row_starts
            sparse_product_backward(packed_values, packed_columns, row_starts, order, begin, d_z, d_weight)
        else:
            sparse_product_backward(samples.values, samples.columns, samples.row_starts, order, begin, d_z, d_weight)


@kernel
def product(a, b, out):
    """``out = a @ b`` with a (B, I), b (I, O)."""
    if b.size > LARGEST_SMALL:
        np.dot(a, b, out)
        return
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = out.dtype.type(0)
            for k in range(b.shape[0]):
                total += a[i, k] * b[k, j]
            out[i, j] = total


@kernel
def product_backward(h, d_z, d_weight, scratch, is_first):
    """``d_weight = h.T @ d_z`` with h (B, I), added to what is there unless `is_first`; scratch holds an (I, O)."""
    total = d_weight if is_first else scratch[: d_weight.size].reshape(d_weight.shape)
    if d_weight.size > LARGEST_SMALL:
        np.dot(h.T, d_z, total)
    else:
        for i in range(d_weight.shape[0]):
            for j in range(d_weight.shape[1]):
                total[i, j] = product_of_columns(h, i, d_z, j)
    if not is_first:
        for i in range(d_weight.shape[0]):
            for j in range(d_weight.shape[1]):
                d_weight[i, j] += total[i, j]


@kernel
def product_of_columns(a, i, b, j):
    """``a[:, i] @ b[:, j]``, four sums at once, as one alone would wait for itself at every term."""
    zero = type(a[0, 0])(0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    n_rows = a.shape[0]
    for k in range(0, n_rows - 3, 4):
        s0 += a[k, i] * b[k, j]
        s1 += a[k + 1, i] * b[k + 1, j]
        s2 += a[k + 2, i] * b[k + 2, j]
        s3 += a[k + 3, i] * b[k + 3, j]
    for k in range(n_rows - n_rows % 4, n_rows):
        s0 += a[k, i] * b[k, j]
    return (s0 + s1) + (s2 + s3)


@kernel
def load_rows(source, order, begin, x):
    """Copy the B samples from position `begin` on to `x`, from the bytes of x's dtype or of uint8."""
    n_features = x.shape[1]
    if source.shape[1] == n_features:
        for i in range(x.shape[0]):
            sample = sample_at(order, begin + i)
            for k in range(n_features):
                x[i, k] = source[sample, k]
    else:
        numbers = source.reshape(source.size).view(x.dtype)
        for i in range(x.shape[0]):
            start = sample_at(order, begin + i) * n_features
            for k in range(n_features):
                x[i, k] = numbers[start + k]
