"""Machine code of kernels: where it is called, once it has been loaded into this process.

Loading takes LLVM, and not Numba: a process that finds on disk what it needs starts in a fraction of the time that it
would take to import a compiler.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

__all__ = ["NUMBA_HELPERS", "MachineCode", "is_anything_loaded", "load"]

# Functions of Numba's own that report exceptions. The code around kernels names them but never calls them, as kernels
# raise none. Where Numba is not imported, they stand for the end of the process.
NUMBA_HELPERS = (
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)


class MachineCode(NamedTuple):
    """A compiled function: an object file, and the symbol in it that is called; `key` tells it from all others."""

    key: str
    symbol: str
    object_file: bytes


_lock = threading.Lock()
_addresses: dict[str, int] = {}  # by key


def load(codes: Iterable[MachineCode]) -> list[int]:
    """The addresses of functions, which are loaded unless they are there."""
    import llvmlite.binding as llvm

    wanted = list(codes)
    with _lock:
        engine = _engine()
        missing = {code.key: code for code in wanted if code.key not in _addresses}
        for code in missing.values():
            engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
        engine.finalize_object()
        for key, code in missing.items():
            _addresses[key] = engine.get_function_address(code.symbol)
        return [_addresses[code.key] for code in wanted]


def is_anything_loaded() -> bool:
    """Whether LLVM is there, and some function."""
    return bool(_addresses)


@cache
def _engine() -> Any:
    """What links object files into this process, as long as it lives."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    abort = ctypes.cast(library.abort, ctypes.c_void_p).value
    for name in NUMBA_HELPERS:
        if llvm.address_of_symbol(name) is None:
            llvm.add_symbol(name, abort)
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), target.create_target_machine(jit=True))
