"""Products of matrices by cuBLAS, each with the arithmetic it is asked for.

``cupy.matmul`` leaves that to the environment: where it says ``CUPY_TF32=1``, all float32 products of the process are
rounded to TF32.
"""

# Legend: M rows of a product, N its columns, K the terms of each sum; B batches, R rows of one of them.

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

__all__ = ["multiply", "multiply_halves", "multiply_transposed_halves"]

Array = Any

cublas = cupy.cuda.cublas

_TYPES = {
    "float16": cupy.cuda.runtime.CUDA_R_16F,
    "float32": cupy.cuda.runtime.CUDA_R_32F,
    "float64": cupy.cuda.runtime.CUDA_R_64F,
}

# By precision and dtype of the product, as cublasGemmEx has it. Sums are of the product's dtype.
_ARITHMETIC = {
    ("fp32", "float32"): cublas.CUBLAS_COMPUTE_32F,
    ("tf32", "float32"): cublas.CUBLAS_COMPUTE_32F_FAST_TF32,
    ("fp32", "float64"): cublas.CUBLAS_COMPUTE_64F,
}

# cuBLAS reads the factors of a product, and of what is added to it, from addresses on the host.
_ZERO_AND_ONE = {dtype: np.array([0, 1], dtype) for dtype in ("float32", "float64")}
_ZERO = {dtype: scalars[:1].ctypes.data for dtype, scalars in _ZERO_AND_ONE.items()}
_ONE = {dtype: scalars[1:].ctypes.data for dtype, scalars in _ZERO_AND_ONE.items()}


def multiply(a: Array, b: Array, out: Array | None = None, *, precision: str) -> Array:
    """``a @ b`` for a (M, K) and b (K, N), both float32 or both float64.

    Parameters
    ----------
    a, b : cupy.ndarray
        Each contiguous, or the transposed of a matrix that is.
    out : cupy.ndarray (M, N), optional
        C-contiguous; shares no memory with the factors.
    precision : {"fp32", "tf32"}
        Of float32 products, as in `fastnet.spec.NetworkSpec`.
    """
    dtype = a.dtype.name
    if out is None:
        out = cupy.empty((a.shape[0], b.shape[1]), a.dtype)
    _multiply(a, b, out, _ARITHMETIC[precision, dtype])
    return out


def multiply_halves(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` for float16 a (M, K) and b (K, N) to a float32 `out` (M, N), all of them contiguous.

    Products are exact; sums are float32, which tensor cores round toward zero.
    """
    _multiply(a, b, out, cublas.CUBLAS_COMPUTE_32F)


def _multiply(a: Array, b: Array, out: Array, arithmetic: int) -> None:
    """Write ``a @ b`` to `out`. To cuBLAS, which stores columns, each matrix is its transposed: out.T is b.T @ a.T."""
    (n_rows, n_terms), n_columns, dtype = a.shape, b.shape[1], out.dtype.name
    operation_a, stride_a = _as_cublas_has_it(a)
    operation_b, stride_b = _as_cublas_has_it(b)
    cublas.gemmEx(
        cupy.cuda.get_cublas_handle(),
        operation_b,
        operation_a,
        n_columns,
        n_rows,
        n_terms,
        _ONE[dtype],
        b.data.ptr,
        _TYPES[b.dtype.name],
        stride_b,
        a.data.ptr,
        _TYPES[a.dtype.name],
        stride_a,
        _ZERO[dtype],
        out.data.ptr,
        _TYPES[dtype],
        n_columns,
        arithmetic,
        cublas.CUBLAS_GEMM_DEFAULT,
    )


def _as_cublas_has_it(matrix: Array) -> tuple[int, int]:
    """What to do to its memory to find the transposed matrix there, and the distance between columns."""
    if matrix.flags.c_contiguous:
        return cublas.CUBLAS_OP_N, matrix.shape[1]
    assert matrix.flags.f_contiguous, "cuBLAS takes matrices that are contiguous one way or the other"
    return cublas.CUBLAS_OP_T, matrix.shape[0]


def multiply_transposed_halves(a: Array, b: Array, out: Array, *, add: bool) -> None:
    """Write ``a[k].T @ b[k]`` to ``out[k]``, or add it, for all k: float16 a (B, R, M) and b (B, R, N), float32 `out`.

    Sums as in :func:`multiply_halves`; `out` (B, M, N) is contiguous as the others are.
    """
    n_batches, n_terms, n_rows = a.shape
    n_columns = b.shape[2]
    cublas.gemmStridedBatchedEx(
        cupy.cuda.get_cublas_handle(),
        cublas.CUBLAS_OP_N,
        cublas.CUBLAS_OP_T,
        n_columns,
        n_rows,
        n_terms,
        _ONE["float32"],
        b.data.ptr,
        _TYPES["float16"],
        n_columns,
        n_terms * n_columns,
        a.data.ptr,
        _TYPES["float16"],
        n_rows,
        n_terms * n_rows,
        (_ONE if add else _ZERO)["float32"],
        out.data.ptr,
        _TYPES["float32"],
        n_columns,
        n_rows * n_columns,
        n_batches,
        cublas.CUBLAS_COMPUTE_32F,
        cublas.CUBLAS_GEMM_DEFAULT,
    )
