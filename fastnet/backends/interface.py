"""The seam: what a backend promises to the layers above, and what it may rely on.

A third party's backend is a factory ``(device: str, n_threads: int | None) -> Backend`` published under the entry-point
group ``fastnet.backends``. It may take its arguments as validated: shapes agree, arrays are C-contiguous, values are
finite, labels are in range. :mod:`fastnet.testing` checks whether it keeps the promises below.
"""

# Legend: N samples, D features, C outputs, P parameters, S steps of one run.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnet.data import Dataset
from fastnet.parameters import Parameters
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["Availability", "Backend", "BackendFactory", "StepMetrics", "TrainingPlan"]


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend can run on this machine, and if not, why, with the remedy.

    Attributes
    ----------
    ok : bool
    reason : str
        What is missing and what to do about it; where `ok`, what was found.
    devices : tuple of str
        Names of the devices it can use, the default one first.
    """

    ok: bool
    reason: str
    devices: tuple[str, ...] = ()


class StepMetrics:
    """Figures of each step of a run; they stay on the device until one of them is read.

    Parameters
    ----------
    fetch : callable
        Returns the loss, the penalty and the number of correct predictions, each (S,), as arrays on the host.

    Attributes
    ----------
    loss : ndarray (S,) of float64
        The objective in nats, the l2 penalty included, at the parameters *before* each update.
    penalty : ndarray (S,) of float64
        The l2 penalty's part of it.
    n_correct : ndarray (S,) of int64
        Correct predictions among the samples of each step; zeros for regression.
    """

    def __init__(self, fetch: Callable[[], tuple[Any, Any, Any]]) -> None:
        self._fetch = fetch

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        loss, penalty, n_correct = self._fetch()
        return np.asarray(loss, np.float64), np.asarray(penalty, np.float64), np.asarray(n_correct, np.int64)

    @property
    def loss(self) -> NDArray[np.float64]:
        """Objective in nats before each update (S,)."""
        return self._arrays[0]

    @property
    def penalty(self) -> NDArray[np.float64]:
        """Penalty's part of the objective in nats before each update (S,)."""
        return self._arrays[1]

    @property
    def n_correct(self) -> NDArray[np.int64]:
        """Correct predictions in each step (S,)."""
        return self._arrays[2]


class TrainingPlan(Protocol):
    """One network bound to one dataset on one device. Not safe for use by several threads at once.

    For one backend and machine the results are the same bits run after run, and however a sequence of steps is cut into
    runs. For compiled backends they are so for any number of threads; NumPy leaves threads to its BLAS, which shares
    sums out among them.
    """

    @property
    def detail(self) -> str:
        """One line of English on how this network and dataset are computed; it stays the same for the plan's life."""
        ...

    def run(self, learning_rates: Sequence[float] | NDArray, order: NDArray[np.int64] | None = None) -> StepMetrics:
        """Make S = ``len(learning_rates)`` updates without returning to Python between them.

        Parameters
        ----------
        learning_rates : sequence of float (S,)
        order : ndarray of int64, or None
            Sample indices of these steps, one batch after the other: ``batch_size`` each, the last one may be shorter
            (between ``(S - 1) * batch_size + 1`` and ``S * batch_size`` indices). None for full batch, and only then.

        Returns
        -------
        StepMetrics
            May be returned before the device is done.
        """
        ...

    def loss_and_gradients(self) -> tuple[float, Parameters]:
        """Objective in nats over the whole dataset, and its gradient; nothing is updated."""
        ...

    def read_parameters(self) -> Parameters:
        """A copy of the current parameters in the canonical layout."""
        ...

    def write_parameters(self, parameters: Parameters) -> None:
        """Replace the parameters, exactly; the optimizer's state stays as it is."""
        ...

    def read_state(self) -> dict[str, NDArray]:
        """A copy of what the optimizer remembers: arrays (P,) in the canonical layout, and ``n_updates`` (0-d int64).

        The names are those of ``fastnet.reference.initial_state``.
        """
        ...

    def write_state(self, state: dict[str, NDArray]) -> None:
        """Restore what :meth:`read_state` returned, of this backend or another, exactly."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""
        ...

    def close(self) -> None:
        """Release memory; may be called more than once. Every other method then raises `PlanClosedError`."""
        ...


class Backend(Protocol):
    """A way to train networks, bound to a device and a number of threads.

    One that takes long to start has a method ``seconds_to_start()``, see
    :func:`fastnet.backends.registry.seconds_to_start`.
    """

    name: str

    def availability(self) -> Availability:
        """Whether it can run here; never raises, and is cheap from the second call on."""
        ...

    def check_support(self, spec: TrainingSpec) -> None:
        """Raise `UnsupportedSpecError`, with a remedy, for what this backend cannot train."""
        ...

    def plan_training(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset) -> TrainingPlan:
        """Bind a network to data. `parameters` are copied; the arrays of `dataset` are not written to."""
        ...

    def predict(self, spec: NetworkSpec, parameters: Parameters, x: Any) -> NDArray:
        """Outputs (N, C), in the network's dtype, for x (N, D): dense, or scipy.sparse CSR."""
        ...


BackendFactory = Callable[[str, "int | None"], Backend]
