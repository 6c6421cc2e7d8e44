"""How kernels are compiled: one set of options for all of them, and a cache on disk wherever one can be kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

__all__ = ["FASTMATH", "entry_point", "kernel"]

# Multiply and add may fuse, and divisions by one number may become products. Not "reassoc": sums would be grouped as
# the compiler likes, differently in each copy of a kernel. Not "nnan" or "ninf": comparisons with NaN would be folded
# away, and a fit that diverged would look as if it had not.
FASTMATH = {"contract", "nsz", "arcp"}

_OPTIONS: dict[str, Any] = {"fastmath": FASTMATH, "error_model": "numpy", "nogil": True}

logger = logging.getLogger("fastnet")

# A function that other kernels call. It has no cache of its own: it lies in the cache of the entry points that use it.
kernel = njit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry_point(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, with parallel loops, on its first call for each combination of types.

    Machine code is kept on disk where Numba finds a folder to write to (see ``NUMBA_CACHE_DIR`` in its manual).
    """
    try:
        dispatcher = njit(**_OPTIONS, parallel=True, cache=True)(function)
    except RuntimeError:  # Numba found nowhere to write to
        _log_missing_cache()
        return njit(**_OPTIONS, parallel=True)(function)
    dispatcher._cache = _FolderCache(function)
    return dispatcher


@cache
def _log_missing_cache() -> None:
    logger.warning(
        "no folder to keep compiled code in: every process compiles anew, which takes some seconds. "
        "Set NUMBA_CACHE_DIR to a folder that can be written to"
    )


class _FolderCache(FunctionCache):
    """Numba's cache of one function, valid as long as no file of this folder changes.

    Numba looks at the function's own file only, and would go on using kernels of other files as they were.
    """

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return (*super()._index_key(signature, codegen), _sources_digest())


@cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
