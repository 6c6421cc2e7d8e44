"""A second process that compiles along where nothing is on disk yet, so that the first fit of all waits half as long.

It compiles the same functions in the opposite order. Both look on disk for what the other has done before they compile,
so neither waits for the other, and nothing depends on the companion: where it cannot start or dies, the fit goes on
alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache
from typing import Any

from fastnet.backends.numba_backend.kept import is_anything_kept

__all__ = ["start_where_nothing_is_compiled", "tell"]

_COMMAND = "from fastnet.backends.numba_backend.companion import main; main()"

# The running companion that has not been told yet what to compile.
_waiting: list[subprocess.Popen[bytes]] = []


@cache
def start_where_nothing_is_compiled() -> None:
    """Start a companion, once per process, unless there is compiled code on disk or no second CPU."""
    if is_anything_kept() or (os.cpu_count() or 1) < 2 or not sys.executable or getattr(sys, "frozen", False):
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError:  # no memory, or no permission to start processes
        return
    _waiting.append(process)


def tell(kind: Any) -> None:
    """Let the companion, if there is one, compile what networks of a kind need."""
    if not _waiting:
        return
    process = _waiting.pop()
    # A thread, as the companion may be starting yet, and somebody has to wait for its end.
    threading.Thread(target=process.communicate, args=(pickle.dumps(kind),), daemon=True).start()


def main() -> None:
    """What the companion does."""
    from fastnet.backends.numba_backend.kernels.needed import needed_functions
    from fastnet.backends.numba_backend.team import prepare_team

    prepare_team(2)  # this much is needed for every kind
    kind = pickle.load(sys.stdin.buffer)
    predictions = needed_functions(replace(kind, training=None))  # what has been trained is evaluated next
    for needed in [*reversed(needed_functions(kind)), *predictions]:
        needed.function.machine_code(*needed.arguments)
