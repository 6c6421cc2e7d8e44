"""What is measured of a workload, backends and peers side by side. Times are in seconds unless a name says ms."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from fastnet.backends.registry import choose_backend
from fastnet.benchmarking.machine import describe_machine, n_default_threads, n_threads_asked_for
from fastnet.benchmarking.peers import AbsentError, find_peer
from fastnet.benchmarking.roofline import MachineSpeed, Roofline, StepCost, count_step
from fastnet.benchmarking.trials import BackendTrial, OpenTrial, Trial, time_alternately, time_first_call
from fastnet.errors import SpecError
from fastnet.workloads import LoadedWorkload, Workload, load
from fastnet.workloads.samples import DataPath

__all__ = ["Comparison", "Measurement", "as_json", "compare"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """How fast one backend or peer trained one workload, and what it reached.

    Attributes
    ----------
    workload, backend, device, dtype : str
    n_threads : int
        CPU threads that it was allowed.
    detail : str
        One line of English on how it computed.
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
    step_cost : StepCost
        What a step must do at least.
    """

    workload: str
    backend: str
    device: str
    dtype: str
    n_threads: int
    detail: str
    data_source: str
    n_samples: int
    n_epochs: int
    n_steps: int
    seconds: tuple[float, ...]
    first_call_seconds: float
    loss: float
    expected_loss: float
    agrees: bool
    step_cost: StepCost

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

    def roofline(self, speeds: Iterable[MachineSpeed]) -> Roofline | None:
        """The median round's steps beside what the machine allows.

        None on another device than the CPU, and where no speed is for this dtype and number of threads.
        """
        fitting = (speed for speed in speeds if (speed.dtype, speed.n_threads) == (self.dtype, self.n_threads))
        speed = next(fitting, None) if self.device == "cpu" else None
        return None if speed is None else Roofline.of(self.step_cost, speed, 1e-3 * self.ms_per_step)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What :func:`compare` found.

    Attributes
    ----------
    measurements : list of Measurement
        Backends first, then peers, in the order asked for.
    absent : dict of str to str
        Peers that could not take part, and why.
    """

    measurements: list[Measurement]
    absent: dict[str, str]


def compare(
    workload: Workload | str,
    backends: Iterable[str],
    peers: Iterable[str] = (),
    *,
    data: DataPath | None = None,
    scale: float = 1.0,
    rounds: int = 5,
    at_least: float = 0.0,
    device: str = "auto",
    n_threads: int | None = None,
) -> Comparison:
    """Time backends and peers on a workload in turns, so that what slows the machine for a while slows all of them.

    Each round of each of them comes after a pause, and right after one that is not timed.

    Parameters
    ----------
    workload : Workload or str
        One of ``fastnet.workloads.WORKLOADS``, or its name.
    backends : iterable of str
        Their names, or "auto".
    peers : iterable of str
        Names of ``fastnet.benchmarking.peers.PEERS``; peers run on the CPU.
    data, scale
        See :func:`fastnet.workloads.load`.
    rounds : int
        How often each of them trains the workload, besides a first time that is reported by itself.
    at_least : float
        Seconds for which further rounds follow.
    device : str
        As for `fastnet.Network`, for all backends.
    n_threads : int, optional
        CPU threads of all of them; by default ``FASTNET_NUM_THREADS``, else as many as each takes by itself.

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
    n_backend_threads = n_threads or n_default_threads()
    openers: list[tuple[str, OpenTrial]] = [
        (backend.name, partial(BackendTrial, backend=backend, n_threads=n_backend_threads)) for backend in chosen
    ]
    found, absent = _find_peers(peers, n_threads or n_threads_asked_for())
    loaded = load(workload, data, scale)
    names, trials, first_calls = [], [], []
    with ExitStack() as stack:
        for name, open_trial in openers + found:
            try:
                trial, seconds = time_first_call(partial(open_trial, loaded))
            except AbsentError as reason:
                absent[name] = str(reason)
                continue
            names.append(name)
            trials.append(stack.enter_context(closing(trial)))
            first_calls.append(seconds)
        times = time_alternately(trials, rounds, at_least=at_least, warms_up=True)
        measurements = [
            _measurement(loaded, name, trial, seconds, first_call)
            for name, trial, seconds, first_call in zip(names, trials, times, first_calls, strict=True)
        ]
    return Comparison(measurements, absent)


def _find_peers(names: Iterable[str], n_threads: int | None) -> tuple[list[tuple[str, OpenTrial]], dict[str, str]]:
    """Peers that are installed, limited to `n_threads`, and why the others are not there."""
    found: list[tuple[str, OpenTrial]] = []
    absent: dict[str, str] = {}
    for name in names:
        try:
            found.append((name, partial(find_peer(name), n_threads=n_threads)))
        except AbsentError as reason:
            absent[name] = str(reason)
    return found, absent


def _measurement(
    loaded: LoadedWorkload, name: str, trial: Trial, seconds: tuple[float, ...], first_call_seconds: float
) -> Measurement:
    loss = loaded.loss(trial.parameters())
    return Measurement(
        workload=loaded.workload.name,
        backend=name,
        device=trial.device,
        dtype=trial.dtype,
        n_threads=trial.n_threads,
        detail=trial.detail,
        data_source=loaded.data_source,
        n_samples=loaded.dataset.n_samples,
        n_epochs=loaded.workload.n_epochs,
        n_steps=loaded.n_steps,
        seconds=seconds,
        first_call_seconds=first_call_seconds,
        loss=loss,
        expected_loss=loaded.expected_loss,
        agrees=loaded.agrees(loss),
        step_cost=count_step(loaded.spec, loaded.dataset),
    )


def as_json(measurements: Sequence[Measurement], speeds: Sequence[MachineSpeed] = ()) -> dict[str, Any]:
    """What was measured, and on what, as plain values that :mod:`json` can write; rooflines too for given `speeds`."""
    described: list[dict[str, Any]] = [
        asdict(measurement)
        | {
            "ms_per_step": measurement.ms_per_step,
            "best_ms_per_step": measurement.best_ms_per_step,
            "samples_per_second": measurement.samples_per_second,
        }
        for measurement in measurements
    ]
    if speeds:
        for entry, measurement in zip(described, measurements, strict=True):
            roofline = measurement.roofline(speeds)
            entry["roofline"] = None if roofline is None else asdict(roofline)
    machine = describe_machine() | ({"speeds": [asdict(speed) for speed in speeds]} if speeds else {})
    return {"machine": machine, "measurements": described}
