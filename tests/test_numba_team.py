"""Workers that meet in compiled code. What could wait for ever runs in a process of its own, and has a time limit."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import joblib
import numpy as np
import pytest

from fastnet.backends.numba_backend import NumbaBackend
from fastnet.backends.numba_backend.compiling import compiled
from fastnet.backends.numba_backend.team import run_team, wait_for_all
from fastnet.optimizers import Adam
from fastnet.testing import make_problem

N_WORKERS, TIME_LIMIT = 4, 120

SHAPES = {"wide": (40, 33, 9, 4), "across": (8, 7, 6, 3)}


def trained_bits(shape="wide"):
    """Digest of what a fit on several threads leads to."""
    problem = make_problem(SHAPES[shape], 4000, optimizer=Adam())
    backend = NumbaBackend(n_threads=N_WORKERS)
    plan = problem.plan(backend)
    assert plan._workspace.n_workers == N_WORKERS
    losses = plan.run(np.full(20, 0.01)).loss
    outputs = backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
    parts = losses, plan.read_parameters().flat, outputs
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def n_helpers_alive():
    return sum(thread.name.startswith("fastnet-") for thread in threading.enumerate())


@compiled
def meet(meeting, n_workers, n_times):
    """Whether all came, every time."""
    for _ in range(n_times):  # noqa: SIM110, Numba knows no generators here
        if not wait_for_all(meeting, n_workers):
            return False
    return True


@compiled
def count_together(worker, n_workers, meeting, counters, n_rounds):
    """How often a worker found another one in another round."""
    n_wrong = 0
    for number in range(n_rounds):
        counters[worker] = number
        if not wait_for_all(meeting, n_workers):
            return -1
        for other in range(n_workers):
            n_wrong += counters[other] != number
        if not wait_for_all(meeting, n_workers):
            return -1
    return n_wrong


def check_that_meetings_keep_rounds_apart():
    for n_workers in (1, 2, N_WORKERS + 1):
        counters, n_wrong = np.full(n_workers, -1), {}

        def work(worker, n_workers, meeting, counters=counters, n_wrong=n_wrong):
            n_wrong[worker] = count_together(worker, n_workers, meeting, counters, 300)

        run_team(n_workers, work)
        assert n_wrong == dict.fromkeys(range(n_workers), 0)
        assert counters.tolist() == [299] * n_workers


def check_that_an_error_of_one_worker_frees_the_others():
    for failing, error in ((0, KeyboardInterrupt), (0, ValueError), (1, ValueError), (N_WORKERS - 1, MemoryError)):
        all_came = {}

        def work(worker, n_workers, meeting, failing=failing, error=error, all_came=all_came):
            meet(meeting, n_workers, 3)
            if worker == failing:
                raise error("one of them")
            all_came[worker] = meet(meeting, n_workers, 10)

        with pytest.raises(error, match="one of them"):
            run_team(N_WORKERS, work)
        assert sorted(all_came) == [worker for worker in range(N_WORKERS) if worker != failing]
        assert not any(all_came.values())
        assert n_helpers_alive() == 0


@contextmanager
def threads_left(number):
    """A system that has so many threads left; yields what is left of them."""
    start, left = threading.Thread.start, ["thread"] * number

    def start_if_any_is_left(thread):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    with patch.object(threading.Thread, "start", start_if_any_is_left):
        yield left


def check_that_fewer_threads_give_the_same():
    expected = trained_bits()
    for n_left in (0, 1, 2):
        with threads_left(n_left):
            seen = []
            run_team(N_WORKERS, lambda worker, n_workers, meeting, seen=seen: seen.append((worker, n_workers)))
            assert sorted(seen) == [(worker, n_left + 1) for worker in range(n_left + 1)]
        with threads_left(n_left) as left:
            assert trained_bits() == expected
            assert not left
    assert n_helpers_alive() == 0


def check_fits_of_several_python_threads():
    """Plans of different kinds at once, first in a process that has not compiled or loaded anything."""
    shapes = list(SHAPES) * 3
    together = joblib.Parallel(n_jobs=len(shapes), backend="threading")(map(joblib.delayed(trained_bits), shapes))
    assert together == [trained_bits(shape) for shape in shapes]


def check_fits_of_several_processes():
    together = joblib.Parallel(n_jobs=2, backend="loky")(map(joblib.delayed(trained_bits), SHAPES))
    assert together == [trained_bits(shape) for shape in SHAPES]


def check_a_forked_child():
    """A child of a process that has trained on several threads has none of them, and starts its own."""
    expected = trained_bits()
    reading_end, writing_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(TIME_LIMIT)  # it would outlive its parent
        os.write(writing_end, trained_bits().encode())
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert os.read(reading_end, 1000).decode() == trained_bits() == expected


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.parametrize(
    "check",
    [
        check_that_meetings_keep_rounds_apart,
        check_that_an_error_of_one_worker_frees_the_others,
        check_that_fewer_threads_give_the_same,
        check_fits_of_several_python_threads,
        check_fits_of_several_processes,
        pytest.param(check_a_forked_child, marks=needs_fork),
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_team(check):
    script = f"import test_numba_team as tests; tests.{check.__name__}(); print('right')"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=TIME_LIMIT
    )
    assert result.stdout.strip() == "right", result.stderr
