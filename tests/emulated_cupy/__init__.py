"""The part of CuPy that the CuPy backend uses, emulated on the CPU, for machines without a GPU.

Device arrays refuse what CuPy's refuse (implicit conversion to NumPy, NumPy arrays as operands), every copy between
host and device is recorded, fresh memory is poisoned, and the CUDA source of the kernels is compiled as C++ and run,
with bounds checked; raw kernels with one fiber per CUDA thread, in several orders. So the tests prove logic, indexing,
types, barriers and the absence of host traffic. They cannot prove that CUDA compiles the kernels (``nvrtc.py`` does),
what a GPU makes of accesses to memory that no barrier orders, or how fast it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from emulated_cupy import arrays, cublas, elementwise, raw_module, streams
from emulated_cupy.machine import MACHINE, CUDADriverError, CUDARuntimeError, Device, Machine, OutOfMemoryError
from emulated_cupy.mutation import barrier_lines, superfluous_barriers

__all__ = ["Machine", "barrier_lines", "installed", "superfluous_barriers"]

_BACKEND = "fastnet.backends.cupy_backend"


@contextmanager
def installed() -> Iterator[Machine]:
    """Let ``import cupy`` find the emulation, and the backend import it anew; afterwards all is as it was."""
    if not elementwise.COMPILER:
        pytest.skip("no C++ compiler (g++, or what CXX names) to compile the CUDA kernels with")
    modules = _take_modules()
    sys.modules["cupy"] = _module()
    elementwise.ElementwiseKernel.made.clear()
    MACHINE.reset()
    try:
        yield MACHINE
    finally:
        _take_modules()
        sys.modules.update(modules)


def _take_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.startswith(_BACKEND) or name.split(".")[0] == "cupy"]
    return {name: sys.modules.pop(name) for name in names}


def _module() -> ModuleType:
    module = ModuleType("cupy")
    module.__spec__ = ModuleSpec("cupy", None)
    module.__version__ = "14.0.0 (emulated)"
    module.ElementwiseKernel = elementwise.ElementwiseKernel
    module.RawModule = raw_module.RawModule
    module.cuda = SimpleNamespace(
        Device=Device,
        is_available=lambda: MACHINE.driver_error is None and MACHINE.n_devices > 0,
        runtime=SimpleNamespace(
            getDeviceCount=MACHINE.count_devices,
            getDeviceProperties=lambda index: {"name": f"Emulated GPU {index}".encode()},
            CUDARuntimeError=CUDARuntimeError,
            CUDA_R_16F=cublas.CUDA_R_16F,
            CUDA_R_32F=cublas.CUDA_R_32F,
            CUDA_R_64F=cublas.CUDA_R_64F,
        ),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        cublas=cublas,
        get_cublas_handle=cublas.get_cublas_handle,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        Stream=streams.Stream,
        get_current_stream=streams.current_stream,
    )
    module.get_default_memory_pool = lambda: MACHINE.pool
    for name, value in arrays.NAMESPACE.items():
        setattr(module, name, value)
    return module
