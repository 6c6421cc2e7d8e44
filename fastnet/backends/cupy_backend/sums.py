"""Sums over the rows of a matrix, on the whole device and in a fixed order.

CuPy would have one block of threads make the sums of 32 columns: all rows of a large matrix by a few blocks of them.
"""

# Legend: R rows, D columns, S segments of rows. T is the type of the numbers.

from __future__ import annotations

import math
from typing import Any

import cupy

__all__ = ["sum_rows"]

Array = Any

# Up to so many rows, to launch one more kernel takes longer than to let each thread add up a column. An estimate.
_FEW_ROWS = 256

# One thread per element of partial (S, D): a segment of a column of x (R, D). Neighbours read neighbours.
_SUM_SEGMENTS = cupy.ElementwiseKernel(
    "raw T x, int64 n_rows, int64 n_columns, int64 n_segments",
    "T partial",
    """
    const long long column = i % n_columns, segment = i / n_columns;
    const long long stop = n_rows * (segment + 1) / n_segments;
    T sum = T(0);
    #pragma unroll 8
    for (long long row = n_rows * segment / n_segments; row < stop; ++row) sum += x[row * n_columns + column];
    partial = sum;
    """,
    "fastnet_sum_segments",
)


def sum_rows(x: Array, out: Array) -> None:
    """Write the sum of the rows of `x` (R, D) to `out` (D,), both C-contiguous and of the same float type."""
    n_rows, n_columns = x.shape
    if n_rows > _FEW_ROWS:
        n_segments = math.isqrt(n_rows)  # so that neither the first sums nor those of them are long
        partial = cupy.empty((n_segments, n_columns), x.dtype)
        _SUM_SEGMENTS(x, n_rows, n_columns, n_segments, partial)
        x, n_rows = partial, n_segments
    _SUM_SEGMENTS(x, n_rows, n_columns, 1, out)
