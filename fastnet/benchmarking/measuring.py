"""Trials, and how they are timed. Times are in seconds unless a name says ms."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from fastnet.backends.interface import Backend
from fastnet.backends.registry import choose_backend
from fastnet.benchmarking.machine import describe_machine, n_default_threads
from fastnet.errors import SpecError
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload, Workload, load
from fastnet.workloads.samples import DataPath

__all__ = [
    "BackendTrial",
    "Measurement",
    "Trial",
    "as_json",
    "measure",
    "time_alternately",
    "time_first_call",
]


class Trial(Protocol):
    """Someone who trains a workload: a backend here, a peer in the benchmarks.

    Attributes
    ----------
    device, dtype : str
        Where and in which precision it computes.
    n_threads : int
        CPU threads it may use.
    """

    device: str
    dtype: str
    n_threads: int

    def reset(self) -> None:
        """Go back to the initial weights. Not timed."""
        ...

    def run(self) -> None:
        """Train for the workload's epochs, to the end. Timed."""
        ...

    def parameters(self) -> Parameters:
        """The parameters reached."""
        ...

    def close(self) -> None:
        """Release memory."""
        ...


class BackendTrial:
    """One of fastnet's backends as a `Trial`; what it times is the plan alone, not validation or callbacks.

    Parameters
    ----------
    loaded : LoadedWorkload
    backend : Backend
    n_threads : int
        CPU threads that `backend` was made with.

    Raises
    ------
    UnsupportedSpecError
        The backend cannot train this workload.
    """

    def __init__(self, loaded: LoadedWorkload, backend: Backend, n_threads: int) -> None:
        backend.check_support(loaded.spec)
        self.device = next(iter(backend.availability().devices), "cpu")
        self.dtype = loaded.spec.network.dtype
        self.n_threads = n_threads
        self._loaded = loaded
        self._plan = backend.plan_training(loaded.spec, loaded.start, loaded.dataset)
        self._start_state = self._plan.read_state()

    def reset(self) -> None:
        """See :meth:`Trial.reset`."""
        self._plan.write_parameters(self._loaded.start)
        self._plan.write_state(self._start_state)

    def run(self) -> None:
        """See :meth:`Trial.run`."""
        self._loaded.train(self._plan)

    def parameters(self) -> Parameters:
        """See :meth:`Trial.parameters`."""
        return self._plan.read_parameters()

    def close(self) -> None:
        """See :meth:`Trial.close`."""
        self._plan.close()


@dataclass(frozen=True, slots=True)
class Measurement:
    """How fast one backend trained one workload, and what it reached.

    Attributes
    ----------
    workload, backend, device, dtype : str
    n_threads : int
        CPU threads that the backend was allowed.
    data_source : str
    n_samples, n_epochs, n_steps : int
        Of one round.
    seconds : tuple of float
        Of each round.
    first_call_seconds : float
        From nothing to the end of a first round, which is not among `seconds`: compiling and binding the data included.
    loss : float
        Reached after a round, in nats.
    expected_loss : float
        What NumPy reaches in float64.
    agrees : bool
        Whether `loss` is `expected_loss` up to rounding; where it is not, the speed means nothing.
    """

    workload: str
    backend: str
    device: str
    dtype: str
    n_threads: int
    data_source: str
    n_samples: int
    n_epochs: int
    n_steps: int
    seconds: tuple[float, ...]
    first_call_seconds: float
    loss: float
    expected_loss: float
    agrees: bool

    @property
    def ms_per_step(self) -> float:
        """Median over rounds, in milliseconds."""
        return 1e3 * statistics.median(self.seconds) / self.n_steps

    @property
    def best_ms_per_step(self) -> float:
        """Of the fastest round, in milliseconds."""
        return 1e3 * min(self.seconds) / self.n_steps

    @property
    def samples_per_second(self) -> float:
        """Samples seen in a second of the median round."""
        return self.n_samples * self.n_epochs / statistics.median(self.seconds)


def measure(
    workload: Workload | str,
    backends: Iterable[str],
    *,
    data: DataPath | None = None,
    scale: float = 1.0,
    rounds: int = 5,
    device: str = "auto",
    n_threads: int | None = None,
) -> list[Measurement]:
    """Time a workload on some backends, in turns, so that what slows the machine down for a while slows all of them.

    Parameters
    ----------
    workload : Workload or str
        One of ``fastnet.workloads.WORKLOADS``, or its name.
    backends : iterable of str
        Their names, or "auto".
    data, scale
        See :func:`fastnet.workloads.load`.
    rounds : int
        How often each backend trains the workload, besides a first time that is reported by itself.
    device, n_threads
        As for `fastnet.Network`, for all backends.

    Returns
    -------
    list of Measurement
        In the order of `backends`.

    Raises
    ------
    SpecError
        A name or a number has no meaning.
    BackendUnavailableError, UnsupportedSpecError
        A backend cannot run here, or not this workload.
    DataError, FileFormatError
        `data` holds no MNIST, or a damaged one.
    """
    if rounds < 1:
        raise SpecError(f"rounds must be at least 1, got {rounds}")
    chosen = [choose_backend(name, device, n_threads).backend for name in backends]
    n_threads = n_threads or n_default_threads()
    loaded = load(workload, data, scale)
    with ExitStack() as stack:
        trials, first_calls = [], []
        for backend in chosen:
            trial, seconds = time_first_call(partial(BackendTrial, loaded, backend, n_threads))
            trials.append(stack.enter_context(closing(trial)))
            first_calls.append(seconds)
        times = time_alternately(trials, rounds)
        return [
            _measurement(loaded, backend.name, trial, seconds, first_call)
            for backend, trial, seconds, first_call in zip(chosen, trials, times, first_calls, strict=True)
        ]


def _measurement(
    loaded: LoadedWorkload, backend_name: str, trial: Trial, seconds: tuple[float, ...], first_call_seconds: float
) -> Measurement:
    loss = loaded.loss(trial.parameters())
    return Measurement(
        workload=loaded.workload.name,
        backend=backend_name,
        device=trial.device,
        dtype=trial.dtype,
        n_threads=trial.n_threads,
        data_source=loaded.data_source,
        n_samples=loaded.dataset.n_samples,
        n_epochs=loaded.workload.n_epochs,
        n_steps=loaded.n_steps,
        seconds=seconds,
        first_call_seconds=first_call_seconds,
        loss=loss,
        expected_loss=loaded.expected_loss,
        agrees=loaded.agrees(loss),
    )


def time_first_call(make: Callable[[], Trial]) -> tuple[Trial, float]:
    """A new trial that has run once, and the seconds that both took together."""
    start = time.perf_counter()
    trial = make()
    trial.run()
    return trial, time.perf_counter() - start


def time_alternately(trials: Sequence[Trial], rounds: int) -> list[tuple[float, ...]]:
    """Seconds of each of `rounds` runs of each trial; everyone runs once before anyone runs again."""
    seconds: list[list[float]] = [[] for _ in trials]
    for _ in range(rounds):
        for trial, times in zip(trials, seconds, strict=True):
            trial.reset()
            start = time.perf_counter()
            trial.run()
            times.append(time.perf_counter() - start)
    return [tuple(times) for times in seconds]


def as_json(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What was measured, and on what, as plain values that :mod:`json` can write."""
    described = [
        asdict(measurement)
        | {
            "ms_per_step": measurement.ms_per_step,
            "best_ms_per_step": measurement.best_ms_per_step,
            "samples_per_second": measurement.samples_per_second,
        }
        for measurement in measurements
    ]
    return {"machine": describe_machine(), "measurements": described}
