"""The reference as a training plan over any array namespace: NumPy's whole backend, and the body of CuPy's."""

# Legend: N samples, D features, P parameters, S steps of one run, B batch size.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.interface import StepMetrics
from fastnet.data import Dataset, is_sparse
from fastnet.errors import PlanClosedError
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.reference import Operations
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["ArrayLibrary", "ArrayPlan"]

Array = Any

# Rows of X that a prediction converts and holds activations of at a time.
PREDICTION_ROWS = 8192


class ArrayLibrary:
    """How a plan reaches one array library. This one is for arrays on the host; a device's overrides the transfers.

    Parameters
    ----------
    operations : Operations
        The elementwise functions, bound to the library's namespace ``operations.xp``.
    detail : str
        What its plans say of themselves: see :attr:`fastnet.backends.interface.TrainingPlan.detail`.
    """

    def __init__(self, operations: Operations, detail: str) -> None:
        self.operations = operations
        self.xp = operations.xp
        self.detail = detail

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


class ArrayPlan:
    """A `fastnet.backends.interface.TrainingPlan` that runs the reference step by step.

    Parameters
    ----------
    spec : TrainingSpec
    parameters : Parameters
        Copied.
    dataset : Dataset
        Brought to the device once.
    library : ArrayLibrary
    """

    def __init__(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset, library: ArrayLibrary) -> None:
        self._spec = spec
        self._library = library
        self._layout = parameters.layout
        self._closed = False
        with library.scope():
            xp = library.xp
            x = library.to_device(dataset.x)
            # The full batch is used whole at every step, so it is converted once; batches are converted as they come.
            self._x = x if spec.batch_size else library.as_floats(x, spec.network.dtype)
            self._targets = library.to_device(dataset.targets)
            weight = dataset.sample_weight
            self._sample_weight = None if weight is None else library.to_device(weight)
            self._flat = xp.array(library.to_device(parameters.flat))
            self._state = reference.initial_state(spec.optimizer, self._flat, xp=xp)
        self._n_updates = 0

    @property
    def detail(self) -> str:
        """See :attr:`fastnet.backends.interface.TrainingPlan.detail`."""
        return self._library.detail

    def run(self, learning_rates: Sequence[float] | NDArray, order: NDArray[np.int64] | None = None) -> StepMetrics:
        """See :meth:`fastnet.backends.interface.TrainingPlan.run`."""
        self._require_open()
        xp, n_steps = self._library.xp, len(learning_rates)
        with self._library.scope(), np.errstate(all="ignore"):  # divergence is found, and told, by the training loop
            loss, penalty = xp.empty(n_steps, xp.float64), xp.zeros(n_steps, xp.float64)
            n_correct = xp.empty(n_steps, xp.int64)
            rows = None if order is None else self._library.to_device(order)
            for step, rate in enumerate(learning_rates):
                batch = self._batch(rows, step)
                loss[step], l2_penalty, gradient, n_correct[step] = reference.loss_and_gradients(
                    self._spec, self._flat, *batch, self._library.operations
                )
                if self._spec.network.l2:
                    penalty[step] = l2_penalty
                self._n_updates += 1
                self._library.operations.update(
                    self._spec, self._flat, gradient, self._state, float(rate), self._n_updates
                )
        return StepMetrics(lambda: self._to_host(loss, penalty, n_correct))

    def _batch(self, rows: Array | None, step: int) -> tuple[Array, Array, Array | None]:
        """X (B, D), targets and weights of one step."""
        if rows is None or self._spec.batch_size is None:
            return self._x, self._targets, self._sample_weight
        batch = rows[step * self._spec.batch_size : (step + 1) * self._spec.batch_size]
        weight = None if self._sample_weight is None else self._sample_weight[batch]
        x = self._library.take_rows(self._x, batch, self._spec.network.dtype)
        return x, self._targets[batch], weight

    def _to_host(self, loss: Array, penalty: Array, n_correct: Array) -> tuple[NDArray, NDArray, NDArray]:
        to_host = self._library.to_host
        with self._library.scope():
            return to_host(loss), to_host(penalty), to_host(n_correct)

    def loss_and_gradients(self) -> tuple[float, Parameters]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.loss_and_gradients`."""
        self._require_open()
        with self._library.scope(), np.errstate(all="ignore"):
            x = self._library.as_floats(self._x, self._spec.network.dtype)
            loss, _, gradient, _ = reference.loss_and_gradients(
                self._spec, self._flat, x, self._targets, self._sample_weight, self._library.operations
            )
            return float(loss), Parameters(self._layout, self._library.to_host(gradient))

    def read_parameters(self) -> Parameters:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_parameters`."""
        self._require_open()
        with self._library.scope():
            return Parameters(self._layout, self._library.to_host(self._flat))

    def write_parameters(self, parameters: Parameters) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_parameters`."""
        self._require_open()
        with self._library.scope():
            self._flat[...] = self._library.to_device(parameters.flat)

    def read_state(self) -> dict[str, NDArray]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_state`."""
        self._require_open()
        with self._library.scope():
            state = {name: self._library.to_host(array) for name, array in self._state.items()}
        return state | {"n_updates": np.array(self._n_updates, np.int64)}

    def write_state(self, state: dict[str, NDArray]) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_state`."""
        self._require_open()
        with self._library.scope():
            for name, array in self._state.items():
                array[...] = self._library.to_device(state[name])
        self._n_updates = int(state["n_updates"])

    def synchronize(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.synchronize`."""
        self._require_open()
        with self._library.scope():
            self._library.synchronize()

    def close(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.close`."""
        self._closed = True
        self._x = self._targets = self._sample_weight = self._flat = None
        self._state = {}

    def _require_open(self) -> None:
        if self._closed:
            raise PlanClosedError("this training plan is closed: make a new one with plan_training")


def predict(network: NetworkSpec, parameters: Parameters, x: Any, library: ArrayLibrary) -> NDArray:
    """Outputs (N, C) on the host, some thousand rows at a time."""
    layout = ParameterLayout.of(network)
    outputs = np.empty((x.shape[0], network.n_outputs), network.numpy_dtype)
    with library.scope(), np.errstate(all="ignore"):
        flat = library.to_device(parameters.flat)
        for start in range(0, x.shape[0], PREDICTION_ROWS):
            rows = library.as_floats(library.to_device(x[start : start + PREDICTION_ROWS]), network.dtype)
            part = reference.predict(network, layout, flat, rows, library.operations)
            outputs[start : start + PREDICTION_ROWS] = library.to_host(part)
    return outputs
