"""The Numba backend: whole runs of training steps in compiled code, on all cores, with the same bits on any number."""

from __future__ import annotations

import os
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from numpy.typing import NDArray

from fastnet.backends.interface import Availability
from fastnet.backends.numba_backend import kept, machine_code, plan
from fastnet.backends.numba_backend.plan import NumbaPlan
from fastnet.data import Dataset
from fastnet.errors import BackendUnavailableError
from fastnet.parameters import Parameters
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["NumbaBackend"]


_SECONDS_TO_LOAD, _SECONDS_TO_COMPILE = 0.1, 5.0


class NumbaBackend:
    """Trains on the CPU; a `fastnet.backends.interface.Backend`.

    Parameters
    ----------
    device : str
        "auto" or "cpu".
    n_threads : int or None
        Threads that share the work. None takes one for each CPU that the process may use, or ``NUMBA_NUM_THREADS``. The
        results are the same bits for any number.

    Raises
    ------
    BackendUnavailableError
        Another device was asked for.
    """

    name = "numba"

    def __init__(self, device: str = "auto", n_threads: int | None = None) -> None:
        if device not in ("auto", "cpu"):
            raise BackendUnavailableError(f"backend 'numba' runs on the CPU, not on {device!r}: use backend='cupy'")
        self._n_threads = n_threads or _n_default_threads()

    def availability(self) -> Availability:
        """Available wherever Numba can be imported."""
        if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            return Availability(False, "NUMBA_DISABLE_JIT forbids compiled code: unset it")
        if error := _import_error():
            return Availability(False, f"Numba cannot be imported: {error}")
        threads = f"{self._n_threads} thread{'s' if self._n_threads > 1 else ''}"
        return Availability(True, f"Numba {_numba_version()}, {threads}", ("cpu",))

    def seconds_to_start(self) -> float:
        """About how long loading kernels takes, or compiling those that this machine has never run."""
        if machine_code.is_anything_loaded():
            return 0.0
        return _SECONDS_TO_LOAD if kept.is_anything_kept() else _SECONDS_TO_COMPILE

    def check_support(self, spec: TrainingSpec) -> None:
        """Supports every specification."""

    def plan_training(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset) -> NumbaPlan:
        """See :meth:`fastnet.backends.interface.Backend.plan_training`."""
        return NumbaPlan(spec, parameters, dataset, self._n_threads)

    def predict(self, spec: NetworkSpec, parameters: Parameters, x: Any) -> NDArray:
        """See :meth:`fastnet.backends.interface.Backend.predict`."""
        return plan.predict(spec, parameters, x, self._n_threads)


@cache
def _import_error() -> str:
    """What importing Numba says; nothing if it can be done, or if it has been done for what is on disk."""
    try:
        if not kept.is_anything_kept():
            import numba  # noqa: F401
    except Exception as error:  # a broken installation may raise anything
        return str(error)
    return ""


_numba_version = cache(partial(version, "numba"))


def _n_default_threads() -> int:
    """As many as Numba would start: joblib limits it for its workers, so that they do not get in each other's way."""
    asked_for = os.environ.get("NUMBA_NUM_THREADS", "")
    if asked_for.isdecimal() and int(asked_for) > 0:
        return int(asked_for)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
