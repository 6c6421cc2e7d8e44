"""CUDA modules: files of this package's source joined, with a network's constants defined, compiled once per device."""

from __future__ import annotations

from functools import cache
from typing import Any

import cupy

from fastnet.backends.cupy_backend.functions import has_source, read_source

__all__ = ["get_kernel", "load_module", "module_source", "options"]

# What every module begins with: intrinsics, then activations, heads and optimizers.
_SHARED = ("device.cuh", "functions.cuh")


def module_source(file_names: str | tuple[str, ...]) -> str:
    """The whole source of the module of a path's files, such as ``tiny.cu``, each behind its header, if it has one."""
    names = (file_names,) if isinstance(file_names, str) else file_names
    own = [name for file_name in names for name in (f"{file_name}h", file_name) if has_source(name)]
    return "\n".join(read_source(name) for name in (*_SHARED, *own))


def options(defines: dict[str, object]) -> tuple[str, ...]:
    """What the compiler is told: macros by name, in an order that does not depend on theirs."""
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in sorted(defines.items())))


def load_module(file_names: str | tuple[str, ...], defines: dict[str, object]) -> cupy.RawModule:
    """The module of a path's file, or of several in order, with its macros.

    CuPy compiles it when a kernel of it is asked for, for the device that is current then, and keeps the binary in a
    folder of its own.
    """
    return _load(file_names, options(defines))


@cache
def _load(file_names: str | tuple[str, ...], compiler_options: tuple[str, ...]) -> cupy.RawModule:
    return cupy.RawModule(code=module_source(file_names), options=compiler_options)


def get_kernel(module: Any, name: str) -> Any:
    """A kernel of a module, compiled and on the device."""
    kernel = module.get_function(name)
    # Whoever asks for an attribute has the driver load the kernel; else it may do so at the first launch, which may be
    # one that is captured for a graph.
    _ = kernel.local_size_bytes
    return kernel
