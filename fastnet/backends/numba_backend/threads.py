"""Threads while kernels run: Numba's own, and none of BLAS beside them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import numba

__all__ = ["kernel_threads", "resolve_thread_count", "threading_layers"]

# What Numba made of the environment when it was imported; type checkers do not see it.
_numba_config: Any = numba.config

logger = logging.getLogger("fastnet")

# The workqueue threading layer ends the process when two Python threads are in parallel regions at once.
_workqueue_lock = threading.Lock()


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


def threading_layers() -> tuple[str, ...]:
    """Names of the libraries that may run Numba's threads, in the order in which it tries to load them."""
    asked_for = _numba_config.THREADING_LAYER
    return tuple(_numba_config.THREADING_LAYER_PRIORITY) if asked_for == "default" else (asked_for,)


@contextmanager
def kernel_threads(n_workers: int) -> Iterator[None]:
    """Around a call of a driver: `n_workers` Numba threads, each of which calls BLAS with one thread."""
    with _single_threaded_blas:
        if n_workers == 1:
            yield
            return
        previous = numba.get_num_threads()  # which also makes Numba settle on a threading layer
        numba.set_num_threads(n_workers)
        try:
            layer = numba.threading_layer()  # type: ignore[attr-defined]  # public, though not in numba.__all__
            with _workqueue_lock if layer == "workqueue" else nullcontext():
                yield
        finally:
            numba.set_num_threads(previous)


class _SingleThreadedBlas:
    """Context in which BLAS works with one thread; the number of threads comes back when the last user leaves.

    The number is one for the whole process, so plans that run at the same time must share one change of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._n_users == 0:
                self._limit = _blas_libraries().limit(limits=1)
            self._n_users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0:
                self._limit.restore_original_limits()


_single_threaded_blas = _SingleThreadedBlas()


@cache
def _blas_libraries() -> Any:
    """The BLAS libraries of this process, SciPy's among them, which is the one that compiled kernels call."""
    import scipy.linalg.cython_blas  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
