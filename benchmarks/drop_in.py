"""The table of the drop-in estimators, from what ``bench_sklearn.py`` measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

GROUP = "drop-in"

INTRODUCTION = """\
Both libraries did the same work in turns, a quarter of a second after the other had finished, with the same
`random_state`, X of the same dtype, and default parameters but for those named. Both trained for as many epochs, to
scores within 0.005 and losses within a thousandth of each other (in float32, where rounding errors grow, those after
five epochs), or the run failed. Times are medians over rounds; in brackets stand the tenth and the ninetieth
percentile, which of few rounds are the fastest and the slowest. Compiled code was loaded before, except in whole
processes, which find it on disk. *Backend* is what "auto" chose to train on."""


@dataclass(frozen=True)
class Times:
    """Seconds of some rounds: the median one, and the tenth and ninetieth percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """Of each round's seconds."""
        low, high = np.quantile(seconds, [0.1, 0.9], method="nearest").tolist()
        return cls(statistics.median(seconds), low, high)

    def __str__(self) -> str:
        return f"{duration(self.median)} ({duration(self.low)} to {duration(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """One line of the table; `times_as_fast` is scikit-learn's median time over fastnet's."""

    name: str
    title: str
    dtype: str
    n_samples: int
    n_features: int
    n_iter: int
    loss: float
    backend: str | None
    scikit_learn: Times
    fastnet: Times
    times_as_fast: float


@dataclass(frozen=True)
class DropIn:
    """The table: comparisons in the order in which they ran, and what is absent, with the reason."""

    comparisons: list[Comparison]
    absent: dict[str, str]


def read_drop_in(raw: dict[str, Any]) -> DropIn | None:
    """What pytest-benchmark's JSON tells of drop-in estimators; None if they were not measured."""
    infos = [benchmark["extra_info"] for benchmark in raw["benchmarks"] if benchmark["group"] == GROUP]
    return DropIn([_read_comparison(info) for info in infos], raw.get("absent", {})) if infos else None


def _read_comparison(info: dict[str, Any]) -> Comparison:
    seconds = info["seconds"]
    theirs, ours = Times.of(seconds["scikit-learn"]), Times.of(seconds["fastnet"])
    described = {name: value for name, value in info.items() if name != "seconds"}
    return Comparison(**described, scikit_learn=theirs, fastnet=ours, times_as_fast=theirs.median / ours.median)


def as_lines(table: DropIn) -> list[str]:
    """Markdown, under a heading of its own."""
    header = ["", "X", "dtype", "scikit-learn", "fastnet", "times as fast", "backend", "epochs", "loss reached"]
    return [
        "## Drop-in estimators: fastnet.sklearn in place of sklearn.neural_network",
        "",
        INTRODUCTION,
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
        *(f"| {' | '.join(_cells(each))} |" for each in table.comparisons),
        "",
        *(f"- {_verdict(each)}" for each in table.comparisons if each.times_as_fast < 1),
        *(f"- Not here: {name}, as {reason}." for name, reason in table.absent.items()),
    ]


def _cells(each: Comparison) -> list[str]:
    cells = [each.title, f"{each.n_samples:,} by {each.n_features}", each.dtype, str(each.scikit_learn)]
    cells += [str(each.fastnet), f"{each.times_as_fast:.2f}", each.backend or "-"]
    return [*cells, str(each.n_iter), f"{each.loss:.6g}"]


def _verdict(each: Comparison) -> str:
    ratio = 1 / each.times_as_fast
    return f"**Slower here:** {each.title} ({each.dtype}) takes {ratio:.2f} times as long with fastnet."


def as_short_table(comparisons: list[dict[str, Any]]) -> str:
    """Markdown for the README from comparisons of a report: median times, in bold where fastnet is faster."""
    lines = ["| | X | scikit-learn | fastnet | times as fast |", "|---|---:|---:|---:|---:|"]
    for each in comparisons:
        x = f"{each['n_samples']:,} by {each['n_features']}, {each['dtype']}"
        times = (duration(each[library]["median"]) for library in ("scikit_learn", "fastnet"))
        ratio = f"{each['times_as_fast']:.2f}"
        verdict = f"**{ratio}**" if each["times_as_fast"] > 1 else ratio
        lines.append(f"| {each['title']} | {x} | {' | '.join(times)} | {verdict} |")
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """Three figures, in the largest of seconds, milliseconds and microseconds that makes one or more of them."""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit = next((unit for unit, size in units.items() if seconds >= size), "µs")
    figures = float(f"{seconds / units[unit]:.3g}")  # rounded first, as g would write 1000 as 1e+03
    return f"{figures:g} {unit}"
