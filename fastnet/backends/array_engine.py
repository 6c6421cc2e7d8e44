"""The reference, step by step, over any array library: NumPy's whole backend, and CuPy's path for everything."""

# Legend: N samples, D features, C outputs, B batch size, P parameters, S steps of one run.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.array_plan import Array, ArrayLibrary
from fastnet.data import Dataset
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["ReferenceEngine", "predict"]

# Rows of X that a prediction converts and holds activations of at a time.
PREDICTION_ROWS = 8192


class ReferenceEngine:
    """A `fastnet.backends.array_plan.Engine` for every specification.

    Parameters
    ----------
    spec : TrainingSpec
    dataset : Dataset
        Brought to the device once.
    library : ArrayLibrary
        In whose scope the engine is made.
    detail : str
        What plans say of how they compute.
    """

    def __init__(self, spec: TrainingSpec, dataset: Dataset, library: ArrayLibrary, detail: str) -> None:
        self.detail = detail
        self._spec = spec
        self._library = library
        x = library.to_device(dataset.x)
        # The full batch is used whole at every step, so it is converted once; batches are converted as they come.
        self._x = x if spec.batch_size else library.as_floats(x, spec.network.dtype)
        self._targets = library.to_device(dataset.targets)
        weight = dataset.sample_weight
        self._sample_weight = None if weight is None else library.to_device(weight)

    def run(
        self,
        flat: Array,
        state: dict[str, Array],
        n_updates: int,
        learning_rates: Sequence[float] | NDArray,
        order: NDArray[np.int64] | None,
    ) -> tuple[Array, Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.run`."""
        spec, operations = self._spec, self._library.operations
        xp, n_steps = self._library.xp, len(learning_rates)
        loss, penalty = xp.empty(n_steps, xp.float64), xp.zeros(n_steps, xp.float64)
        n_correct = xp.empty(n_steps, xp.int64)
        rows = None if order is None else self._library.to_device(order)
        for step, rate in enumerate(learning_rates):
            loss[step], l2_penalty, gradient, n_correct[step] = reference.loss_and_gradients(
                spec, flat, *self._batch(rows, step), operations
            )
            if spec.network.l2:
                penalty[step] = l2_penalty
            operations.update(spec, flat, gradient, state, float(rate), n_updates + step + 1)
        return loss, penalty, n_correct

    def _batch(self, rows: Array | None, step: int) -> tuple[Array, Array, Array | None]:
        """X (B, D), targets and weights of one step."""
        if rows is None or self._spec.batch_size is None:
            return self._x, self._targets, self._sample_weight
        batch = rows[step * self._spec.batch_size : (step + 1) * self._spec.batch_size]
        weight = None if self._sample_weight is None else self._sample_weight[batch]
        x = self._library.take_rows(self._x, batch, self._spec.network.dtype)
        return x, self._targets[batch], weight

    def loss_and_gradients(self, flat: Array) -> tuple[Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.loss_and_gradients`."""
        x = self._library.as_floats(self._x, self._spec.network.dtype)
        loss, _, gradient, _ = reference.loss_and_gradients(
            self._spec, flat, x, self._targets, self._sample_weight, self._library.operations
        )
        return loss, gradient


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
