"""The NumPy backend: the reference, run by NumPy. It can train everything, everywhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends import array_engine
from fastnet.backends.array_engine import ReferenceEngine
from fastnet.backends.array_plan import ArrayLibrary, ArrayPlan
from fastnet.backends.interface import Availability
from fastnet.data import Dataset
from fastnet.errors import BackendUnavailableError
from fastnet.parameters import Parameters
from fastnet.reference import Operations
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["NumpyBackend", "NumpyNamespace"]


class NumpyNamespace:
    """NumPy's namespace with SciPy's `erf` beside it: what the reference asks of `xp`."""

    def __getattr__(self, name: str) -> Any:
        if name == "erf":
            from scipy.special import erf

            return erf
        return getattr(np, name)


class NumpyLibrary(ArrayLibrary):
    """NumPy, with the number of BLAS threads limited while a plan works."""

    def __init__(self, n_threads: int | None) -> None:
        super().__init__(Operations(NumpyNamespace()))
        self._n_threads = n_threads

    def scope(self) -> AbstractContextManager[Any]:
        """Limits BLAS threads where a number was asked for."""
        if self._n_threads is None:
            return super().scope()
        from threadpoolctl import threadpool_limits

        limits: AbstractContextManager[Any] = threadpool_limits(self._n_threads, user_api="blas")
        return limits


class NumpyBackend:
    """Runs the reference on the CPU; a `fastnet.backends.interface.Backend`.

    Parameters
    ----------
    device : str
        "auto" or "cpu".
    n_threads : int or None
        BLAS threads; None leaves them as they are.

    Raises
    ------
    BackendUnavailableError
        Another device was asked for.
    """

    name = "numpy"

    def __init__(self, device: str = "auto", n_threads: int | None = None) -> None:
        if device not in ("auto", "cpu"):
            raise BackendUnavailableError(f"backend 'numpy' runs on the CPU, not on {device!r}: use backend='cupy'")
        self._library = NumpyLibrary(n_threads)

    def availability(self) -> Availability:
        """Always available."""
        return Availability(True, f"NumPy {np.__version__}", ("cpu",))

    def check_support(self, spec: TrainingSpec) -> None:
        """Supports every specification."""

    def plan_training(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset) -> ArrayPlan:
        """See :meth:`fastnet.backends.interface.Backend.plan_training`."""
        with self._library.scope():
            detail = "array operations of NumPy, one call per operation"
            engine = ReferenceEngine(spec, dataset, self._library, detail)
        return ArrayPlan(spec, parameters, engine, self._library)

    def predict(self, spec: NetworkSpec, parameters: Parameters, x: Any) -> NDArray:
        """See :meth:`fastnet.backends.interface.Backend.predict`."""
        return array_engine.predict(spec, parameters, x, self._library)
