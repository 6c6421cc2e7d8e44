"""The CuPy backend on a GPU: is it right, is it repeatable, and how long does a step take beside PyTorch and JAX.

``python benchmarks/gpu.py --data DIR --out benchmarks/results`` writes ``gpu-DATE.json``. Figures are committed there
once this has run on a GPU; it takes some minutes. Exits with 1 where anything is wrong.

Each path of the backend is checked and timed by itself, too, where it can train what is asked: so it shows whether the
choice between them is right, and what belongs in the place of the estimates in `fastnet.backends.work`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from gpu_checks import (
    EQUAL,
    LARGEST_GRADIENT_ERROR,
    OnePath,
    check_parity,
    check_repeatable,
    describe,
    exact_gradient,
    gradient_error,
    path_names,
)
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
    "tabular-adam": 3,
}

# Where most of a step is matrix products that are cuBLAS's.
WITH_TF32 = ("mnist-128", "deep-512")

OURS = "fastnet cupy"
LESS_PRECISE = ("TF32 permitted", "default precision")  # which need not reach the same loss


def rows(backend: Backend, paths: dict[str, OnePath], workload: str) -> dict[str, OpenTrial]:
    """Who takes part, by name."""
    ours = {OURS: open_ours(backend)} | {f"{OURS}, by {name}": open_ours(path) for name, path in paths.items()}
    if workload in WITH_TF32:
        ours[f"{OURS}, TF32 permitted"] = open_ours(backend, precision="tf32")
    return ours | {
        "PyTorch eager": partial(TorchOnDevice, mode="eager"),
        "PyTorch compiled": partial(TorchOnDevice, mode="compiled"),
        "PyTorch CUDA graph": partial(TorchOnDevice, mode="graph"),
        "JAX, highest precision": partial(JaxOnDevice, precision="highest"),
        "JAX, default precision": partial(JaxOnDevice, precision="default"),
    }


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
    to the workload's tolerance.
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
    agrees: bool


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
            detail=trial.detail,
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
    loaded: LoadedWorkload, open_rows: dict[str, OpenTrial], rounds: int, scale: float
) -> tuple[list[Timing], dict[str, str], dict[str, str]]:
    """All rows that can take part, the fastest first; why others are absent; and how rows of ours failed."""
    timings, absent, failed = [], {}, {}
    for name, open_trial in open_rows.items():
        try:
            timings.append(time_row(name, open_trial, loaded, rounds, scale))
        except ModuleNotFoundError as error:
            absent[name] = f"{error.name} is not installed"
        except (AbsentError, UnsupportedSpecError) as error:
            absent[name] = str(error)
        except Exception as error:  # what a library says of a device that it cannot use
            (failed if name.startswith(OURS) else absent)[name] = describe(error)
    return sorted(timings, key=lambda timing: timing.microseconds_per_step), absent, failed


def as_table(loaded: LoadedWorkload, timings: list[Timing]) -> Table:
    table = Table(
        title=f"{loaded.workload.name}: {loaded.workload.title}",
        caption=f"{loaded.data_source}; NumPy in float64 reaches {loaded.expected_loss:.7g}",
    )
    for heading in ("", "µs per step", "best", "÷ fastnet", "first call, s", "precision", "loss", "after a round"):
        table.add_column(heading, justify="left" if heading in ("", "precision") else "right")
    ours = next((timing.microseconds_per_step for timing in timings if timing.row == OURS), float("nan"))
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


def print_details(console: Console, timings: list[Timing], absent: dict[str, str], failed: dict[str, str]) -> None:
    for timing in timings:
        if timing.row.startswith(OURS):
            console.print(f"{timing.row}: {timing.detail}")
    for row, reason in absent.items():
        console.print(f"not here: {row}, as {reason}")
    for row, reason in failed.items():
        console.print(f"[red]{row}[/]: {reason}")


def mark(text: str, right: bool) -> str:
    return text if right else f"[red]{text}[/]"


@click.command()
@click.argument("workloads", nargs=-1, type=click.Choice(list(EPOCHS)))
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="The MNIST files; by default FASTNET_DATA.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for gpu-DATE.json.")
@click.option("--rounds", default=5, show_default=True, help="How often each row is timed.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the samples and epochs to use.")
@click.option("--device", default="cuda", show_default=True, help="Of the CuPy backend; the peers take the first.")
@click.option("--path", "only", multiple=True, help="Path to look at beside the default; all of them, unless named.")
def main(
    workloads: tuple[str, ...],
    data: str | None,
    out: Path | None,
    rounds: int,
    scale: float,
    device: str,
    only: tuple[str, ...],
) -> None:
    """Check and time the CuPy backend on WORKLOADS, all by default."""
    backend, console, start = create_backend("cupy", device), Console(), time.perf_counter()
    availability = backend.availability()
    start_seconds = time.perf_counter() - start
    if not availability.ok:
        raise click.ClickException(availability.reason)
    console.print(f"{availability.reason}, started in {start_seconds:.2f} s")
    paths = {name: OnePath(device, name) for name in path_names() if not only or name in only}
    backends = {"default": backend, **paths}

    parity = {}
    for path, each in backends.items():
        parity[path] = check_parity(each)
        console.print(f"parity with NumPy in float64, path {path}: {parity[path]}")
        for check, outcome in parity[path].failed.items():
            console.print(f"[red]{check}[/]: {outcome}")

    gradient_errors: dict[str, dict[str, float]] = {}
    repeatable: dict[str, dict[str, str]] = {}
    timings, absent, failed = [], {}, {}
    for workload in workloads or EPOCHS:
        loaded = load(WORKLOADS[workload], data, scale)
        exact = exact_gradient(loaded)
        errors = {path: gradient_error(each, loaded, exact) for path, each in backends.items()}
        gradient_errors[workload] = {path: error for path, error in errors.items() if error is not None}
        found = {path: check_repeatable(each, loaded) for path, each in backends.items()}
        repeatable[workload] = {path: outcome for path, outcome in found.items() if outcome is not None}
        open_rows = rows(backend, paths, workload)
        timed, absent[workload], failed[workload] = time_workload(loaded, open_rows, rounds, scale)
        timings += timed
        console.print(as_table(loaded, timed))
        print_details(console, timed, absent[workload], failed[workload])
        for path, outcome in repeatable[workload].items():
            error = gradient_errors[workload][path]
            of_gradient = mark(f"{error:.1e}", error <= LARGEST_GRADIENT_ERROR)
            of_runs = mark(outcome, outcome == EQUAL)
            console.print(f"path {path}: the gradient's relative error is {of_gradient}; two runs are {of_runs}")

    if out is not None:
        date = datetime.now(UTC).date().isoformat()
        described = {
            "date": date,
            "machine": describe_machine() | {"device": availability.devices[0]},
            "start_seconds": start_seconds,
            "parity": {name: asdict(each) for name, each in parity.items()},
            "gradient_errors": gradient_errors,
            "repeatable": repeatable,
            "timings": [asdict(timing) for timing in timings],
            "absent": absent,
            "failed": failed,
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / f"gpu-{date}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    agree = all(timing.agrees for timing in timings if not timing.row.endswith(LESS_PRECISE))
    exact_enough = all(
        error <= LARGEST_GRADIENT_ERROR for errors in gradient_errors.values() for error in errors.values()
    )
    equal = all(outcome == EQUAL for outcomes in repeatable.values() for outcome in outcomes.values())
    wrong = any(each.failed for each in parity.values()) or any(failed.values())
    sys.exit(0 if agree and exact_enough and equal and not wrong else 1)


if __name__ == "__main__":
    main()
