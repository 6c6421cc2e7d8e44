"""Parts of ``benchmarks/gpu.py`` in processes of their own, which may end in any way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu_apart(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu_apart

    return gpu_apart


def count(n):
    yield from range(n)


def die(how):
    yield "before"
    if how == "exit":
        os._exit(3)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise ValueError("no such thing\nand more")


def hang():
    time.sleep(600)
    yield


def test_everything_comes_from_another_process(gpu_apart):
    assert [*gpu_apart.run_apart(count, 3, seconds=60)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("exit", "its process died with exit code 3"),
        ("signal", f"its process died with exit code {-signal.SIGSEGV}"),
        ("error", "ValueError: no such thing"),
    ],
)
def test_what_came_before_the_end_is_kept(gpu_apart, how, message):
    found = gpu_apart.run_apart(die, how, seconds=60)
    assert next(found) == "before"
    with pytest.raises(gpu_apart.BrokenOffError) as caught:
        next(found)
    assert str(caught.value) == message


def test_process_that_hangs_is_killed(gpu_apart):
    with pytest.raises(gpu_apart.BrokenOffError, match=r"nothing had come of it for 0\.5 seconds"):
        next(gpu_apart.run_apart(hang, seconds=0.5))
    assert multiprocessing.active_children() == []
