"""The CuPy backend on a GPU: is it right, is it repeatable, and how long does a step take beside PyTorch and JAX.

``python benchmarks/gpu.py --data DIR --out benchmarks/results`` writes ``gpu-TIME.json``, anew with every figure, so
that nothing is lost when it is interrupted. Figures are committed there once this has run on a GPU. It takes some
twenty minutes; ``--part`` cuts that into shorter runs. Exits with 1 where anything is wrong.

Each path of the backend is checked and timed by itself, too, where it can train what is asked: so it shows whether the
choice between them is right, and what belongs in the place of the estimates in `fastnet.backends.work`. Each of them
does so in a process of its own, as an error of its kernels would leave the device unfit for the others, and a kernel
that hangs would stop them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import click
from gpu_apart import BrokenOffError, run_apart
from gpu_checks import DEFAULT, check_parity, exact_gradient
from gpu_report import Report
from gpu_rows import EPOCHS, PEERS, Task, look_for_device, measure_path, measure_rows, rows_of
from rich.console import Console

from fastnet.benchmarking import describe_machine, n_usable_cpus
from fastnet.testing import conformance_checks
from fastnet.workloads import LoadedWorkload

# What is looked at, in this order: the paths on each workload; all of them by the conformance kit; the peers.
PARTS = ("paths", "parity", "peers")

# Processes that may break, one after the other, while they go through the checks of the conformance kit.
MOST_BROKEN = 5


def measure_paths(report: Report, task: Task, loaded: LoadedWorkload, paths: Sequence[str], seconds: float) -> None:
    exact = exact_gradient(loaded)
    for path in paths:
        try:
            for kind, found in run_apart(measure_path, path, task, exact, seconds=seconds):
                report.add_finding(loaded, path, kind, found)
        except BrokenOffError as error:
            report.add_end(task.workload, path, [*rows_of(path, task)], str(error))


def measure_peers(report: Report, task: Task, loaded: LoadedWorkload, seconds: float) -> None:
    for library, rows in PEERS.items():
        try:
            for kind, found in run_apart(measure_rows, library, task, seconds=seconds):
                report.add_finding(loaded, library, kind, found)
        except BrokenOffError as error:
            report.add_missing(report.absent, task.workload, [*rows], str(error))


def check_paths(report: Report, paths: Sequence[str], device: str, seconds: float) -> None:
    """As many processes at a time as there are CPUs: what takes long is to compile a module for every network."""
    names, n_cpus = [*conformance_checks()], n_usable_cpus()
    n_parts = max(n_cpus // len(paths), 1)
    with ThreadPoolExecutor(n_cpus) as pool:
        parts = [
            pool.submit(check_part, report, path, device, names[k::n_parts], seconds)
            for path in paths
            for k in range(n_parts)
        ]
        for part in parts:
            part.result()


def check_part(report: Report, path: str, device: str, names: Sequence[str], seconds: float) -> None:
    """Of the checks of the conformance kit; a new process goes on where one was broken off, or ended after an error."""
    left = list(names)
    for _ in range(MOST_BROKEN):
        try:
            for finding in run_apart(check_parity, path, device, left, seconds=seconds):
                report.add_check(path, *finding)
                left = left[1:]
        except BrokenOffError as error:
            for name in left[:1]:
                report.add_check(path, name, "failed", str(error))
            left = left[1:]
        if not left:
            return
    for name in left:
        report.add_check(path, name, "failed", f"not made, after errors in {MOST_BROKEN} processes")


@click.command()
@click.argument("workloads", nargs=-1, type=click.Choice(list(EPOCHS)))
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="The MNIST files; by default FASTNET_DATA.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for gpu-TIME.json.")
@click.option("--rounds", default=5, show_default=True, help="How often each row is timed, at least.")
@click.option("--at-least", default=0.5, show_default=True, help="Seconds for which each row is timed.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the samples and epochs to use.")
@click.option("--device", default="cuda", show_default=True, help="Of the CuPy backend; the peers take the first.")
@click.option("--path", "only", multiple=True, help="Path to look at beside the default; all of them, unless named.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, help="All, unless named.")
@click.option("--seconds", default=180.0, show_default=True, help="How long a check or a row may take.")
def main(
    workloads: tuple[str, ...],
    data: str | None,
    out: Path | None,
    rounds: int,
    at_least: float,
    scale: float,
    device: str,
    only: tuple[str, ...],
    parts: tuple[str, ...],
    seconds: float,
) -> None:
    """Check and time the CuPy backend on WORKLOADS, all by default."""
    console = Console()
    try:
        ((availability, start_seconds, all_paths),) = run_apart(look_for_device, device, seconds=seconds)
    except BrokenOffError as error:
        raise click.ClickException(str(error)) from error
    if not availability.ok:
        raise click.ClickException(availability.reason)
    console.print(f"{availability.reason}, started in {start_seconds:.2f} s")
    paths = [DEFAULT, *(name for name in all_paths if not only or name in only)]

    now = datetime.now(UTC)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    report = Report(
        path=None if out is None else out / f"gpu-{now:%Y-%m-%d-%H%M%S}.json",
        described={
            "date": now.date().isoformat(),
            "machine": describe_machine() | {"device": availability.devices[0]},
            "start_seconds": start_seconds,
        },
    )
    tasks = [Task(workload, data, scale, rounds, at_least, device) for workload in workloads or EPOCHS]
    load = cache(Task.load)
    for part in (part for part in PARTS if part in parts):
        if part == "parity":
            check_paths(report, paths, device, seconds)
            report.print_parity(console)
            continue
        for task in tasks:
            loaded = load(task)
            if part == "paths":
                measure_paths(report, task, loaded, paths, seconds)
                report.print_paths(console, task.workload)
            else:
                measure_peers(report, task, loaded, seconds)
            report.print_workload(console, loaded)
    sys.exit(0 if report.is_right else 1)


if __name__ == "__main__":
    main()
