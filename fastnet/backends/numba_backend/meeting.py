"""How workers meet in compiled code, and how helpers wait to be called: at a number in memory first, then asleep.

Numba's own parallel loops are not used. Entering one costs microseconds or tens of them, which is as long as a small
training step; their libraries do not survive a fork, or do not bear two threads that use them at once; and they take
seconds to compile.

Nothing here needs Python's lock, so that no worker waits for whatever Python is doing. Sleepers wait at a lock of
Python's, as :class:`threading.Lock` has it, which every system has, and which does without Python's lock as well.
"""

# A team's memory, at the address `team`: what follows here, and from HELPERS on HELPER_SIZE bytes for each helper. All
# are int64, and those that different threads write to at the same time lie in different cache lines, of which some
# processors fetch two at once.

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastnet.backends.numba_backend.blocks import intrinsic
from fastnet.backends.numba_backend.compiling import NativeFunction, call, kernel

__all__ = ["HELP", "HELPERS", "HELPER_SIZE", "LOCK", "TEAM", "help_team", "wait_for_all", "work_together"]

# Of the team: workers that have come to a meeting, meetings that are over, workers of this call, what is called, and
# what never changes: the address of what helpers do.
_ARRIVED, _OVER, _N_PRESENT, _FUNCTION, _RECORD, HELP, HELPERS = 0, 128, 256, 264, 272, 280, 384

# Of a helper: its state, its number for this call, and what never changes: the lock that it sleeps at, and its team.
_STATE, _WORKER, LOCK, TEAM, HELPER_SIZE = 0, 8, 16, 24, 128

# The states of a helper. A caller holds those that are there, to know how many they are before any of them starts;
# that is a matter of moments, so whoever is held does not go to sleep.
_GONE, _AWAKE, _ASLEEP, _HELD, _CALLED = range(5)

# How often someone who waits looks again before it lets other threads of the machine run: some tens of microseconds,
# which is more than a well divided step keeps it waiting.
_PATIENCE = 2000

# How often a helper looks before it falls asleep: another tenth of a millisecond or two, as a fit is mostly back with
# the next epoch by then. Waking up takes about as long.
_WAKEFULNESS = _PATIENCE + 400

# How long it sleeps before its thread ends.
_LONGEST_SLEEP = 2_000_000  # microseconds

_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
_PAUSES = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}

_external: Any = types.ExternalFunction  # its annotations do not know that signatures are types

yield_to_others = _external(_YIELD, types.int32())

# Python's C interface. To acquire: an address, microseconds (as long as it takes if negative), and whether signals
# interrupt it.
acquire_lock = _external("PyThread_acquire_lock_timed", types.int32(types.intp, types.int64, types.int32))
release_lock = _external("PyThread_release_lock", types.void(types.intp))
_TIMED_OUT = 0

# A function and what it is told. Only this wants Python's lock.
_unsigned_long = types.Integer.from_bitwidth(8 * ctypes.sizeof(ctypes.c_ulong), signed=False)
start_new_thread = _external("PyThread_start_new_thread", _unsigned_long(types.intp, types.intp))
enter_python = _external("PyGILState_Ensure", types.int32())
leave_python = _external("PyGILState_Release", types.void(types.int32))
_NO_THREAD = ctypes.c_ulong(-1).value


def _atomic(generate_at, n_numbers):
    """A function of an address and `n_numbers` that does something to the int64 there, in the same order for all."""
    signature = types.int64(types.int64, *[types.int64] * n_numbers)

    def generate(context, builder, _, arguments):
        return generate_at(builder, builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), *arguments[1:])

    return signature, generate


@intrinsic
def load(context, address):
    """The number at an address, as other threads left it."""
    return _atomic(lambda builder, at: builder.load_atomic(at, "seq_cst", 8), 0)


@intrinsic
def add(context, address, number):
    """Add to it; returns what it was before."""
    return _atomic(lambda builder, at, number: builder.atomic_rmw("add", at, number, "seq_cst"), 1)


@intrinsic
def exchange(context, address, number):
    """Put another number there; returns what it was before."""
    return _atomic(lambda builder, at, number: builder.atomic_rmw("xchg", at, number, "seq_cst"), 1)


@intrinsic
def replace(context, address, old, new):
    """Put `new` there if `old` was; returns whether it was."""

    def generate_at(builder, at, old, new):
        outcome = builder.cmpxchg(at, old, new, "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(outcome, 1), ir.IntType(64))

    return _atomic(generate_at, 2)


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
def look_away(n_looks):
    """Let some time pass between two looks."""
    pause()
    if n_looks > _PATIENCE:
        yield_to_others()


@kernel
def wait_for_all(team, n_workers):
    """Wait until all workers have called this function; then all see what the others have written."""
    if n_workers == 1:
        return
    n_over = load(team + _OVER)
    if add(team + _ARRIVED, 1) == n_workers - 1:
        add(team + _ARRIVED, -n_workers)
        add(team + _OVER, 1)
        return
    n_looks = 0
    while load(team + _OVER) == n_over:
        n_looks += 1
        look_away(n_looks)


@kernel
def start_thread(function, argument):
    """Start a thread that Python does not know of; returns whether the system had one left."""
    entered = enter_python()
    thread = start_new_thread(function, argument)
    leave_python(entered)
    return thread != _NO_THREAD


@kernel
def hold(helper, starts):
    """Keep a helper from falling asleep, and start it if it is gone and `starts`; returns whether it is there."""
    state = exchange(helper + _STATE, _HELD)
    if state == _ASLEEP:
        release_lock(load(helper + LOCK))
    elif state == _GONE and not (starts and start_thread(load(load(helper + TEAM) + HELP), helper)):
        exchange(helper + _STATE, _GONE)
        return False
    return True


@NativeFunction
def work_together(team, n_workers, function, record):
    """Call ``function(worker, n_workers, team, record)`` for all workers at once; returns when all are done.

    There are fewer workers if the system has too few threads. The calling thread is worker 0. Without a function, the
    threads of helpers end.
    """
    n_present = 1
    for i in range(n_workers - 1):
        helper = team + HELPERS + i * HELPER_SIZE
        if hold(helper, function != 0):
            exchange(helper + _WORKER, n_present)
            n_present += 1
    exchange(team + _N_PRESENT, n_present)
    exchange(team + _FUNCTION, function)
    exchange(team + _RECORD, record)
    for i in range(n_workers - 1):
        replace(team + HELPERS + i * HELPER_SIZE + _STATE, _HELD, _CALLED)
    if function:
        call(function, (0, n_present, team, record))
    wait_for_all(team, n_present)


@kernel
def wait_to_be_called(helper):
    """Returns whether it was; if not for long, its thread ends."""
    n_looks = 0
    while load(helper + _STATE) != _CALLED:
        n_looks += 1
        look_away(n_looks)
        if n_looks > _WAKEFULNESS and replace(helper + _STATE, _AWAKE, _ASLEEP):
            lock = load(helper + LOCK)
            if acquire_lock(lock, _LONGEST_SLEEP, 0) == _TIMED_OUT:
                if replace(helper + _STATE, _ASLEEP, _GONE):
                    return False
                acquire_lock(lock, -1, 0)  # someone has called at this moment, and releases the lock
            n_looks = 0
    exchange(helper + _STATE, _AWAKE)
    return True


@NativeFunction
def help_team(helper):
    """What the thread of a helper does: its share of whatever the team is called for."""
    team = load(helper + TEAM)
    while wait_to_be_called(helper):
        function, n_workers = load(team + _FUNCTION), load(team + _N_PRESENT)
        if not function:
            exchange(helper + _STATE, _GONE)
            wait_for_all(team, n_workers)
            return
        call(function, (load(helper + _WORKER), n_workers, team, load(team + _RECORD)))
        wait_for_all(team, n_workers)
