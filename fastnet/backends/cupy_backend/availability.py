"""Whether CuPy can compute here, found by trying; where it cannot, the reason and the remedy."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from fastnet.backends.interface import Availability

__all__ = ["availability"]

_INSTALL = (
    "pip install 'cupy-cuda13x[ctk]>=14' (drivers from 580 on) or 'cupy-cuda12x[ctk]>=14' (older ones), never both"
)


# By process and device: what was found before a fork does not hold after it.
_found: dict[tuple[int, int], Availability] = {}


def availability(device_index: int) -> Availability:
    """Whether the device can train; tried once per process and device, as CuPy compiles and runs a kernel for it."""
    key = os.getpid(), device_index
    if key not in _found:
        _found[key] = _find(device_index)
    return _found[key]


def _find(device_index: int) -> Availability:
    if importlib.util.find_spec("cupy") is None:
        return Availability(False, f"CuPy is not installed: {_INSTALL}")
    try:
        import cupy
    except Exception as error:  # not only ImportError: a cache folder that cannot be written to raises an OSError
        return Availability(
            False,
            f"CuPy is installed, but importing it raises {_describe(error)}. Reinstall it with {_INSTALL}; where the "
            "home folder is read-only, set CUPY_CACHE_DIR to one that is not",
        )
    if not cupy.cuda.is_available():
        return Availability(False, f"no usable CUDA device: {_why_no_device(cupy)}")
    devices = _device_names(cupy)
    if device_index >= len(devices):
        there_is = "there is one device" if len(devices) == 1 else f"there are {len(devices)} devices"
        return Availability(
            False, f"device 'cuda:{device_index}' does not exist: {there_is}, {', '.join(devices)}", tuple(devices)
        )
    try:
        _compute(cupy, device_index)
    except Exception as error:  # a missing library, an architecture too old for the toolkit, a broken driver
        return Availability(
            False,
            f"{devices[device_index]} is there, but trying to compute on it raises {_describe(error)}. Where a library "
            f"is missing: {_INSTALL}, which bring NVRTC and cuBLAS along. GPUs from before 2018 need cupy-cuda12x",
            tuple(devices),
        )
    chosen = devices.pop(device_index)
    return Availability(True, f"CuPy {cupy.__version__} on {chosen}", (chosen, *devices))


def _why_no_device(cupy: Any) -> str:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return f"{_describe(error)}. Without an NVIDIA GPU use backend='numba'; with one, install or update its driver"
    return f"the driver reports {count} devices; see whether CUDA_VISIBLE_DEVICES hides them"


def _device_names(cupy: Any) -> list[str]:
    runtime = cupy.cuda.runtime
    return [
        f"cuda:{index} {runtime.getDeviceProperties(index)['name'].decode()}"
        for index in range(runtime.getDeviceCount())
    ]


def _compute(cupy: Any, device_index: int) -> None:
    """Compile and run a kernel, which needs NVRTC, and a matrix product, which needs cuBLAS; compare the results."""
    with cupy.cuda.Device(device_index):
        double = cupy.ElementwiseKernel("T x", "T y", "y = x + x", "fastnet_double")
        doubled = double(cupy.arange(4, dtype=cupy.float32).reshape(2, 2))
        computed = cupy.asnumpy(doubled @ doubled)
    if not np.array_equal(computed, [[8, 12], [24, 44]]):
        raise ArithmeticError(f"a wrong result, {computed.tolist()}")


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}".rstrip(".")
