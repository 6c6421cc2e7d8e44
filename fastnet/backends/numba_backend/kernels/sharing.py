"""How workers share what there is to do: the items of a round, such as the groups of rows of a training step.

Numba's own parallel loops are not used. Entering one costs microseconds or tens of them, which is as long as a small
training step; their libraries do not survive a fork, or do not bear two threads that use them at once; and they take
seconds to compile.

The thread that calls, worker 0, puts each round on a board and begins with its items; helpers who look there take some.
It never waits for a helper that has not taken anything: one that still sleeps, or that the system lets wait because
others use its processor, costs nothing but its help. Whoever has done its own share of the items goes on with what is
left of the others', so that items are mostly done where they were done in the round before.

A round is over when all its items are done. What they read may be gone then, so helpers look at nothing but the board
unless they have an item that is not done yet. Nothing here needs Python's lock, but for the start of a thread. Sleepers
wait at a lock as :class:`threading.Lock` has it, which every system has.
"""

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple

from numba import types

from fastnet.backends.numba_backend.board import (
    BOARD,
    DISMISSED,
    FUNCTION,
    HELP,
    LED,
    LOCK,
    N_DONE,
    N_ITEMS,
    N_WORKERS,
    NOBODY_LEADS,
    NUMBER,
    RECORD,
    ROUND,
    SLOT,
    SOMEONE_LEADS,
    STATE,
    WORKER_SIZE,
    WORKERS,
)
from fastnet.backends.numba_backend.kernels.atomics import add, exchange, load, pause, replace
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, kernel
from fastnet.backends.numba_backend.kernels.partition import share_start

__all__ = [
    "Share",
    "dismiss",
    "help_others",
    "lead",
    "next_item",
    "share_out",
]

_ITEM_BITS = 24
_ITEM_MASK = 2**_ITEM_BITS - 1

# Of a helper. Those who sleep are woken, those whose thread has ended are started anew when someone leads again.
_GONE, _AWAKE, _ASLEEP = range(3)

# How often someone who waits looks again before it lets other threads have its processor: some microseconds or tens of
# them, as the one that it waits for may be among those.
_PATIENCE = 400

# How often a helper looks before it falls asleep: a tenth of a millisecond or two, as a fit is mostly back with the
# next epoch by then. Waking up takes some tens of microseconds.
_WAKEFULNESS = _PATIENCE + 400

# How long it sleeps before its thread ends.
_LONGEST_SLEEP = 2_000_000  # microseconds

_external: Any = types.ExternalFunction  # its annotations do not know that signatures are types

yield_to_others = _external("SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32())

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


class Share(NamedTuple):
    """One worker's part in a round; a board of zero says that there is no other."""

    worker: int
    n_workers: int
    board: int
    round: int
    n_items: int


@kernel
def look_away(n_looks):
    """Let some time pass between two looks."""
    pause()
    if n_looks > _PATIENCE:
        yield_to_others()


@kernel
def take_item(share, owner):
    """The next item of the share that one of the workers has in a round, or -1."""
    slot = share.board + WORKERS + owner * WORKER_SIZE + SLOT
    end = share_start(owner + 1, share.n_workers, 0, share.n_items)
    found = load(slot)
    while found >> _ITEM_BITS == share.round and found & _ITEM_MASK < end:
        if replace(slot, found, found + 1):
            return found & _ITEM_MASK
        found = load(slot)
    return -1


@kernel
def first_item(share):
    """An item for a worker that has none: of its own share, or else of another's; or -1."""
    for i in range(share.n_workers):
        item = take_item(share, (share.worker + i) % share.n_workers)
        if item >= 0:
            return item
    return -1


@kernel
def next_item(share, item):
    """The next one for a worker that has done an item; after -1 it may look at nothing that belongs to the round."""
    if not share.board:
        return item + 1 if item + 1 < share.n_items else -1
    add(share.board + N_DONE, 1)
    return first_item(share)


@kernel
def share_out(board, n_workers, function, n_items, record):
    """Have ``function(share, item, record)`` called by each worker with its first item; returns when all are done.

    It does that item, and as long as :func:`next_item` gives it another one, those.
    """
    if not board:
        if n_items:
            call(function, (Share(0, 1, 0, 0, n_items), 0, record))
        return
    this_round = load(board + ROUND) + 1
    for worker in range(n_workers):  # first of all, as nobody can take an item of an earlier round any more then
        slot = board + WORKERS + worker * WORKER_SIZE + SLOT
        exchange(slot, (this_round << _ITEM_BITS) + share_start(worker, n_workers, 0, n_items))
    exchange(board + FUNCTION, function)
    exchange(board + RECORD, record)
    exchange(board + N_WORKERS, n_workers)
    exchange(board + N_ITEMS, n_items)
    exchange(board + N_DONE, 0)
    exchange(board + ROUND, this_round)
    wake_helpers(board, n_workers)
    share = Share(0, n_workers, board, this_round, n_items)
    item = first_item(share)
    if item >= 0:
        call(function, (share, item, record))
    n_looks = 0
    while load(board + N_DONE) < n_items:
        n_looks += 1
        look_away(n_looks)


@kernel
def wake_helpers(board, n_workers):
    """Wake those of the first workers who sleep."""
    for worker in range(1, n_workers):
        helper = board + WORKERS + worker * WORKER_SIZE
        if load(helper + STATE) == _ASLEEP and replace(helper + STATE, _ASLEEP, _AWAKE):
            release_lock(load(helper + LOCK))


@kernel
def start_helper(board, helper):
    """Start the thread of a helper that is gone, unless the system has no more threads."""
    exchange(helper + STATE, _AWAKE)
    entered = enter_python()
    thread = start_new_thread(load(board + HELP), helper)
    leave_python(entered)
    if thread == _NO_THREAD:
        exchange(helper + STATE, _GONE)


@NativeFunction
def lead(board, n_places, n_workers, function, record):
    """Call ``function(board, n_workers, record)``, which shares out what there is to do among so many workers.

    The board has `n_places`, of which more may have been used the last time.
    """
    exchange(board + LED, SOMEONE_LEADS)
    for worker in range(n_workers, n_places):
        exchange(board + WORKERS + worker * WORKER_SIZE + SLOT, 0)  # of no round
    for worker in range(1, n_workers):
        helper = board + WORKERS + worker * WORKER_SIZE
        if load(helper + STATE) == _GONE:
            start_helper(board, helper)
    call(function, (board, n_workers, record))
    exchange(board + LED, NOBODY_LEADS)


@NativeFunction
def dismiss(board, n_places):
    """Have the threads of all helpers end; returns when none of them looks at the board any more."""
    exchange(board + LED, DISMISSED)
    add(board + ROUND, 1)
    wake_helpers(board, n_places)
    n_looks = 0
    for worker in range(1, n_places):
        while load(board + WORKERS + worker * WORKER_SIZE + STATE) != _GONE:
            n_looks += 1
            look_away(n_looks)


@kernel
def sleep_until_woken(board, helper, last_round):
    """Wait for a round at the lock; returns False if there was none for long and nobody leads: then it is gone."""
    exchange(helper + STATE, _ASLEEP)
    # Whoever puts up a round looks for sleepers afterwards: either it has seen this one, or this one sees the round.
    if load(board + ROUND) == last_round:
        if acquire_lock(load(helper + LOCK), _LONGEST_SLEEP, 0) != _TIMED_OUT:
            return True
        if load(board + LED) == NOBODY_LEADS and replace(helper + STATE, _ASLEEP, _GONE):
            return False
    if not replace(helper + STATE, _ASLEEP, _AWAKE):
        acquire_lock(load(helper + LOCK), -1, 0)  # someone has woken it at this moment, and releases the lock
    return True


@NativeFunction
def help_others(helper):
    """What the thread of a helper does: items of one round after the other."""
    board, worker = load(helper + BOARD), load(helper + NUMBER)
    this_round = 0
    while True:
        n_looks = 0
        while load(board + ROUND) == this_round:
            n_looks += 1
            look_away(n_looks)
            if n_looks > _WAKEFULNESS:
                if not sleep_until_woken(board, helper, this_round):
                    return
                n_looks = 0
        this_round = load(board + ROUND)
        if load(board + LED) == DISMISSED:
            exchange(helper + STATE, _GONE)
            return
        # If another round is put up meanwhile, this may be a mixture of both: then there is no item to be had for it.
        function, record = load(board + FUNCTION), load(board + RECORD)
        share = Share(worker, load(board + N_WORKERS), board, this_round, load(board + N_ITEMS))
        if worker < share.n_workers:
            item = first_item(share)
            if item >= 0:
                call(function, (share, item, record))
