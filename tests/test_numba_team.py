"""Threads of compiled code. What could wait for ever runs in a process of its own, and has a time limit."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

from fastnet.backends.numba_backend import NumbaBackend, team
from fastnet.backends.numba_backend.kernels.atomics import add, load
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction
from fastnet.backends.numba_backend.kernels.sharing import Share, look_away, next_item, share_out
from fastnet.backends.numba_backend.kernels.views import own_wholes_at
from fastnet.backends.numba_backend.team import run_team
from fastnet.optimizers import Adam
from fastnet.testing import make_problem

N_WORKERS, TIME_LIMIT = 4, 120

# Most of them let other threads have the processor, which takes longer the more of them there are.
MOST_LOOKS = 600

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


def n_threads():
    """Threads of this process, those included that Python does not know of."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208, a folder of threads


def n_threads_without_helpers():
    """Libraries that the first plan loads start threads of their own, and so do those that Numba needs to compile."""
    note_workers.compile(0, 0, 0)
    make_problem(SHAPES["wide"]).plan(NumbaBackend(n_threads=1)).run([0.1])
    return n_threads()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@NativeFunction
def note_worker(share, item, record):
    """Wait for a while until there is a worker for each item; then note who did this one."""
    notes = own_wholes_at(record, 65)
    while item >= 0:
        add(record + 8 * 64, 1)
        n_looks = 0
        while load(record + 8 * 64) < share.n_items and n_looks < MOST_LOOKS:
            n_looks += 1
            look_away(n_looks)
        notes[item] = share.worker + 1
        item = next_item(share, item)


@NativeFunction
def note_workers(board, n_workers, record):
    share_out(board, n_workers, own_wholes_at(record, 66)[65], n_workers, record)


def assert_workers(n_workers, expected):
    """When a team of so many is called, so many take part, sooner or later, and never more."""
    wait_until(lambda: len(workers(n_workers)) == expected)
    assert all(workers(n_workers) <= set(range(expected)) for _ in range(10))


def workers(n_workers):
    notes = np.zeros(66, np.int64)
    notes[65] = note_worker.compile(Share(0, 0, 0, 0, 0), 0, 0).address
    run_team(n_workers, note_workers.compile(0, 0, 0).address, notes.ctypes.data)
    return set(notes[:n_workers] - 1)


def allow_threads(*, allowed):
    """No system can give a thread such a stack."""
    threading.stack_size(0 if allowed else 2**46)


def check_that_fewer_threads_give_the_same():
    """A system that has so many threads left, and none for the others."""
    expected = trained_bits()
    team._dismiss_teams()
    for n_left in range(N_WORKERS):
        allow_threads(allowed=True)
        assert_workers(n_left + 1, n_left + 1)
        allow_threads(allowed=False)
        assert_workers(N_WORKERS, n_left + 1)
        assert trained_bits() == expected


def check_that_helpers_are_used_again():
    before = n_threads_without_helpers()
    expected = trained_bits()
    assert n_threads() == before + N_WORKERS - 1
    for n_workers in (2, N_WORKERS, 1, 3):
        assert_workers(n_workers, n_workers)
        assert trained_bits() == expected
    assert n_threads() == before + N_WORKERS - 1
    assert len(team._teams) == 1


def check_that_idle_helpers_rest_and_end():
    """Whatever becomes of the plans; and they come back when there is work again."""
    before = n_threads_without_helpers()
    expected = trained_bits()
    time.sleep(0.05)
    busy = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - busy < 0.05
    assert n_threads() == before + N_WORKERS - 1
    wait_until(lambda: n_threads() == before)
    assert trained_bits() == expected
    assert n_threads() == before + N_WORKERS - 1


def check_that_a_small_run_needs_no_helpers():
    problem = make_problem((40, 33, 9, 4), 4000, batch_size=500)
    plan, before = problem.plan(NumbaBackend(n_threads=N_WORKERS)), n_threads()
    assert plan._workspace.n_workers > 1
    plan.run([0.1], np.arange(500))
    assert n_threads() == before
    plan.run(np.full(8, 0.1), np.arange(4000))
    assert n_threads() > before


def check_that_an_interrupt_arrives_after_the_run():
    """All steps are made then, and the plan and the helpers can be used further."""
    problem = make_problem(SHAPES["wide"], 4000, optimizer=Adam())
    plans = [problem.plan(NumbaBackend(n_threads=N_WORKERS)) for _ in range(2)]
    for plan in plans:
        plan.run(np.full(10, 0.01))  # which may load kernels, or compile them
    start = time.perf_counter()
    for plan in plans:
        plan.run(np.full(10, 0.01))
    rates = np.full(int(20 / (time.perf_counter() - start)) + 100, 0.001)  # for a second or more
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where tests run in the background
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        plans[0].run(rates)
    plans[1].run(rates)
    for plan in plans:
        plan.run([0.01])
    states = [plan.read_state() for plan in plans]
    assert states[0]["n_updates"] == states[1]["n_updates"] == len(rates) + 21
    np.testing.assert_array_equal(plans[0].read_parameters().flat, plans[1].read_parameters().flat)


def check_fits_of_several_python_threads():
    """Plans of different kinds at once, first in a process that has not compiled or loaded anything."""
    shapes = list(SHAPES) * 3
    together = joblib.Parallel(n_jobs=len(shapes), backend="threading")(map(joblib.delayed(trained_bits), shapes))
    assert together == [trained_bits(shape) for shape in shapes]
    assert len(team._teams) <= len(shapes)


def check_fits_of_several_processes():
    together = joblib.Parallel(n_jobs=2, backend="loky")(map(joblib.delayed(trained_bits), SHAPES))
    assert together == [trained_bits(shape) for shape in SHAPES]


def check_forked_children():
    """A child of a process that has trained on several threads has none of them, and starts its own."""
    expected = trained_bits()
    for pause in (0, 0.05):  # helpers of the parent are awake, or asleep
        assert trained_bits() == expected
        time.sleep(pause)
        reading_end, writing_end = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(TIME_LIMIT)  # it would outlive its parent
            os.write(writing_end, trained_bits().encode())
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        assert os.read(reading_end, 1000).decode() == trained_bits() == expected


def check_a_daemon_that_trains_when_python_ends():
    problem = make_problem(SHAPES["wide"], 4000)
    plan, runs = problem.plan(NumbaBackend(n_threads=N_WORKERS)), []

    def train():
        while True:
            plan.run(np.full(20, 0.001))
            runs.append(1)

    threading.Thread(target=train, daemon=True).start()
    wait_until(lambda: len(runs) > 3)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not list threads there")


def run_script(script):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=TIME_LIMIT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def run_check(check):
    assert run_script(f"import {check.__module__} as tests; tests.{check.__name__}(); print('right')") == ["right"]


@pytest.mark.parametrize(
    "check",
    [
        check_that_fewer_threads_give_the_same,
        pytest.param(check_that_helpers_are_used_again, marks=needs_proc),
        pytest.param(check_that_idle_helpers_rest_and_end, marks=needs_proc),
        pytest.param(check_that_a_small_run_needs_no_helpers, marks=needs_proc),
        check_that_an_interrupt_arrives_after_the_run,
        check_fits_of_several_python_threads,
        check_fits_of_several_processes,
        pytest.param(check_forked_children, marks=needs_fork),
        check_a_daemon_that_trains_when_python_ends,
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_team(check):
    run_check(check)


AT_THE_END = """
import atexit, os, time

def n_threads():
    return len(os.listdir("/proc/self/task"))

def wait_for_threads():
    deadline = time.monotonic() + 1
    while n_threads() > before and time.monotonic() < deadline:
        pass
    print(n_threads() - before)

atexit.register(wait_for_threads)  # before what is registered later, and so after it has run
import test_numba_team as tests
before = tests.n_threads_without_helpers()
tests.trained_bits()
print(n_threads() - before)
time.sleep({pause})
"""


@needs_proc
@pytest.mark.parametrize("pause", [0, 0.05], ids=["awake", "asleep"])
def test_helpers_end_before_python_does(pause):
    """Long before they would end by themselves."""
    assert run_script(AT_THE_END.format(pause=pause)) == [str(N_WORKERS - 1), "0"]
