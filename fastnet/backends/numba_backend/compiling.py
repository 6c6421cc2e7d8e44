"""How functions are compiled: the options they share, what is compiled by itself, and a cache on disk.

Numba optimises a function anew in everything that calls it, directly or not. So kernels are compiled each by itself,
when a network first needs them, and called by address; what only one place calls is inlined before it is typed.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import cfunc, njit, typeof
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

__all__ = [
    "FASTMATH",
    "NativeFunction",
    "block_kernel",
    "call",
    "compiled",
    "inlined",
    "is_anything_on_disk",
    "kernel",
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

logger = logging.getLogger("fastnet")
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
        self._function = _stamped(function)
        self.compile = cache(self._compile)

    def for_arguments(self, *arguments: Any) -> Any:
        """What to pass to compiled code that calls it with arguments of the types of these."""
        return self.compile(numba.types.void(*map(typeof, arguments)))

    def _compile(self, signature: Any) -> Any:
        with _burst():
            function = _with_cache(lambda **options: cfunc(signature, **_KERNEL_OPTIONS, **options)(self._function))
        if not function.cache_hits:
            _log_compiling()
        return function


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


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, on its first call for each combination of types."""
    stamped = _stamped(function)
    return _with_cache(lambda **options: njit(**_OPTIONS, nogil=True, **options)(stamped))


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


def _with_cache(compile_function: Callable[..., Any]) -> Any:
    """Keep machine code on disk, where Numba finds a folder that it may write to."""
    try:
        return compile_function(cache=True)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _log_missing_cache()
        return compile_function()


def is_anything_on_disk() -> bool:
    """Whether some function of these sources has been compiled on this machine; True where nothing can be kept."""

    def probe() -> None: ...

    try:
        folder = Path(FunctionCache(probe).cache_path)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return True
    return any(folder.glob(f"*-{_sources_digest()}-*.nbi"))


@cache
def _log_missing_cache() -> None:
    logger.warning(
        "no folder to keep compiled code in, so every process compiles anew, which takes some seconds: "
        "set NUMBA_CACHE_DIR to a folder that can be written to"
    )


def _stamped(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under a name of its own for every state of this folder's sources.

    Numba finds its cache by a function's name, and uses it as long as the function's own file is the same: it would
    go on using kernels of the other files as they were before they were changed, or fail to read types that are gone.
    """
    stamped = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    stamped.__qualname__ = f"{function.__qualname__}-{_sources_digest()}"
    return stamped


@cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
