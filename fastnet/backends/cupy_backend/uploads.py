"""Copies of arrays from the host to the device, slice by slice where they are large.

CuPy copies by way of page-locked memory on the host, which it keeps for copies of the same size: for all of a large
array it would keep as much as that again, for slices it is the memory of two or three of them.
"""

# Legend: N rows.

from __future__ import annotations

from typing import Any

import cupy
from numpy.typing import NDArray

from fastnet.backends.cupy_backend.memory import SLICE_BYTES

__all__ = ["upload", "upload_into"]

Array = Any


def upload(array: Array) -> Array:
    """An array on the device with the values of `array`, which must not be written to.

    It is no copy where `array` is on the device already, and may be none where CuPy is told that host and device share
    their memory (``CUPY_ENABLE_UMP=1``).
    """
    if isinstance(array, cupy.ndarray) or array.nbytes <= SLICE_BYTES:
        return cupy.asarray(array)
    on_device = cupy.empty(array.shape, array.dtype)
    upload_into(on_device, array)
    return on_device


def upload_into(rows: Array, array: NDArray) -> None:
    """Write `array` (N, ...) to `rows` (N, ...), memory on the device of whatever type and strides."""
    n_rows = max(SLICE_BYTES * len(array) // array.nbytes, 1)
    for start in range(0, len(array), n_rows):
        rows[start : start + n_rows] = cupy.asarray(array[start : start + n_rows])
