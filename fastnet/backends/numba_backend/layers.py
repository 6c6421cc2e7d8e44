"""Matrix products of a tile: BLAS for dense operands, loops over the non-zeros of CSR samples."""

# Legend: B rows of a tile, D features, I fan-in, O fan-out. x (B, D) samples, z (B, O), d_z like it, weight (I, O).
# A position is an index into `order`, or into the samples where `order` is empty.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from fastnet.backends.numba_backend.compiling import inlined, kernel

__all__ = ["first_product", "first_product_backward", "product_backward", "sample_at"]


@kernel
def sample_at(order, position):
    """Index of the sample at a position."""
    return order[position] if order.size else position


@inlined
def first_product(samples, order, begin, weight, x, z):
    """``z = x @ weight`` for the B samples from position `begin` on; dense samples are left in `x`."""
    if samples.row_starts.size:
        sparse_product(samples, order, begin, weight, z)
    else:
        load_rows(samples.bytes, order, begin, x)
        np.dot(x, weight, z)


@inlined
def first_product_backward(samples, order, begin, x, d_z, d_weight, scratch, is_first):
    """``d_weight = x.T @ d_z``, added to what is there unless `is_first`."""
    if samples.row_starts.size:
        if is_first:
            d_weight[:] = d_weight.dtype.type(0)
        sparse_product_backward(samples, order, begin, d_z, d_weight)
    else:
        product_backward(x, d_z, d_weight, scratch, is_first)


@kernel
def product_backward(h, d_z, d_weight, scratch, is_first):
    """``d_weight = h.T @ d_z`` with h (B, I), added to what is there unless `is_first`; scratch holds an (I, O)."""
    if is_first:
        np.dot(h.T, d_z, d_weight)
        return
    product = scratch[: d_weight.size].reshape(d_weight.shape)
    np.dot(h.T, d_z, product)
    for i in range(d_weight.shape[0]):
        for j in range(d_weight.shape[1]):
            d_weight[i, j] += product[i, j]


@kernel
def load_rows(source, order, begin, x):
    """Copy the B samples from position `begin` on to `x`, from the bytes of x's dtype or of uint8."""
    n_features = x.shape[1]
    for i in range(x.shape[0]):
        row = source[sample_at(order, begin + i)]
        if row.size == n_features:
            for k in range(n_features):
                x[i, k] = row[k]
        else:
            values = row.view(x.dtype)
            for k in range(n_features):
                x[i, k] = values[k]


@kernel
def sparse_product(samples, order, begin, weight, z):
    z[:] = z.dtype.type(0)
    for i in range(z.shape[0]):
        sample = sample_at(order, begin + i)
        z_row = z[i]
        for k in range(samples.row_starts[sample], samples.row_starts[sample + 1]):
            value, weight_row = samples.values[k], weight[samples.columns[k]]
            for j in range(z_row.size):
                z_row[j] += value * weight_row[j]


@kernel
def sparse_product_backward(samples, order, begin, d_z, d_weight):
    for i in range(d_z.shape[0]):
        sample = sample_at(order, begin + i)
        d_row = d_z[i]
        for k in range(samples.row_starts[sample], samples.row_starts[sample + 1]):
            value, d_weight_row = samples.values[k], d_weight[samples.columns[k]]
            for j in range(d_row.size):
                d_weight_row[j] += value * d_row[j]
