"""Who takes part in the benchmark on a GPU, and what is measured of them: each of them in a process of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from gpu_apart import describe
from gpu_checks import DEFAULT, backend_of, check_repeatable, gradient_error, path_names
from gpu_peers import JaxOnDevice, TorchOnDevice
from numpy.typing import NDArray

from fastnet.backends.interface import Availability, Backend
from fastnet.benchmarking import BackendTrial, OpenTrial, n_usable_cpus, time_alternately, time_first_call
from fastnet.benchmarking.peers import AbsentError
from fastnet.errors import UnsupportedSpecError
from fastnet.workloads import WORKLOADS, LoadedWorkload, load

# Epochs of a timed round: on a GPU the catalogue's would be over before the clock has ticked often enough.
EPOCHS = {
    "mnist-16": 1000,
    "dense-16": 1000,
    "mnist-128": 500,
    "deep-512": 50,
    "moons": 2000,
    "sum": 2000,
    "digits-adam": 5,
    "dense-adam": 1,
    "tabular-adam": 3,
}

# Seconds of work before the first round: the clock of a GPU that has been idle takes a while to rise.
WARM_UP = 0.3

# Where most of a step is matrix products that are cuBLAS's.
WITH_TF32 = ("mnist-128", "deep-512")

OURS = "fastnet cupy"
LESS_PRECISE = ("TF32 permitted", "default precision")  # which need not reach the same loss

PEERS: dict[str, dict[str, OpenTrial]] = {
    "PyTorch": {
        "PyTorch eager": partial(TorchOnDevice, mode="eager"),
        "PyTorch compiled": partial(TorchOnDevice, mode="compiled"),
        "PyTorch CUDA graph": partial(TorchOnDevice, mode="graph"),
    },
    "JAX": {
        "JAX, highest precision": partial(JaxOnDevice, precision="highest"),
        "JAX, default precision": partial(JaxOnDevice, precision="default"),
    },
}


@dataclass(frozen=True)
class Task:
    """What the rows of one participant are measured on.

    Attributes
    ----------
    workload : str
        One of `EPOCHS`.
    data : str or None
        The MNIST files.
    scale : float
        Share of the samples and epochs to use.
    rounds : int
        How often each row is timed, unless `at_least` makes it more.
    at_least : float
        Seconds for which each row is timed.
    device : str
        Of the CuPy backend; the peers take the first.
    """

    workload: str
    data: str | None
    scale: float
    rounds: int
    at_least: float
    device: str

    def load(self) -> LoadedWorkload:
        """The workload as the catalogue has it, scaled."""
        return load(WORKLOADS[self.workload], self.data, self.scale)

    def lengthen(self, loaded: LoadedWorkload) -> LoadedWorkload:
        """The same data and start for as many epochs as a timed round has."""
        n_epochs = max(round(self.scale * EPOCHS[self.workload]), 1)
        return replace(loaded, workload=replace(loaded.workload, n_epochs=n_epochs))


def rows_of(participant: str, task: Task) -> dict[str, OpenTrial]:
    """By name, the rows of a library among `PEERS`, of the default backend, or of one of its paths."""
    if participant in PEERS:
        return PEERS[participant]
    backend = backend_of(participant, task.device)
    if participant != DEFAULT:
        return {f"{OURS}, by {participant}": open_ours(backend)}
    with_tf32 = {f"{OURS}, TF32 permitted": open_ours(backend, "tf32")} if task.workload in WITH_TF32 else {}
    return {OURS: open_ours(backend)} | with_tf32


def open_ours(backend: Backend, precision: str = "fp32") -> OpenTrial:
    def open_trial(loaded: LoadedWorkload) -> BackendTrial:
        network = replace(loaded.spec.network, precision=precision)
        permitted = replace(loaded, spec=replace(loaded.spec, network=network))
        trial = BackendTrial(permitted, backend, n_usable_cpus())
        trial.dtype = "TF32 products" if precision == "tf32" else trial.dtype
        return trial

    return open_trial


@dataclass(frozen=True)
class Timing:
    """One row of a workload; `loss` is in nats, after the catalogue's epochs and after a timed round.

    `detail` is one line on how it computed. `agrees` says whether the first loss is what NumPy reaches in float64, up
    to the workload's tolerance; it is None until someone has computed that.
    """

    workload: str
    row: str
    detail: str
    device: str
    dtype: str
    n_steps: int
    microseconds_per_step: float
    best_microseconds_per_step: float
    first_call_seconds: float
    loss: float
    loss_of_a_round: float
    agrees: bool | None = None


# --- What new processes do: they yield the name of what they have found, and what it is ------------------------------


def look_for_device(device: str) -> Iterator[tuple[Availability, float, list[str]]]:
    """Yield whether there is one, how many seconds it took to start, and the paths that train on it."""
    start = time.perf_counter()
    availability = backend_of(DEFAULT, device).availability()
    seconds = time.perf_counter() - start
    yield availability, seconds, path_names() if availability.ok else []


def measure_path(path: str, task: Task, exact: NDArray[np.float64]) -> Iterator[tuple[str, Any]]:
    """Of a path or the default: "gradient error" and "repeatable", None where it makes none; then its rows."""
    backend, loaded = backend_of(path, task.device), task.load()
    yield "gradient error", gradient_error(backend, loaded, exact)
    yield "repeatable", check_repeatable(backend, loaded)
    yield from measure_rows(path, task, loaded)


def measure_rows(participant: str, task: Task, loaded: LoadedWorkload | None = None) -> Iterator[tuple[str, Any]]:
    """Of each row its "timing", or its name and why it is "absent" or has "failed"."""
    loaded = loaded or task.load()
    for name, open_trial in rows_of(participant, task).items():
        try:
            yield "timing", time_row(name, open_trial, loaded, task)
        except ModuleNotFoundError as error:
            yield "absent", (name, f"{error.name} is not installed")
        except (AbsentError, UnsupportedSpecError) as error:
            yield "absent", (name, str(error))
        except Exception as error:  # what a library says of a device that it cannot use
            yield "absent" if participant in PEERS else "failed", (name, describe(error))


def time_row(name: str, open_trial: OpenTrial, loaded: LoadedWorkload, task: Task) -> Timing:
    """Time a row by itself: a device that two programs share in turns would show how well they share it."""
    loss = loss_reached(open_trial, loaded)
    long = task.lengthen(loaded)
    trial, first_call_seconds = time_first_call(partial(open_trial, long))
    with closing(trial):
        time_alternately([trial], 1, at_least=min(WARM_UP, task.at_least))
        (seconds,) = time_alternately([trial], task.rounds, at_least=task.at_least)
        return Timing(
            workload=task.workload,
            row=name,
            detail=trial.detail,
            device=trial.device,
            dtype=trial.dtype,
            n_steps=long.n_steps,
            microseconds_per_step=1e6 * statistics.median(seconds) / long.n_steps,
            best_microseconds_per_step=1e6 * min(seconds) / long.n_steps,
            first_call_seconds=first_call_seconds,
            loss=loss,
            loss_of_a_round=long.loss(trial.parameters()),
        )


def loss_reached(open_trial: OpenTrial, loaded: LoadedWorkload) -> float:
    with closing(open_trial(loaded)) as trial:
        trial.run()
        return loaded.loss(trial.parameters())
