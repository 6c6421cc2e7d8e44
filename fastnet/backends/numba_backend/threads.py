"""How many threads kernels may run on."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numba

__all__ = ["resolve_thread_count"]

# What Numba made of the environment when it was imported; type checkers do not see it.
_numba_config: Any = numba.config

logger = logging.getLogger("fastnet")


def resolve_thread_count(n_threads: int | None) -> int:
    """Number of threads to use: what was asked for, and no more than Numba was started with."""
    limit: int = _numba_config.NUMBA_NUM_THREADS
    if n_threads is not None and n_threads > limit:
        _log_thread_limit(n_threads, limit)
    return min(n_threads or limit, limit)


@cache
def _log_thread_limit(n_threads: int, limit: int) -> None:
    logger.warning(
        "n_threads=%d: using %d, the most that Numba can start in this process; set NUMBA_NUM_THREADS before the first "
        "import of numba to have more",
        n_threads,
        limit,
    )
