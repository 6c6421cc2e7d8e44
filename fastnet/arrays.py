"""Arrays as users pass them, made NumPy's, and what every one of them must be: numbers, and finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.errors import DataError

__all__ = ["is_sparse", "numeric", "on_host", "require_finite"]


def is_sparse(x: object) -> bool:
    """Whether `x` is a scipy.sparse matrix or array, without importing SciPy."""
    return hasattr(x, "tocsr")


def on_host(name: str, x: Any) -> Any:
    """A NumPy view or copy of what lies on a device or in another array library; anything else as it is."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack_device__"):
        return x
    device_type, device_index = x.__dlpack_device__()
    if int(device_type) == 1:  # kDLCPU of the DLPack header
        try:
            return np.from_dlpack(x)
        except (BufferError, RuntimeError) as error:  # PyTorch: a gradient is attached, or NumPy lacks the dtype
            raise DataError(f"{name} cannot be read through DLPack: {error}") from error
    if hasattr(x, "get"):  # CuPy's copy to the host
        return x.get()
    try:
        return np.asarray(x.to("cpu"))  # PyTorch
    except (AttributeError, RuntimeError, TypeError) as error:
        raise DataError(
            f"{name} lies on a device (DLPack {device_type}:{device_index}) and {type(x).__name__} offers no way to "
            "copy it from there: pass a NumPy array, a CuPy array or a PyTorch tensor"
        ) from error


def numeric(name: str, values: ArrayLike, dtype: np.dtype) -> NDArray:
    """Values as a C-contiguous array of a dtype; `DataError` where they are no numbers, or not finite."""
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            array: NDArray = np.ascontiguousarray(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} must hold numbers: {error}") from error
    require_finite(name, array)
    return array


def require_finite(name: str, array: Any, column_kind: str = "output") -> None:
    """Raise `DataError` at the first value that is not finite of an array (N,) or (N, columns) or a CSR matrix."""
    values = array.data if is_sparse(array) else array
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype.kind != "f" or np.isfinite(values.sum()):  # needs no memory, and nearly always suffices
            return
    finite = np.isfinite(values)
    if finite.all():
        return
    index = int(np.argmin(finite))
    if is_sparse(array):
        sample, column = np.searchsorted(array.indptr, index, side="right") - 1, array.indices[index]
    else:
        sample, column = divmod(index, math.prod(array.shape[1:]))
    place = f"sample {sample}" if array.ndim < 2 else f"sample {sample}, {column_kind} {column}"
    value, remedy = values.flat[index], "remove or replace it"
    if np.isinf(value) and values.dtype == np.float32:
        remedy += "; if it is a finite number, too large for float32, use dtype='float64'"
    raise DataError(f"{name} holds {value} at {place}: {remedy}")
