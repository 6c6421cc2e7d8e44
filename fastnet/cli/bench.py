"""``fastnet bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastnet.cli.options import ExistingOrNot, quiet_option, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fastnet.benchmarking import Comparison, MachineSpeed, Measurement

__all__ = ["bench"]

_ABOUT_ROOFLINES = """\
Bytes: samples and targets as they are stored, read once a step, and parameters and optimizer state, read and written
once. FLOPs: those of matrix products, two for each multiplication and addition, as if no feature were zero. Sparse data
need fewer, so what skips zeros may reach more than 100 % of the first bound; samples that stay in a cache are read
faster than memory is."""

# Where there is less room for the names of backends, lines are wider than the terminal.
_NARROWEST_NAMES = len("backend")


class _ListsWorkloads(click.Command):
    """Help that ends with the catalogue, which is not loaded for anybody else's help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        from fastnet.workloads import WORKLOADS

        with formatter.section("Workloads"):
            formatter.write_dl([(workload.name, workload.title) for workload in WORKLOADS.values()])


@click.command(cls=_ListsWorkloads)
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@click.option("--backend", "backends", multiple=True, help="May be given several times [all that can run].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:1.")
@click.option("--threads", "n_threads", type=click.IntRange(min=1), help="CPU threads [FASTNET_NUM_THREADS].")
@click.option("--data", type=ExistingOrNot, metavar="DIR", help="The folder of MNIST's files [FASTNET_DATA].")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Timings of each.")
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of samples and steps.")
@click.option("--peers", is_flag=True, help="Also PyTorch, JAX, scikit-learn and a NumPy script, on the CPU.")
@click.option("--explain", is_flag=True, help="Tell how each computed, and how near it came to the machine's limits.")
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
    peers: bool,
    explain: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure this machine's training speed on WORKLOADs (by default all), backends side by side."""
    from fastnet import benchmarking
    from fastnet.benchmarking.peers import PEERS
    from fastnet.workloads import WORKLOADS, find_workload

    chosen = [find_workload(name) for name in workloads or WORKLOADS]
    names, peer_names = list(backends) or _those_that_run(device), list(PEERS) if peers else []
    comparisons: dict[str, Comparison] = {}
    for workload in chosen:
        if not quiet and sys.stderr.isatty():
            click.echo(f"measuring {workload.name} on {', '.join(names + peer_names)} ...", err=True)
        comparisons[workload.name] = benchmarking.compare(
            workload, names, peer_names, data=data, scale=scale, rounds=rounds, device=device, n_threads=n_threads
        )
    measurements = [each for comparison in comparisons.values() for each in comparison.measurements]
    absent = {name: comparison.absent for name, comparison in comparisons.items()}
    speeds = benchmarking.measure_speeds(measurements) if explain else []
    if as_json:
        click.echo(to_json(benchmarking.as_json(measurements, speeds) | ({"absent": absent} if peers else {})))
    else:
        _print_results(measurements, absent, explain, speeds)
    if not all(measurement.agrees for measurement in measurements):
        click.echo("fastnet: one of them reached another loss than the reference: its speed means nothing", err=True)
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


def _print_results(
    measurements: list[Measurement], absent: dict[str, dict[str, str]], explain: bool, speeds: list[MachineSpeed]
) -> None:
    from rich.console import Console

    from fastnet.benchmarking import describe_machine

    console = Console(highlight=False)
    _print_table(console, _make_table(measurements))
    for line in _absences(absent):
        console.print(line, markup=False, soft_wrap=True)
    if explain:
        _print_explanations(console, measurements, speeds)
    for source in dict.fromkeys(f"{m.workload}: {m.data_source}" for m in measurements):
        console.print(source, style="dim")
    console.print(", ".join(f"{key} {value}" for key, value in _flat(describe_machine())), style="dim")


def _make_table(measurements: list[Measurement]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("workload", no_wrap=True)
    table.add_column("backend", overflow="fold")
    for heading in ("dtype", "threads", "ms/step", "best", "samples/s", "first\ncall, s", "loss\nreached"):
        table.add_column(heading, justify="right", no_wrap=True)
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
            f"{m.loss:.6g}" + ("" if m.agrees else f"\n(expected\n{m.expected_loss:.6g})"),
        )
    return table


def _print_table(console: Console, table: Table) -> None:
    """Print every figure whole: a terminal that is too narrow breaks the names of backends, and a file nothing."""
    from rich.console import Console
    from rich.measure import Measurement as Extent

    wide = Console(highlight=False, width=10_000)
    width, names = Extent.get(wide, wide.options, table).maximum, table.columns[1]
    if console.is_terminal and width > console.width:
        names_width = max(len(str(text)) for text in (names.header, *names.cells))
        names.width = max(_NARROWEST_NAMES, names_width - (width - console.width))
        width += names.width - names_width
    Console(highlight=False, width=width).print(table)


def _absences(absent: dict[str, dict[str, str]]) -> list[str]:
    """A line for each peer and reason; workloads are named where the peer is absent from some of them only."""
    where: dict[tuple[str, str], list[str]] = {}
    for workload, reasons in absent.items():
        for peer, reason in reasons.items():
            where.setdefault((peer, reason), []).append(workload)
    return [
        f"not {'here' if len(workloads) == len(absent) else 'for ' + ', '.join(workloads)}: {peer}, as {reason}"
        for (peer, reason), workloads in where.items()
    ]


def _print_explanations(console: Console, measurements: list[Measurement], speeds: list[MachineSpeed]) -> None:
    for measurement in measurements:
        console.print(
            f"\n{measurement.workload}, {measurement.backend}: {measurement.detail}", markup=False, soft_wrap=True
        )
        console.print(f"  {_describe_roofline(measurement, speeds)}", markup=False, soft_wrap=True)
    console.print()
    for speed in speeds:
        console.print(
            f"Measured here, {speed.dtype}, {speed.n_threads} threads: memory is read at "
            f"{_with_unit(speed.bytes_per_second, 'B/s')}, NumPy multiplies large matrices at "
            f"{_with_unit(speed.flops_per_second, 'FLOP/s')}."
        )
    console.print(_ABOUT_ROOFLINES.replace("\n", " "), style="dim")


def _describe_roofline(measurement: Measurement, speeds: list[MachineSpeed]) -> str:
    roofline, cost = measurement.roofline(speeds), measurement.step_cost
    needs = f"a step needs {_with_unit(cost.n_bytes, 'B')}", _with_unit(cost.flops, "FLOP")
    if roofline is None:
        return f"{' and '.join(needs)}; limits are measured for the CPU alone"
    times = roofline.memory_seconds, roofline.product_seconds
    parts = (f"{need} ({_with_unit(time, 's')})" for need, time in zip(needs, times, strict=True))
    text = f"{' and '.join(parts)}: {100 * roofline.fraction:.2g} % of the speed that this allows"
    if cost.flops_of_nonzeros == cost.flops:
        return text
    return (
        f"{text}; without products by zero {_with_unit(cost.flops_of_nonzeros, 'FLOP')} "
        f"({_with_unit(roofline.product_seconds_of_nonzeros, 's')}): {100 * roofline.fraction_of_nonzeros:.2g} %"
    )


def _with_unit(value: float, unit: str) -> str:
    """Three figures and a prefix: 0.00123 and "s" make "1.23 ms"."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-9:.3g} n{unit}"


def _flat(machine: dict[str, object]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in machine.items():
        pairs += _flat(value) if isinstance(value, dict) else [(key, value)]
    return pairs
