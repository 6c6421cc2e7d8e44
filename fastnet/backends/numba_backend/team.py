"""Teams of threads that go through compiled functions together, and stay ready for the next one for a while.

The calling thread is one worker, and the others are helpers, whose threads see nothing of Python: they live in compiled
code from beginning to end, see ``meeting.py``. So they need not be waited for when Python ends, no exception can be
raised in one, and Ctrl-C arrives in the calling thread when its call is over.

A helper that has nothing to do falls asleep, and its thread ends some seconds later; it is started anew when there is
work again. Who needs a team takes one that no other thread uses at that moment, so there are as many as there were
threads of Python that trained at the same time.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from functools import cache
from typing import Any

import numpy as np

from fastnet.backends.numba_backend.meeting import (
    HELP,
    HELPER_SIZE,
    HELPERS,
    LOCK,
    TEAM,
    help_team,
    work_together,
)

__all__ = ["prepare_team", "run_team"]

_teams: list[_Team] = []  # for ever: their memory must outlive the threads that look at it


def run_team(n_workers: int, function: int, record: int) -> None:
    """Call ``function(worker, n_workers, team, record)`` for all workers at once, if the system has so many threads.

    Parameters
    ----------
    n_workers : int
    function : int
        Address of a compiled function of four int64 that returns nothing. It may meet the other workers with
        ``meeting.wait_for_all(team, n_workers)``.
    record : int
        What it is told, such as an address.
    """
    if n_workers == 1:
        _Share(function)(0, 1, 0, record)
        return
    team = _take_team(n_workers - 1)
    try:
        team.call(n_workers, function, record)
    finally:
        team.taken.release()


def prepare_team(n_workers: int) -> None:
    """Compile, or load, what :func:`run_team` needs for more than one worker."""
    if n_workers > 1:
        _compiled()


_Share = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)


@cache
def _compiled() -> tuple[Any, int]:
    """What calls a team, for Python, and the address of what a helper does."""
    return work_together.for_arguments(0, 0, 0, 0).ctypes, help_team.for_arguments(0).address


def _python_function(name: str, *kinds: Any) -> Any:
    """A function of Python's C interface, of which `kinds` are the types of the result and of the arguments."""
    return ctypes.PYFUNCTYPE(*kinds)((name, ctypes.pythonapi))


_allocate_lock = _python_function("PyThread_allocate_lock", ctypes.c_void_p)
_acquire_lock = _python_function("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Team:
    """Room for `n_helpers`, whose threads start when they are first called; `taken` is held by whoever uses it."""

    def __init__(self, n_helpers: int) -> None:
        self.taken = threading.Lock()
        self.n_helpers = n_helpers
        self._call, help_team_address = _compiled()
        size = HELPERS + n_helpers * HELPER_SIZE
        whole = np.zeros(size + HELPER_SIZE, np.uint8)
        start = -whole.ctypes.data % HELPER_SIZE
        self._memory = whole[start : start + size].view(np.int64)
        self._address = self._memory.ctypes.data
        self._memory[HELP // 8] = help_team_address
        for helper in self._memory[HELPERS // 8 :].reshape(n_helpers, -1):
            lock = _allocate_lock()
            _acquire_lock(lock, 0)  # it is released to wake the helper
            helper[LOCK // 8], helper[TEAM // 8] = lock, self._address

    def call(self, n_workers: int, function: int, record: int) -> None:
        """See :func:`run_team`."""
        self._call(self._address, n_workers, function, record)

    def dismiss(self) -> None:
        """Let the threads of all helpers end."""
        self._call(self._address, self.n_helpers + 1, 0, 0)


def _take_team(n_helpers: int) -> _Team:
    """A team that nobody else uses."""
    for team in _teams:
        if team.n_helpers >= n_helpers and team.taken.acquire(blocking=False):
            return team
    team = _Team(n_helpers)
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
