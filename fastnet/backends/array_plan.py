"""A training plan over any array library: parameters and state here, steps by an engine."""

# Legend: N samples, D features, B batch size, P parameters, S steps of one run.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.interface import StepMetrics
from fastnet.data import is_sparse
from fastnet.errors import PlanClosedError
from fastnet.parameters import Parameters
from fastnet.reference import Operations
from fastnet.spec import TrainingSpec

__all__ = ["Array", "ArrayLibrary", "ArrayPlan", "Engine"]

Array = Any


class ArrayLibrary:
    """How a plan reaches one array library. This one is for arrays on the host; a device's overrides the transfers.

    Parameters
    ----------
    operations : Operations
        The elementwise functions, bound to the library's namespace ``operations.xp``.
    """

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.xp = operations.xp

    def to_device(self, array: Any) -> Array:
        """An array, dense or CSR, where the library computes; not a copy if it is there already."""
        return array

    def to_host(self, array: Array) -> NDArray:
        """A NumPy array with the values of `array`, independent of it."""
        return np.array(array)

    def as_floats(self, x: Array, dtype: str) -> Array:
        """X (N, D), from :meth:`to_device`, in the network's `dtype`; sparse X already is."""
        return x if is_sparse(x) else x.astype(dtype, copy=False)

    def take_rows(self, x: Array, rows: Array, dtype: str) -> Array:
        """The samples `rows` (B,) of X as a batch (B, D) in the network's `dtype`."""
        return self.as_floats(x[rows], dtype)

    def scope(self) -> AbstractContextManager[Any]:
        """What must be entered around work: a device, a number of threads."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""


class Engine(Protocol):
    """Makes the steps of a plan where the library computes; the plan enters the library's scope around every call.

    `flat` (P,) and the arrays (P,) of `state`, by the names of `fastnet.reference.initial_state`, are the plan's; they
    are updated in place, and stay at their addresses for its life.
    """

    detail: str  # see `fastnet.backends.interface.TrainingPlan.detail`

    def run(
        self,
        flat: Array,
        state: dict[str, Array],
        n_updates: int,
        learning_rates: Sequence[float] | NDArray,
        order: NDArray[np.int64] | None,
    ) -> tuple[Array, Array, Array]:
        """Make S updates, after the `n_updates` made so far.

        Returns the objective and the penalty's part of it, float64 (S,), and the number of right predictions, int64
        (S,), before each update.
        """
        ...

    def loss_and_gradients(self, flat: Array) -> tuple[Array, Array]:
        """The objective over the whole dataset (scalar), and its gradient (P,)."""
        ...


class ArrayPlan:
    """A `fastnet.backends.interface.TrainingPlan` whose parameters and state lie where an array library computes.

    Parameters
    ----------
    spec : TrainingSpec
    parameters : Parameters
        Copied.
    engine : Engine
        Made for `spec` and the data, within the library's scope.
    library : ArrayLibrary
    """

    def __init__(self, spec: TrainingSpec, parameters: Parameters, engine: Engine, library: ArrayLibrary) -> None:
        self._library = library
        self._layout = parameters.layout
        self._engine: Engine | None = engine
        self._detail = engine.detail
        with library.scope():
            self._flat = library.xp.array(library.to_device(parameters.flat))
            self._state = reference.initial_state(spec.optimizer, self._flat, xp=library.xp)
        self._n_updates = 0

    @property
    def detail(self) -> str:
        """See :attr:`fastnet.backends.interface.TrainingPlan.detail`."""
        return self._detail

    def run(self, learning_rates: Sequence[float] | NDArray, order: NDArray[np.int64] | None = None) -> StepMetrics:
        """See :meth:`fastnet.backends.interface.TrainingPlan.run`."""
        engine = self._open_engine()
        with self._library.scope(), np.errstate(all="ignore"):  # divergence is found, and told, by the training loop
            figures = engine.run(self._flat, self._state, self._n_updates, learning_rates, order)
        self._n_updates += len(learning_rates)
        return StepMetrics(lambda: self._to_host(figures))

    def _to_host(self, figures: tuple[Array, Array, Array]) -> tuple[NDArray, NDArray, NDArray]:
        with self._library.scope():
            loss, penalty, n_correct = map(self._library.to_host, figures)
            return loss, penalty, n_correct

    def loss_and_gradients(self) -> tuple[float, Parameters]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.loss_and_gradients`."""
        engine = self._open_engine()
        with self._library.scope(), np.errstate(all="ignore"):
            loss, gradient = engine.loss_and_gradients(self._flat)
            return float(loss), Parameters(self._layout, self._library.to_host(gradient))

    def read_parameters(self) -> Parameters:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_parameters`."""
        self._open_engine()
        with self._library.scope():
            return Parameters(self._layout, self._library.to_host(self._flat))

    def write_parameters(self, parameters: Parameters) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_parameters`."""
        self._open_engine()
        with self._library.scope():
            self._flat[...] = self._library.to_device(parameters.flat)

    def read_state(self) -> dict[str, NDArray]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_state`."""
        self._open_engine()
        with self._library.scope():
            state = {name: self._library.to_host(array) for name, array in self._state.items()}
        return state | {"n_updates": np.array(self._n_updates, np.int64)}

    def write_state(self, state: dict[str, NDArray]) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_state`."""
        self._open_engine()
        with self._library.scope():
            for name, array in self._state.items():
                array[...] = self._library.to_device(state[name])
        self._n_updates = int(state["n_updates"])

    def synchronize(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.synchronize`."""
        self._open_engine()
        with self._library.scope():
            self._library.synchronize()

    def close(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.close`."""
        self._engine = self._flat = None
        self._state = {}

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise PlanClosedError("this training plan is closed: make a new one with plan_training")
        return self._engine
