"""How fast this machine reads memory and multiplies matrices, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from fastnet.benchmarking.measuring import Measurement
from fastnet.benchmarking.roofline import MachineSpeed

__all__ = ["measure_speed", "measure_speeds"]

# Several times what a last-level cache holds of it for one process, as a rule.
_BYTES = 2**28
_MATRIX_SIZE = 2048
_ROUNDS = 7


def measure_speeds(measurements: Iterable[Measurement]) -> list[MachineSpeed]:
    """How fast this machine is for each dtype and number of threads that something on the CPU was measured with."""
    settings = dict.fromkeys((each.dtype, each.n_threads) for each in measurements if each.device == "cpu")
    return [measure_speed(dtype, n_threads) for dtype, n_threads in settings]


@cache
def measure_speed(dtype: str, n_threads: int) -> MachineSpeed:
    """Read bandwidth and rate of matrix products, the best of some rounds; takes a second or so, once in a process."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        bytes_per_second = _read_bandwidth(n_threads)
    with threadpool_limits(n_threads, user_api="blas"):
        flops_per_second = _product_rate(dtype)
    return MachineSpeed(dtype, n_threads, bytes_per_second, flops_per_second)


def _read_bandwidth(n_threads: int) -> float:
    """Bytes per second of as many threads, each of which squares and sums a part of one array."""
    array = np.ones(_BYTES // 4, np.float32)  # ones, as the system may keep all zeros in one and the same place
    parts = np.array_split(array, n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        return array.nbytes / _best_seconds(lambda: list(pool.map(lambda part: np.dot(part, part), parts)))


def _product_rate(dtype: str) -> float:
    """FLOPs per second of a product of square matrices, an addition and a multiplication being two."""
    random = np.random.default_rng(0)
    a, b = (random.random((_MATRIX_SIZE, _MATRIX_SIZE)).astype(dtype) for _ in range(2))
    product = np.empty_like(a)
    return 2 * _MATRIX_SIZE**3 / _best_seconds(lambda: np.dot(a, b, out=product))


def _best_seconds(work: Callable[[], object]) -> float:
    """Of some rounds, besides a first that warms up."""
    work()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
