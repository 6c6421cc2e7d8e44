"""Workers that go through a compiled function together: one thread each, which meet at barriers in compiled code.

Numba's own parallel loops are not used. Entering one costs microseconds or tens of them, which is as long as a small
training step; their libraries do not survive a fork, or do not bear two threads that use them at once; and they take
seconds to compile. Here the calling thread is one worker, and the others live as long as the call.
"""

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from fastnet.backends.numba_backend.blocks import intrinsic
from fastnet.backends.numba_backend.compiling import kernel

__all__ = ["new_meeting", "run_team", "wait_for_all"]

# How often a worker looks whether the others have come, before it lets other threads of the machine run: some tens of
# microseconds, which is more than a well divided step keeps it waiting.
_PATIENCE = 2000

# In int64: the number of workers that have come, the number of meetings that are over, and whether one of the workers
# will not come any more, far enough apart to be in different cache lines.
_ARRIVED, _OVER, _ABANDONED, _SIZE = 0, 16, 32, 48

_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
_PAUSES = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}

yield_to_others = types.ExternalFunction(_YIELD, types.int32())


@intrinsic
def add_atomically(context, array, index, number):
    """Add to a number of an array of int64 that other threads see; returns what it was before."""

    def generate(context, builder, signature, arguments):
        pointer = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        return builder.atomic_rmw("add", pointer, arguments[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def load_atomically(context, array, index):
    """A number of an array of int64, as other threads left it."""

    def generate(context, builder, signature, arguments):
        pointer = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def pause(context):
    """Tell the processor that this is a loop that waits."""

    def generate(context, builder, signature, arguments):
        name = _PAUSES.get(platform.machine())
        if name:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def wait_for_all(meeting, n_workers):
    """Wait until all workers have called this function; then all see what the others have written.

    Returns False if one of them will not come any more.
    """
    if n_workers == 1:
        return True
    n_over = load_atomically(meeting, _OVER)
    if add_atomically(meeting, _ARRIVED, 1) == n_workers - 1:
        add_atomically(meeting, _ARRIVED, -n_workers)
        add_atomically(meeting, _OVER, 1)
        return True
    n_looks = 0
    while load_atomically(meeting, _OVER) == n_over:
        if load_atomically(meeting, _ABANDONED):
            return False
        pause()
        n_looks += 1
        if n_looks > _PATIENCE:
            yield_to_others()
    return True


def new_meeting() -> NDArray[np.int64]:
    """What :func:`wait_for_all` keeps count in."""
    return np.zeros(_SIZE, np.int64)


def run_team(n_workers: int, work: Callable[[int, int, NDArray[np.int64]], Any]) -> None:
    """Call ``work(worker, n_workers, meeting)`` for all workers at once, with as many as the system has threads for.

    `work` must release Python's lock, and may meet the others with :func:`wait_for_all`.
    """
    meeting = new_meeting()
    helpers: list[_Helper] = []
    try:
        _start_helpers(helpers, n_workers - 1, work)
        for helper in helpers:
            helper.begin(len(helpers) + 1, meeting)
        work(0, len(helpers) + 1, meeting)
    except BaseException:
        meeting[_ABANDONED] = 1
        raise
    finally:
        for helper in helpers:
            helper.begin(len(helpers) + 1, meeting)
            helper.join()
    for helper in helpers:
        if helper.error is not None:
            raise helper.error


def _start_helpers(helpers: list[_Helper], number: int, work: Callable[[int, int, NDArray[np.int64]], Any]) -> None:
    """Add up to `number` threads to `helpers`; each waits to be told how many there are."""
    for worker in range(1, number + 1):
        helper = _Helper(worker, work)
        try:
            helper.start()
        except RuntimeError:  # the system has no more threads: results are the same for any number
            return
        helpers.append(helper)


class _Helper(threading.Thread):
    """A worker that waits to be told how many there are."""

    def __init__(self, worker: int, work: Callable[[int, int, NDArray[np.int64]], Any]) -> None:
        super().__init__(name=f"fastnet-{worker}", daemon=True)
        self.error: BaseException | None = None
        self._worker = worker
        self._work = work
        self._told = threading.Event()
        self._team: tuple[int, NDArray[np.int64]] | None = None

    def begin(self, n_workers: int, meeting: NDArray[np.int64]) -> None:
        """Let it work."""
        self._team = (n_workers, meeting)
        self._told.set()

    def run(self) -> None:
        """See :meth:`threading.Thread.run`."""
        self._told.wait()
        assert self._team is not None
        try:
            self._work(self._worker, *self._team)
        except BaseException as error:
            self.error = error
            self._team[1][_ABANDONED] = 1
