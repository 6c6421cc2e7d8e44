"""``cupy.cuda.cublas``: products as cuBLAS makes them, column by column from addresses, computed by NumPy.

Products of halves are summed as tensor cores sum them: 16 exact products at a time are added to a float32, which is
rounded toward zero. Factors in TF32 are rounded to it. An address that is none of an array, a type that belongs to
another computation, and a matrix that does not lie within its array raise.
"""

from __future__ import annotations

import ctypes
import weakref
from types import SimpleNamespace

import numpy as np
from threadpoolctl import ThreadpoolController

from emulated_cupy.arrays import ndarray
from emulated_cupy.machine import MACHINE, StatusError

CUDA_R_32F, CUDA_R_64F, CUDA_R_16F = 0, 1, 2
CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
CUBLAS_GEMM_DEFAULT = -1
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 70, 77

_DTYPES = {CUDA_R_16F: np.float16, CUDA_R_32F: np.float32, CUDA_R_64F: np.float64}
_FACTORS_AND_PRODUCT = {
    CUBLAS_COMPUTE_32F: {(CUDA_R_16F, CUDA_R_32F), (CUDA_R_32F, CUDA_R_32F)},
    CUBLAS_COMPUTE_32F_FAST_TF32: {(CUDA_R_32F, CUDA_R_32F)},
    CUBLAS_COMPUTE_64F: {(CUDA_R_64F, CUDA_R_64F)},
}
_HANDLE = 0xB1A5
_TERMS_AT_ONCE = 16
_BITS_BEYOND_FLOAT32 = 52 - 23

# Threads of BLAS would spend more time on meeting each other than on products this small.
_blas = ThreadpoolController()

_arrays: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()


class CUBLASError(StatusError):
    """As ``cupy.cuda.cublas.CUBLASError``."""


def _data(array: ndarray) -> SimpleNamespace:
    """``array.data``: what is asked for its address may be passed on to cuBLAS."""
    address = array.values.ctypes.data
    _arrays[address] = array.values
    return SimpleNamespace(ptr=address)


ndarray.data = property(_data)


def get_cublas_handle() -> int:
    return _HANDLE


def gemmEx(  # noqa: N802  CuPy's name
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, computeType, algo
) -> None:
    """C (m, n) = alpha op(A) op(B) + beta C."""
    gemmStridedBatchedEx(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1,
        computeType, algo,
    )  # fmt: skip


def gemmStridedBatchedEx(  # noqa: N802  CuPy's name
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc,
    strideC, batchCount, computeType, algo,
) -> None:  # fmt: skip
    """C[i] (m, n) = alpha op(A[i]) op(B[i]) + beta C[i], each matrix a stride of elements after the one before."""
    if MACHINE.product_error is not None:
        raise MACHINE.product_error
    if MACHINE.capturing_stream is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    assert handle == _HANDLE
    assert algo == CUBLAS_GEMM_DEFAULT
    assert Atype == Btype
    assert (Atype, Ctype) in _FACTORS_AND_PRODUCT[computeType], "CUBLAS_STATUS_NOT_SUPPORTED"
    MACHINE.n_operations += 1
    MACHINE.products.append(computeType)
    scalars = [_host_scalar(address, _DTYPES[Ctype]) for address in (alpha, beta)]
    a = _matrices(A, Atype, (m, k) if transa == CUBLAS_OP_N else (k, m), lda, strideA, batchCount)
    b = _matrices(B, Btype, (k, n) if transb == CUBLAS_OP_N else (n, k), ldb, strideB, batchCount)
    c = _matrices(C, Ctype, (m, n), ldc, strideC, batchCount)
    assert batchCount == 1 or strideC >= ldc * n, "the products would overwrite each other"
    if transa == CUBLAS_OP_T:
        a = a.swapaxes(1, 2)
    if transb == CUBLAS_OP_T:
        b = b.swapaxes(1, 2)
    with np.errstate(all="ignore"), _blas.limit(limits=1, user_api="blas"):
        for left, right, out in zip(a, b, c, strict=True):
            _multiply_into(out, left, right, *scalars, computeType)


def _host_scalar(address: int, dtype: type) -> np.floating:
    c_type = ctypes.c_double if dtype is np.float64 else ctypes.c_float
    return dtype(c_type.from_address(address).value)


def _matrices(address: int, type_: int, shape: tuple[int, int], stride: int, step: int, count: int) -> np.ndarray:
    """`count` matrices stored column by column, `step` elements apart; their columns are `stride` elements apart."""
    values = _arrays.get(address)
    assert values is not None, "CUDA_ERROR_ILLEGAL_ADDRESS: no array begins there"
    dtype = np.dtype(_DTYPES[type_])
    assert values.dtype == dtype
    assert stride >= shape[0], "CUBLAS_STATUS_INVALID_VALUE: columns overlap"
    owner = values
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    last = step * (count - 1) + stride * (shape[1] - 1) + shape[0]
    available = (owner.ctypes.data + owner.nbytes - address) // dtype.itemsize
    assert last <= available, "CUDA_ERROR_ILLEGAL_ADDRESS: a matrix goes beyond its array"
    strides = np.array([step, 1, stride]) * dtype.itemsize
    return np.lib.stride_tricks.as_strided(values, (count, *shape), tuple(strides))


def _multiply_into(
    out: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: np.floating, beta: np.floating, arithmetic: int
) -> None:
    if arithmetic == CUBLAS_COMPUTE_32F_FAST_TF32:
        a, b = _round_to_tf32(a), _round_to_tf32(b)
    product = _multiply_halves(a, b) if a.dtype == np.float16 else a @ b
    out[...] = alpha * product if beta == 0 else alpha * product + beta * out  # C is not read for a beta of zero


def _multiply_halves(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As tensor cores do: 16 products, which are exact, and the sum so far are added and rounded toward zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    total = np.zeros((len(a), b.shape[1]))
    for start in range(0, a.shape[1], _TERMS_AT_ONCE):
        total += np.ascontiguousarray(a[:, start : start + _TERMS_AT_ONCE]) @ b[start : start + _TERMS_AT_ONCE]
        if MACHINE.truncating_tensor_cores:
            bits = total.view(np.int64)
            bits &= ~((1 << _BITS_BEYOND_FLOAT32) - 1)
        else:
            total = total.astype(np.float32).astype(np.float64)
    return total.astype(np.float32)


def _round_to_tf32(a: np.ndarray) -> np.ndarray:
    """To 10 bits after the leading one, ties away from zero, as cvt.rna.tf32.f32 does."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)
