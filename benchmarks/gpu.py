"""The CuPy backend on a GPU: is it right, is it repeatable, and how long does a step take beside PyTorch and JAX.

``python benchmarks/gpu.py --data DIR --out benchmarks/results`` writes ``gpu-DATE.json``. Figures are committed there
once this has run on a GPU; it takes some minutes. Exits with 1 where anything is wrong.
"""

from __future__ import annotations

import json
import statistics
import sys
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
import numpy as np
from gpu_peers import JaxOnDevice, TorchOnDevice
from rich.console import Console
from rich.table import Table

from fastnet.backends.interface import Backend
from fastnet.backends.registry import create_backend
from fastnet.benchmarking import (
    BackendTrial,
    OpenTrial,
    describe_machine,
    n_usable_cpus,
    time_alternately,
    time_first_call,
)
from fastnet.benchmarking.peers import AbsentError
from fastnet.workloads import WORKLOADS, LoadedWorkload, load

# Epochs of a timed round: on a GPU the catalogue's would be over before the clock has ticked often enough.
EPOCHS = {
    "mnist-16": 1000,
    "mnist-128": 500,
    "deep-512": 50,
    "moons": 2000,
    "sum": 2000,
    "digits-adam": 5,
    "tabular-adam": 3,
}


def rows(backend: Backend) -> dict[str, OpenTrial]:
    """Who takes part, by name."""
    return {
        "fastnet cupy": lambda loaded: BackendTrial(loaded, backend, n_usable_cpus()),
        "PyTorch eager": partial(TorchOnDevice, mode="eager"),
        "PyTorch compiled": partial(TorchOnDevice, mode="compiled"),
        "PyTorch CUDA graph": partial(TorchOnDevice, mode="graph"),
        "JAX, highest precision": partial(JaxOnDevice, precision="highest"),
        "JAX, default precision": partial(JaxOnDevice, precision="default"),
    }


@dataclass(frozen=True)
class Timing:
    """One row of a workload; `loss` is in nats, after the catalogue's epochs and after a timed round.

    `agrees` says whether the first is what NumPy reaches in float64, up to the workload's tolerance.
    """

    workload: str
    row: str
    device: str
    dtype: str
    n_steps: int
    microseconds_per_step: float
    best_microseconds_per_step: float
    first_call_seconds: float
    loss: float
    loss_of_a_round: float
    agrees: bool


def check_parity(backend: Backend) -> dict[str, str]:
    """Every check of the conformance kit: name -> "passed", or how it failed."""
    from fastnet.testing import conformance_checks

    outcomes = {}
    for name, check in conformance_checks().items():
        try:
            check(backend)
            outcomes[name] = "passed"
        except AssertionError as error:
            outcomes[name] = str(error)
    return outcomes


def check_repeatable(backend: Backend, loaded: LoadedWorkload) -> bool:
    """Whether two plans, run one after the other, reach the same parameters, bit for bit."""
    reached = []
    for _ in range(2):
        with closing(BackendTrial(loaded, backend, n_usable_cpus())) as trial:
            trial.run()
            reached.append(trial.parameters().flat)
    return np.array_equal(*reached)


def lengthen(loaded: LoadedWorkload, scale: float) -> LoadedWorkload:
    """The same data and start for as many epochs as a timed round has."""
    n_epochs = max(round(scale * EPOCHS[loaded.workload.name]), 1)
    return replace(loaded, workload=replace(loaded.workload, n_epochs=n_epochs))


def loss_reached(open_trial: OpenTrial, loaded: LoadedWorkload) -> float:
    with closing(open_trial(loaded)) as trial:
        trial.run()
        return loaded.loss(trial.parameters())


def time_row(name: str, open_trial: OpenTrial, loaded: LoadedWorkload, rounds: int, scale: float) -> Timing:
    """Time a row by itself: a device that two programs share in turns would show how well they share it."""
    loss = loss_reached(open_trial, loaded)
    long = lengthen(loaded, scale)
    trial, first_call_seconds = time_first_call(partial(open_trial, long))
    with closing(trial):
        (seconds,) = time_alternately([trial], rounds)
        return Timing(
            workload=loaded.workload.name,
            row=name,
            device=trial.device,
            dtype=trial.dtype,
            n_steps=long.n_steps,
            microseconds_per_step=1e6 * statistics.median(seconds) / long.n_steps,
            best_microseconds_per_step=1e6 * min(seconds) / long.n_steps,
            first_call_seconds=first_call_seconds,
            loss=loss,
            loss_of_a_round=long.loss(trial.parameters()),
            agrees=loaded.agrees(loss),
        )


def time_workload(
    loaded: LoadedWorkload, backend: Backend, rounds: int, scale: float
) -> tuple[list[Timing], dict[str, str]]:
    """All rows that can take part, the fastest first, and why the others cannot."""
    timings, absent = [], {}
    for name, open_trial in rows(backend).items():
        try:
            timings.append(time_row(name, open_trial, loaded, rounds, scale))
        except ModuleNotFoundError as error:
            absent[name] = f"{error.name} is not installed"
        except (AbsentError, RuntimeError) as error:  # of the latter, what a library says of a device it cannot use
            absent[name] = str(error).partition("\n")[0]
    return sorted(timings, key=lambda timing: timing.microseconds_per_step), absent


def as_table(loaded: LoadedWorkload, timings: list[Timing]) -> Table:
    table = Table(
        title=f"{loaded.workload.name}: {loaded.workload.title}",
        caption=f"{loaded.data_source}; NumPy in float64 reaches {loaded.expected_loss:.7g}",
    )
    for heading in ("", "µs per step", "best", "÷ fastnet", "first call, s", "precision", "loss", "after a round"):
        table.add_column(heading, justify="left" if heading in ("", "precision") else "right")
    ours = next(timing.microseconds_per_step for timing in timings if timing.row.startswith("fastnet"))
    for timing in timings:
        table.add_row(
            timing.row,
            f"{timing.microseconds_per_step:.1f}",
            f"{timing.best_microseconds_per_step:.1f}",
            f"{timing.microseconds_per_step / ours:.2f}",
            f"{timing.first_call_seconds:.2f}",
            timing.dtype,
            f"{timing.loss:.7g}" + ("" if timing.agrees else " (differs)"),
            f"{timing.loss_of_a_round:.7g}",
        )
    return table


@click.command()
@click.argument("workloads", nargs=-1, type=click.Choice(list(EPOCHS)))
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="The MNIST files; by default FASTNET_DATA.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for gpu-DATE.json.")
@click.option("--rounds", default=5, show_default=True, help="How often each row is timed.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the samples and epochs to use.")
@click.option("--device", default="cuda", show_default=True, help="Of the CuPy backend; the peers take the first.")
def main(
    workloads: tuple[str, ...], data: str | None, out: Path | None, rounds: int, scale: float, device: str
) -> None:
    """Check and time the CuPy backend on WORKLOADS, all by default."""
    backend, console = create_backend("cupy", device), Console()
    availability = backend.availability()
    if not availability.ok:
        raise click.ClickException(availability.reason)
    console.print(availability.reason)

    parity = check_parity(backend)
    failed = {name: outcome for name, outcome in parity.items() if outcome != "passed"}
    console.print(f"parity with NumPy in float64: {len(parity) - len(failed)} of {len(parity)} checks passed")
    for name, outcome in failed.items():
        console.print(f"[red]{name}[/]: {outcome}")

    repeatable, timings, absent = {}, [], {}
    for name in workloads or EPOCHS:
        loaded = load(WORKLOADS[name], data, scale)
        repeatable[name] = check_repeatable(backend, loaded)
        timed, absent[name] = time_workload(loaded, backend, rounds, scale)
        timings += timed
        console.print(as_table(loaded, timed))
        console.print(f"two runs are {'' if repeatable[name] else '[red]not[/] '}equal bit for bit")
        for row, reason in absent[name].items():
            console.print(f"not here: {row}, as {reason}")

    if out is not None:
        date = datetime.now(UTC).date().isoformat()
        described = {
            "date": date,
            "machine": describe_machine() | {"device": availability.devices[0]},
            "parity": {"n_passed": len(parity) - len(failed), "failed": failed},
            "repeatable": repeatable,
            "timings": [asdict(timing) for timing in timings],
            "absent": absent,
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / f"gpu-{date}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    agree = all(timing.agrees for timing in timings if "default precision" not in timing.row)
    sys.exit(0 if agree and not failed and all(repeatable.values()) else 1)


if __name__ == "__main__":
    main()
