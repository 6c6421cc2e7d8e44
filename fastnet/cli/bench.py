"""``fastnet bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastnet.cli.options import ExistingOrNot, quiet_option, to_json

if TYPE_CHECKING:
    from fastnet.benchmarking import Measurement

__all__ = ["bench"]


@click.command()
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@click.option("--backend", "backends", multiple=True, help="May be given several times [all that can run].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:1.")
@click.option("--threads", "n_threads", type=click.IntRange(min=1), help="CPU threads [FASTNET_NUM_THREADS].")
@click.option("--data", type=ExistingOrNot, metavar="DIR", help="The folder of MNIST's files [FASTNET_DATA].")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Timings of each.")
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of samples and steps.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@quiet_option
def bench(
    workloads: tuple[str, ...],
    backends: tuple[str, ...],
    device: str,
    n_threads: int | None,
    data: Path | None,
    rounds: int,
    scale: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure this machine's training speed on WORKLOADs (by default all), backends side by side."""
    from fastnet import benchmarking
    from fastnet.workloads import WORKLOADS, find_workload

    chosen = [find_workload(name) for name in workloads or WORKLOADS]
    names = list(backends) or _those_that_run(device)
    measurements: list[Measurement] = []
    for workload in chosen:
        if not quiet and sys.stderr.isatty():
            click.echo(f"measuring {workload.name} on {', '.join(names)} ...", err=True)
        measurements += benchmarking.measure(
            workload, names, data=data, scale=scale, rounds=rounds, device=device, n_threads=n_threads
        )
    if as_json:
        click.echo(to_json(benchmarking.as_json(measurements)))
    else:
        _print_table(measurements)
    if not all(measurement.agrees for measurement in measurements):
        click.echo("fastnet: a backend reached another loss than the reference: its speed means nothing", err=True)
        sys.exit(1)


def _those_that_run(device: str) -> list[str]:
    from fastnet.backends.registry import backend_names, create_backend
    from fastnet.errors import BackendUnavailableError

    runs = []
    for name in backend_names():
        try:
            if create_backend(name, device).availability().ok:
                runs.append(name)
        except BackendUnavailableError:
            continue
    return runs


def _print_table(measurements: list[Measurement]) -> None:
    from rich.console import Console
    from rich.table import Table

    from fastnet.benchmarking import describe_machine

    table = Table(box=None, pad_edge=False)
    for heading in ("workload", "backend"):
        table.add_column(heading)
    for heading in ("dtype", "threads", "ms/step", "best", "samples/s", "first call, s", "loss reached"):
        table.add_column(heading, justify="right")
    for m in measurements:
        table.add_row(
            m.workload,
            f"{m.backend} ({m.device})",
            m.dtype,
            str(m.n_threads),
            f"{m.ms_per_step:.4g}",
            f"{m.best_ms_per_step:.4g}",
            f"{m.samples_per_second:,.0f}",
            f"{m.first_call_seconds:.2f}",
            f"{m.loss:.6g}" + ("" if m.agrees else f" (expected {m.expected_loss:.6g})"),
        )
    console = Console()
    console.print(table)
    for source in dict.fromkeys(f"{m.workload}: {m.data_source}" for m in measurements):
        console.print(source, style="dim", highlight=False)
    console.print(", ".join(f"{key} {value}" for key, value in _flat(describe_machine())), style="dim", highlight=False)


def _flat(machine: dict[str, object]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in machine.items():
        pairs += _flat(value) if isinstance(value, dict) else [(key, value)]
    return pairs
