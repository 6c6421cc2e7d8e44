"""Threads around compiled code: whose they are, how many, and that they are given back."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from threading import Barrier, Thread

import numba
import numpy as np
import pytest
import scipy.linalg.cython_blas  # noqa: F401  the BLAS that compiled code calls must be loaded to be counted
from threadpoolctl import threadpool_info

from fastnet.backends.numba_backend import NumbaBackend, threads
from fastnet.backends.numba_backend.threads import kernel_threads, resolve_thread_count
from fastnet.testing import make_problem


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_threads_of_numba_and_of_blas_are_given_back():
    numba.set_num_threads(1)
    try:
        before = blas_threads()
        with kernel_threads(min(2, numba.config.NUMBA_NUM_THREADS)):
            assert numba.get_num_threads() == min(2, numba.config.NUMBA_NUM_THREADS)
            assert set(blas_threads()) == {1}
        assert numba.get_num_threads() == 1
        assert blas_threads() == before
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)


def test_threads_are_given_back_after_an_error():
    before, numba_before = blas_threads(), numba.get_num_threads()
    with pytest.raises(ZeroDivisionError), kernel_threads(numba.config.NUMBA_NUM_THREADS):
        raise ZeroDivisionError
    assert (blas_threads(), numba.get_num_threads()) == (before, numba_before)


def test_blas_threads_come_back_when_the_last_of_overlapping_runs_ends():
    """The first to enter leaves first: had each restored what it found, the second would have put back one thread."""
    before = blas_threads()
    first, second = kernel_threads(1), kernel_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_number_of_threads_is_bounded_and_the_bound_is_told(caplog):
    limit = numba.config.NUMBA_NUM_THREADS
    threads._log_thread_limit.cache_clear()
    with caplog.at_level(logging.WARNING, "fastnet"):
        assert resolve_thread_count(None) == limit
        assert resolve_thread_count(1) == 1
        assert not caplog.records
        assert [resolve_thread_count(limit + 1), resolve_thread_count(limit + 1)] == [limit, limit]
    assert len(caplog.records) == 1
    assert "NUMBA_NUM_THREADS" in caplog.text


def test_plans_of_several_python_threads_at_once():
    assert_concurrent_plans_are_right()


def assert_concurrent_plans_are_right():
    problem = make_problem((40, 33, 9, 4), 1500)
    rates = np.full(20, 0.01)
    expected = problem.plan(NumbaBackend()).run(rates).loss
    losses, start = {}, Barrier(4)

    def train(number):
        trained = problem.plan(NumbaBackend())
        start.wait()
        losses[number] = trained.run(rates).loss

    runners = [Thread(target=train, args=(number,)) for number in range(4)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert sorted(losses) == [0, 1, 2, 3]
    for each in losses.values():
        np.testing.assert_array_equal(each, expected)


def test_plans_of_several_python_threads_at_once_under_workqueue():
    """This threading layer ends the process when two threads of it are in parallel regions."""
    script = """
import numba, test_numba_threads as tests
tests.assert_concurrent_plans_are_right()
print(numba.threading_layer())
"""
    environment = os.environ | {"NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "workqueue"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])  # noqa: PTH120
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "workqueue", result.stderr
