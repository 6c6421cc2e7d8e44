"""Teams of threads, which go through compiled functions together and stay ready for the next one for a while.

The calling thread is one worker, and the others are helpers, whose threads see nothing of Python: they live in compiled
code from beginning to end, see ``kernels/sharing.py``. So no exception can be raised in one, and Ctrl-C arrives in the
calling thread when its call is over.

A helper that has nothing to do falls asleep, and its thread ends some seconds later; it is started anew when there is
work again. Who needs a team takes one that nobody else uses at that moment, so there are as many as there were threads
of Python that trained at the same time.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastnet.backends.numba_backend.board import BOARD, HELP, LOCK, NUMBER, WORKER_SIZE, WORKERS
from fastnet.backends.numba_backend.kinds import TeamKind
from fastnet.backends.numba_backend.native import native_functions

__all__ = ["prepare_team", "run_team"]

_teams: list[_Team] = []  # for ever: their memory must be there as long as the threads that look at it


def run_team(n_workers: int, function: int, record: int) -> None:
    """Call ``function(board, n_workers, record)``, which may share out what it has to do, see ``kernels/sharing.py``.

    Parameters
    ----------
    n_workers : int
        How many threads take part; there may be fewer if the system has no more.
    function : int
        Address of a compiled function of three int64 that returns nothing.
    record : int
        What it is told, such as an address.
    """
    if n_workers == 1:
        _native_function(function, 3)(0, 1, record)
        return
    team = _take_team(n_workers)
    try:
        team.lead(n_workers, function, record)
    finally:
        team.taken.release()


def prepare_team(n_workers: int) -> None:
    """Compile, or load, what :func:`run_team` needs for more than one worker."""
    if n_workers > 1:
        _compiled()


class _Compiled(NamedTuple):
    lead: Any
    dismiss: Any
    help_others: int  # its address


@cache
def _compiled() -> _Compiled:
    functions = native_functions(TeamKind())
    return _Compiled(
        lead=_native_function(functions["lead"], 5),
        dismiss=_native_function(functions["dismiss"], 2),
        help_others=functions["help_others"],
    )


def _native_function(address: int, n_arguments: int) -> Any:
    """A compiled function of so many int64 that returns nothing."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * n_arguments)(address)


def _python_function(name: str, *kinds: Any) -> Any:
    """A function of Python's C interface, of which `kinds` are the types of the result and of the arguments."""
    return ctypes.PYFUNCTYPE(*kinds)((name, ctypes.pythonapi))


_allocate_lock = _python_function("PyThread_allocate_lock", ctypes.c_void_p)
_acquire_lock = _python_function("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Team:
    """Up to `n_places` workers, whose threads start when they are first needed; `taken` is held by whoever uses it."""

    def __init__(self, n_places: int) -> None:
        self.taken = threading.Lock()
        self.n_places = n_places
        size = WORKERS + n_places * WORKER_SIZE
        whole = np.zeros(size + WORKER_SIZE, np.uint8)
        start = -whole.ctypes.data % WORKER_SIZE
        self._memory = whole[start : start + size].view(np.int64)
        self._board = self._memory.ctypes.data
        self._memory[HELP // 8] = _compiled().help_others
        for number, worker in enumerate(self._memory[WORKERS // 8 :].reshape(n_places, -1)):
            lock = _allocate_lock()
            _acquire_lock(lock, 0)  # it is released to wake the helper
            worker[NUMBER // 8], worker[BOARD // 8], worker[LOCK // 8] = number, self._board, lock

    def lead(self, n_workers: int, function: int, record: int) -> None:
        """See :func:`run_team`."""
        _compiled().lead(self._board, self.n_places, n_workers, function, record)

    def dismiss(self) -> None:
        """Let the threads of all helpers end."""
        _compiled().dismiss(self._board, self.n_places)


def _take_team(n_workers: int) -> _Team:
    """A team that nobody else uses."""
    for team in _teams:
        if team.n_places >= n_workers and team.taken.acquire(blocking=False):
            return team
    team = _Team(n_workers)
    team.taken.acquire()
    _teams.append(team)
    return team


def _dismiss_teams() -> None:
    """Before Python takes apart what helpers look at."""
    for team in _teams:
        if team.taken.acquire(blocking=False):
            team.dismiss()
            team.taken.release()


atexit.register(_dismiss_teams)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_teams.clear)  # the threads of helpers are not in the child
