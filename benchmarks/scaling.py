"""How the time of a step grows with samples, width, depth and threads: ``python benchmarks/scaling.py --out DIR``.

Writes ``scaling-DATE.json``, ``.md`` and ``.png``, of the Numba backend and the full batch; it takes some minutes.
"""

# Legend: N samples, D features.

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from fastnet.backends.interface import TrainingPlan
from fastnet.backends.registry import create_backend
from fastnet.benchmarking import count_step, describe_machine, n_usable_cpus
from fastnet.data import Dataset
from fastnet.initializers import initialize
from fastnet.optimizers import SGD
from fastnet.parameters import ParameterLayout
from fastnet.plotting.style import BLUE, DASHES, INK, new_figure, tidy, title
from fastnet.spec import NetworkSpec, TrainingSpec

BACKEND = "numba"
N_FEATURES, N_CLASSES = 64, 10
LEARNING_RATE = 0.05
ROUNDS = 5
SECONDS_PER_ROUND = 0.2


@dataclass(frozen=True)
class Case:
    """A network, as the widths of its hidden layers, on so many samples, by so many threads."""

    n_samples: int
    hidden: tuple[int, ...]
    n_threads: int


@dataclass(frozen=True)
class Sweep:
    """One panel: cases that differ in one number, `values`, and in nothing else."""

    name: str
    title: str
    values: list[int]
    cases: list[Case]


@dataclass(frozen=True)
class Point:
    """The time of one case; `flops_per_second` counts matrix products, as `fastnet.benchmarking.count_step` does."""

    value: int
    case: Case
    seconds_per_step: float
    best_seconds_per_step: float
    flops_per_second: float


def sweeps(scale: float, n_cpus: int) -> list[Sweep]:
    """The four sweeps; `scale` multiplies all numbers of samples."""
    samples = [max(round(scale * n), N_CLASSES) for n in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)]
    few, many = samples[2], samples[4]
    widths, depths = [16, 32, 64, 128, 256, 512, 1024], [1, 2, 4, 8]
    threads = sorted({*(2**k for k in range(n_cpus.bit_length())), n_cpus})
    return [
        Sweep("samples", "one hidden layer of 16", samples, [Case(n, (16,), n_cpus) for n in samples]),
        Sweep("width", f"one hidden layer, {few:,} samples", widths, [Case(few, (n,), n_cpus) for n in widths]),
        Sweep("depth", f"hidden layers of 64, {few:,} samples", depths, [Case(few, (64,) * n, n_cpus) for n in depths]),
        Sweep("threads", f"one hidden layer of 64, {many:,} samples", threads, [Case(many, (64,), n) for n in threads]),
    ]


def draw_samples(n_samples: int) -> Dataset:
    """Standard normal X (N, D) in float32, and the largest of some mixtures of its features for a label."""
    random = np.random.default_rng(0)
    x = random.standard_normal((n_samples, N_FEATURES), np.float32)
    mixture = random.standard_normal((N_FEATURES, N_CLASSES), np.float32)
    return Dataset(x, (x @ mixture).argmax(axis=1).astype(np.int32))


def measure(sweep: Sweep, samples: Dataset, seconds_per_round: float) -> Iterator[Point]:
    """Time each case of a sweep, on the first of the samples."""
    for value, case in zip(sweep.values, sweep.cases, strict=True):
        dataset = Dataset(samples.x[: case.n_samples], samples.targets[: case.n_samples])
        network = NetworkSpec((N_FEATURES, *case.hidden, N_CLASSES), ("relu",) * len(case.hidden))
        spec = TrainingSpec(network, SGD(LEARNING_RATE), task="multiclass")
        start = initialize(ParameterLayout.of(network), "he_normal", "zeros", np.random.default_rng(0), network.dtype)
        backend = create_backend(BACKEND, "cpu", case.n_threads)
        with closing(backend.plan_training(spec, start, dataset)) as plan:
            times = time_steps(plan, seconds_per_round)
        typical = statistics.median(times)
        yield Point(value, case, typical, min(times), count_step(spec, dataset).flops / typical)


def time_steps(plan: TrainingPlan, seconds_per_round: float) -> list[float]:
    """Seconds per step of each round, after a first step that compiles and a second that tells how many to make."""
    train(plan, 1)
    n_steps = math.ceil(seconds_per_round / train(plan, 1))
    return [train(plan, n_steps) / n_steps for _ in range(ROUNDS)]


def train(plan: TrainingPlan, n_steps: int) -> float:
    """Seconds that so many steps take."""
    start = time.perf_counter()
    loss = plan.run(np.full(n_steps, LEARNING_RATE)).loss
    seconds = time.perf_counter() - start
    assert np.isfinite(loss).all(), "training diverged: its speed means nothing"
    return seconds


def draw(measured: dict[str, list[Point]], titles: dict[str, str]) -> Any:
    """A figure with a panel for each sweep, both scales logarithmic."""
    from matplotlib.ticker import LogLocator

    figure = new_figure(8.5, 6.4)
    for ax, (name, points) in zip(figure.subplots(2, 2).flat, measured.items(), strict=True):
        values, times = [point.value for point in points], [1e3 * point.seconds_per_step for point in points]
        expected = proportion(name, values, times)
        ax.plot(values, expected, color=INK, linewidth=1, linestyle=DASHES, label="in proportion")
        ax.plot(values, times, color=BLUE, linewidth=1.8, marker="o", markersize=4, label="measured")
        ax.set(xscale="log", yscale="log", xlabel=name, ylabel="ms per step")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ticks = values[:: 1 + len(values) // 6]
        ax.set_xticks(ticks, [f"{value:,}" for value in ticks])
        title(ax, titles[name])
        tidy(ax)
    figure.axes[0].legend(frameon=False)
    return figure


def proportion(name: str, values: list[int], times: list[float]) -> list[float]:
    """A slope to compare with: times in proportion to the values, or for threads, in inverse proportion."""
    if name == "threads":
        return [times[0] * values[0] / value for value in values]
    return [times[-1] * value / values[-1] for value in values]


def as_markdown(date: str, machine: dict[str, Any], measured: dict[str, list[Point]], titles: dict[str, str]) -> str:
    lines = [
        f"# How the time of a step grows, {date}",
        "",
        f"{machine['processor']}, {machine['n_cpus']} CPUs used, {machine['system']}, Python {machine['python']}.",
        "",
        f"fastnet's Numba backend, full batch, {N_FEATURES} dense float32 features, {N_CLASSES} classes, relu.",
        f"Medians of {ROUNDS} rounds; GFLOP/s counts matrix products.",
        "",
        f"![Time per step against samples, width, depth and threads](scaling-{date}.png)",
    ]
    for name, points in measured.items():
        lines += ["", f"## {name}: {titles[name]}", "", f"| {name} | ms per step | best | GFLOP/s |"]
        lines += ["|---:|---:|---:|---:|"]
        for p in points:
            times = f"{1e3 * p.seconds_per_step:.4g} | {1e3 * p.best_seconds_per_step:.4g}"
            lines.append(f"| {p.value:,} | {times} | {p.flops_per_second / 1e9:.3g} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of samples and time.")
def main(out: Path, scale: float) -> None:
    """Measure, and write figures and a picture."""
    chosen = sweeps(scale, n_usable_cpus())
    samples = draw_samples(max(case.n_samples for sweep in chosen for case in sweep.cases))
    titles = {sweep.name: sweep.title for sweep in chosen}
    measured = {sweep.name: list(measure(sweep, samples, scale * SECONDS_PER_ROUND)) for sweep in chosen}
    date, machine = datetime.now(UTC).date().isoformat(), describe_machine()
    written = {
        "date": date,
        "machine": machine,
        "n_features": N_FEATURES,
        "sweeps": {
            name: {"title": titles[name], "points": [asdict(point) for point in points]}
            for name, points in measured.items()
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"scaling-{date}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    (out / f"scaling-{date}.md").write_text(as_markdown(date, machine, measured, titles), encoding="utf-8")
    draw(measured, titles).savefig(out / f"scaling-{date}.png")
    click.echo(f"{out / f'scaling-{date}'}.json, .md and .png")


if __name__ == "__main__":
    main()
