"""Whether a module's barriers matter: what is computed without one of them must differ, in some order of threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from emulated_cupy.machine import MACHINE, SCHEDULES
from emulated_cupy.raw_module import RawModule
from emulated_cupy.shorthand import in_every_schedule

Compute = Callable[[], Sequence[np.ndarray]]


def barrier_lines(module: RawModule) -> list[tuple[int, str]]:
    """Number and text of each line with a barrier that launches have reached so far.

    Barriers are ``__syncthreads``, ``__syncwarp``, ``synchronize_team`` and ``copy_async_wait``. With
    ``MACHINE.deleted_line`` set to such a number, launches pass that line as if it were not there.
    """
    lines = module.code.splitlines()
    return [(number, lines[number - 1].strip()) for number, reached in enumerate(module.reached) if reached]


def superfluous_barriers(module: RawModule, compute: Compute) -> list[tuple[int, str]]:
    """Number and text of the barriers that `compute` reaches and that it would not need.

    Parameters
    ----------
    module : RawModule
    compute : callable
        Launches kernels of the module, and returns host arrays. These must have the same bits in every order of
        threads; when one of the barriers is left out, they must differ in one of the orders, or a launch raise.
    """
    ctypes.memset(module.reached, 0, len(module.reached))
    expected, *others = in_every_schedule(compute)
    for schedule, arrays in zip(SCHEDULES[1:], others, strict=True):
        assert _same_bits(arrays, expected), f"the order {schedule} of threads gives another result"
    return [(number, text) for number, text in barrier_lines(module) if not _shows(number, compute, expected)]


def _shows(line: int, compute: Compute, expected: Sequence[np.ndarray]) -> bool:
    MACHINE.deleted_line = line
    try:
        return not all(_same_bits(arrays, expected) for arrays in in_every_schedule(compute))
    except (RuntimeError, IndexError):
        return True
    finally:
        MACHINE.deleted_line = None


def _same_bits(arrays: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(arrays, others, strict=True))
