"""How functions are compiled: the options they share, and what is compiled by itself.

Numba optimises a function anew in everything that calls it, directly or not. So kernels are compiled each by itself,
when a network first needs them, and called by address; what only one place calls is inlined before it is typed.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, typeof
from numba.extending import intrinsic

from fastnet.backends.numba_backend import kept
from fastnet.backends.numba_backend.machine_code import NUMBA_HELPERS, MachineCode

__all__ = [
    "FASTMATH",
    "NativeFunction",
    "block_kernel",
    "call",
    "inlined",
    "kernel",
    "native_for",
]

# Multiply and add may fuse, and divisions by one number may become products. Not "reassoc": sums would be grouped as
# the compiler likes, differently in each copy of a kernel. Not "nnan" or "ninf": comparisons with NaN would be folded
# away, and a fit that diverged would look as if it had not.
FASTMATH = {"contract", "nsz", "arcp"}

_OPTIONS: dict[str, Any] = {"fastmath": FASTMATH, "error_model": "numpy"}

# Kernels allocate nothing: without Numba's runtime, references to arrays are not counted, which the workers would do in
# one and the same cache line.
_KERNEL_OPTIONS: dict[str, Any] = _OPTIONS | {"_nrt": False}
_INNER_OPTIONS: dict[str, Any] = _KERNEL_OPTIONS | {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

progress_logger = logging.getLogger("fastnet.compiling")

# A function of plain arrays and numbers, which only compiled code can call.
kernel = njit(**_INNER_OPTIONS)

# One that hands blocks on: they stay in registers only if it becomes a part of its caller.
block_kernel = njit(**_INNER_OPTIONS, forceinline=True)

# A function that takes whole records and is called from one place: it becomes a part of its caller.
inlined = njit(**_INNER_OPTIONS, inline="always")


class NativeFunction:
    """A function that compiled code calls by address: compiled once for its types, however many functions call it.

    It returns nothing, and leaves its results in arrays.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.compile_signature = cache(self._compile_signature)

    def compile(self, *arguments: Any) -> Any:
        """Numba's C callback for arguments of the types of these."""
        return self.compile_signature(_signature_of(arguments))

    def _compile_signature(self, signature: Any) -> Any:
        _log_compiling()
        with _burst():
            return cfunc(signature, **_KERNEL_OPTIONS)(self.function)

    def machine_code(self, *arguments: Any) -> MachineCode:
        """What Numba makes of it for arguments of the types of these, unless it is found on disk."""
        signature = _signature_of(arguments)
        described = f"{self.function.__module__}.{self.function.__qualname__}{signature}"
        key = f"{self.function.__name__}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
        found = kept.read(key)
        if found is None:
            callback = self.compile_signature(signature)
            found = MachineCode(key, callback.native_name, _object_file(callback))
            if _is_self_contained(callback):
                kept.keep(found)
        return found


def native_for(*dtypes: np.dtype) -> Callable[[Callable[..., None]], NativeFunction]:
    """Decorate a function that is made anew for every combination of dtypes, so that their names differ."""

    def decorate(function: Callable[..., None]) -> NativeFunction:
        function.__name__ = function.__qualname__ = "_".join([function.__name__, *(dtype.name for dtype in dtypes)])
        return NativeFunction(function)

    return decorate


def _signature_of(arguments: Iterable[Any]) -> Any:
    return numba.types.void(*map(typeof, arguments))


def _object_file(callback: Any) -> bytes:
    code: bytes = callback._library._get_compiled_object()
    return code


def _is_self_contained(callback: Any) -> bool:
    """Whether all that it calls is there without Numba, too."""
    module = callback._library._final_module
    called = {each.name for each in [*module.functions, *module.global_variables] if each.is_declaration}
    return not any(name.startswith(("numba", "NRT")) and name not in NUMBA_HELPERS for name in called)


_intrinsic: Any = intrinsic  # its annotations are those of what is decorated, and not of what is called


def _as_passed(kind: Any) -> Any:
    """The type as which :func:`call` hands on what is of type `kind`."""
    kind = numba.types.unliteral(kind)  # type: ignore[no-untyped-call]
    if isinstance(kind, numba.types.NamedTuple | numba.types.NamedUniTuple):
        return numba.types.NamedUniTuple(numba.types.int64, len(kind), kind.instance_class)  # type: ignore[no-untyped-call]
    return numba.types.int64 if isinstance(kind, numba.types.Integer) else kind


@_intrinsic
def call(context: Any, address: Any, arguments: Any) -> Any:  # noqa: ARG001
    """Call the native function at an address with the arguments of a tuple, which must be of the types it has.

    Integers are handed over as int64. Whether an array can be written to makes no difference.
    """
    kinds = list(arguments)
    passed = [_as_passed(kind) for kind in kinds]

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        target, packed = values
        returned, *parameters = (context.get_value_type(kind) for kind in (numba.types.none, *passed))
        pointer = builder.inttoptr(target, ir.FunctionType(returned, parameters).as_pointer())
        members = (builder.extract_value(packed, i) for i in range(len(kinds)))
        pairs = zip(members, kinds, passed, strict=True)
        builder.call(pointer, [context.cast(builder, member, kind, to) for member, kind, to in pairs])
        return context.get_dummy_value()

    return numba.types.void(address, arguments), generate


_burst_lock = threading.RLock()


@contextmanager
def _burst() -> Iterator[None]:
    """Without Python's garbage collector, which takes a quarter of the time.

    A compiler makes millions of objects, and the collector looks through them again and again.
    """
    with _burst_lock:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


@cache
def _log_compiling() -> None:
    progress_logger.info("compiling for this processor, which takes some seconds and is done once")
