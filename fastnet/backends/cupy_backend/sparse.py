"""Sparse samples on the device: products that add in a fixed order, and batches unpacked into dense rows.

cuSPARSE's product with a transposed matrix may differ in its last bits from run to run (so says its documentation of
``cusparseSpMM``); these kernels' do not.
"""

# Legend: R rows, D columns of the sparse matrix, K its non-zeros, O columns of the dense factor, B batch size, S
# segments of a row. I is the type of the indices, T of the values.

from __future__ import annotations

from functools import cached_property
from typing import Any

import cupy

from fastnet.backends.cupy_backend.uploads import upload

__all__ = ["SparseMatrix"]

Array = Any

# Threads that keep a device busy: rows are cut into segments until there are about as many.
_THREADS = 1 << 19
_MAX_SEGMENTS = 64

# One thread per element of partial (S, R, O): a segment of a row of the matrix times a column of `dense` (D, O).
_MULTIPLY = cupy.ElementwiseKernel(
    "raw I indptr, raw I indices, raw T values, raw T dense, int64 n_rows, int64 n_columns, int64 n_segments",
    "T partial",
    """
    const long long column = i % n_columns;
    const long long row = i / n_columns % n_rows;
    const long long segment = i / n_columns / n_rows;
    const long long start = indptr[row], length = indptr[row + 1] - start;
    const long long stop = start + length * (segment + 1) / n_segments;
    T sum = T(0);
    for (long long k = start + length * segment / n_segments; k < stop; ++k)
        sum += values[k] * dense[indices[k] * n_columns + column];
    partial = sum;
    """,
    "fastnet_sparse_multiply",
)

# One thread per element of batch (B, D), which it looks for in its row by bisection.
_UNPACK = cupy.ElementwiseKernel(
    "raw I indptr, raw I indices, raw T values, raw int64 rows, int64 n_features",
    "T batch",
    """
    const long long row = rows[i / n_features], column = i % n_features, stop = indptr[row + 1];
    long long low = indptr[row], high = stop;
    while (low < high) {
        const long long middle = low + (high - low) / 2;
        if (indices[middle] < column) low = middle + 1;
        else high = middle;
    }
    batch = low < stop && indices[low] == column ? values[low] : T(0);
    """,
    "fastnet_sparse_unpack",
)


class SparseMatrix:
    """A CSR matrix (R, D) on the device; columns ascend within each row, and none occurs twice.

    Parameters
    ----------
    indptr : cupy.ndarray (R + 1,)
    indices : cupy.ndarray (K,)
        Of the same integer type as `indptr`.
    values : cupy.ndarray (K,)
    shape : tuple of int
    """

    def __init__(self, indptr: Array, indices: Array, values: Array, shape: tuple[int, int]) -> None:
        self._indptr = indptr
        self._indices = indices
        self._values = values
        self.shape = shape

    @classmethod
    def from_host(cls, matrix: Any) -> SparseMatrix:
        """Upload a scipy.sparse CSR matrix."""
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()  # sorts, too
        return cls(upload(matrix.indptr), upload(matrix.indices), upload(matrix.data), matrix.shape)

    @cached_property
    def T(self) -> SparseMatrix:  # noqa: N802  as arrays have it
        """The transposed matrix (D, R), made on the device once."""
        n_rows, n_columns = self.shape
        if not len(self._values):
            starts = cupy.zeros(n_columns + 1, self._indptr.dtype)
            return SparseMatrix(starts, self._indices, self._values, (n_columns, n_rows))
        order = cupy.argsort(self._indices, kind="stable")  # rows stay in ascending order within a column
        columns = self._indices[order]
        indptr = cupy.searchsorted(columns, cupy.arange(n_columns + 1), side="left")
        rows = cupy.searchsorted(self._indptr, cupy.arange(len(self._indices)), side="right") - 1
        index_type = self._indices.dtype
        return SparseMatrix(
            indptr.astype(index_type), rows[order].astype(index_type), self._values[order], (n_columns, n_rows)
        )

    def __matmul__(self, dense: Array) -> Array:
        """The product (R, O) with a C-contiguous matrix (D, O)."""
        n_rows, n_columns = self.shape[0], dense.shape[1]
        n_segments = min(max(_THREADS // (n_rows * n_columns), 1), _MAX_SEGMENTS)
        partial = cupy.empty((n_segments, n_rows, n_columns), dense.dtype)
        _MULTIPLY(self._indptr, self._indices, self._values, dense, n_rows, n_columns, n_segments, partial)
        return partial[0] if n_segments == 1 else partial.sum(axis=0)

    def take_rows(self, rows: Array) -> Array:
        """The rows `rows` (B,), int64, as a dense matrix (B, D).

        Dense, because a batch is small: it takes B / O times the memory of the first layer's weights, and its products
        are then cuBLAS's.
        """
        batch = cupy.empty((len(rows), self.shape[1]), self._values.dtype)
        _UNPACK(self._indptr, self._indices, self._values, rows, self.shape[1], batch)
        return batch
