"""Tables from pytest-benchmark's JSON: ``python benchmarks/report.py RAW.json --out benchmarks/results``.

Writes ``NAME-DATE.md`` and ``NAME-DATE.json``, which hold what was measured and on what, and neither the name of the
host nor any path.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from drop_in import GROUP as DROP_IN
from drop_in import DropIn, as_lines, read_drop_in

# The row that "auto" takes on a CPU, with a suffix where it appears more than once.
SUBJECT = "fastnet numba"
OURS = "fastnet "

INTRODUCTION = """\
Every row of a table starts from the same weights, sees the same data in the same order, and reaches the same loss as
NumPy in float64, or the run fails. Rows take turns: all have a round before any has another, each after a quarter of a
second in which threads of others come to rest, and right after a round that is not timed. There are five rounds, and
more where they are short: a minute and a half of them. Times are medians over rounds; *best* is the fastest round.
Ratios are times divided by that of another row of the same table: below 1 is faster than that row, above 1 slower. The
*first call* binds the data, compiles what no earlier run has left on disk, and trains one round; imports are not in
it. Peers compute what an update needs; fastnet's rows report loss and accuracy of each step besides. The table
*first-fit* is about whole processes, from start to end, none of which comes after another of its own."""


@dataclass(frozen=True)
class Row:
    """One line of a table; `time` and `best` are in the unit of its group."""

    name: str
    time: float
    best: float
    loss: float
    device: str | None
    dtype: str | None
    n_threads: int | None
    first_call_seconds: float | None
    ratio_to_fastnet: float | None = None
    ratio_to_best_peer: float | None = None

    @property
    def is_peer(self) -> bool:
        """Whether this is what someone would use instead."""
        return not self.name.startswith(OURS)


@dataclass(frozen=True)
class Group:
    """One table: rows by time, the fastest first, and what is absent, with the reason."""

    name: str
    title: str
    unit: str
    data_source: str
    n_samples: int
    n_steps: int
    rows: list[Row]
    absent: dict[str, str]


def read_groups(raw: dict[str, Any]) -> list[Group]:
    """Groups of pytest-benchmark's JSON, in the order in which they ran."""
    measured = {benchmark["group"]: benchmark["extra_info"] for benchmark in raw["benchmarks"]}
    return [_read_group(name, info) for name, info in measured.items() if name != DROP_IN]  # a table of another kind


def _read_group(name: str, info: dict[str, Any]) -> Group:
    whole_process = "first_call_seconds" not in info["rows"][0]
    unit, factor = ("seconds", 1.0) if whole_process else ("ms per step", 1e3 / info["n_steps"])
    rows = [_read_row(row, factor) for row in info["rows"]]
    return Group(
        name=name,
        title=info["title"],
        unit=unit,
        data_source=info["data_source"],
        n_samples=info["n_samples"],
        n_steps=info["n_steps"],
        rows=_with_ratios(sorted(rows, key=lambda row: row.time)),
        absent=info["absent"],
    )


def _read_row(row: dict[str, Any], factor: float) -> Row:
    return Row(
        name=row["row"],
        time=factor * statistics.median(row["seconds"]),
        best=factor * min(row["seconds"]),
        loss=row["loss"],
        device=row.get("device"),
        dtype=row.get("dtype"),
        n_threads=row.get("n_threads"),
        first_call_seconds=row.get("first_call_seconds"),
    )


def _with_ratios(rows: list[Row]) -> list[Row]:
    """`rows`, sorted by time, with each one's time over that of fastnet's subject and over that of the fastest peer."""
    subject, peer = _first(rows, _is_subject), _first(rows, lambda row: row.is_peer)
    return [
        Row(
            **asdict(row)
            | {
                "ratio_to_fastnet": row.time / subject.time if subject else None,
                "ratio_to_best_peer": row.time / peer.time if peer else None,
            }
        )
        for row in rows
    ]


def _is_subject(row: Row) -> bool:
    return row.name.startswith(SUBJECT)


def _first(rows: list[Row], condition: Callable[[Row], bool]) -> Row | None:
    return next(filter(condition, rows), None)


def verdicts(group: Group) -> list[str]:
    """How each of the subject's rows stands against the fastest peer, and the best one against fastnet's others."""
    subjects = [row for row in group.rows if _is_subject(row)]
    peer = _first(group.rows, lambda row: row.is_peer)
    lines = [_compare(subject, peer, f"the fastest peer, {peer.name}") for subject in subjects if peer]
    others = [row for row in group.rows if not row.is_peer and not _is_subject(row)]
    faster = [(subject, row) for subject in subjects[:1] for row in others if row.time < subject.time]
    return lines + [_compare(subject, row, row.name) for subject, row in faster]


def _compare(subject: Row, other: Row, called: str) -> str:
    if subject.time <= other.time:
        return f"{subject.name} is {other.time / subject.time:.2f} times as fast as {called}."
    return f"**Slower here:** {subject.name} takes {subject.time / other.time:.2f} times as long as {called}."


def as_markdown(date: str, machine: dict[str, Any], groups: list[Group], drop_in: DropIn | None = None) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"# Benchmarks of {date}",
        "",
        f"{machine['processor']}, {machine['n_cpus']} CPUs used, {machine['system']}, Python {machine['python']}.",
        f"Versions: {versions}.",
    ]
    if groups:
        lines += ["", INTRODUCTION]
    for group in groups:
        lines += ["", *_group_lines(group)]
    if drop_in:
        lines += ["", *as_lines(drop_in)]
    return "\n".join(lines) + "\n"


def _group_lines(group: Group) -> list[str]:
    per_step = group.unit != "seconds"
    header = ["", group.unit, "best", "÷ fastnet numba", "÷ fastest peer", "loss reached"]
    header += ["first call, s", "dtype", "threads"] if per_step else []
    return [
        f"## {group.name}: {group.title}",
        "",
        f"Data: {group.data_source}; {group.n_samples:,} samples, {group.n_steps:,} steps a round.",
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
        *(f"| {' | '.join(_cells(row, per_step))} |" for row in group.rows),
        "",
        *(f"- {line}" for line in verdicts(group)),
        *(f"- Not here: {row}, as {reason}." for row, reason in group.absent.items()),
    ]


def _cells(row: Row, per_step: bool) -> list[str]:
    cells = [row.name if row.is_peer else f"**{row.name}**", f"{row.time:.4g}", f"{row.best:.4g}"]
    cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio_to_fastnet, row.ratio_to_best_peer)]
    cells.append(f"{row.loss:.6g}")
    if per_step:
        cells += [f"{row.first_call_seconds:.2f}", str(row.dtype), str(row.n_threads)]
    return cells


@click.command()
@click.argument("raw", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("benchmarks/results"))
@click.option("--name", default="cpu", show_default=True, help="What the files are called, before the date.")
def main(raw: Path, out: Path, name: str) -> None:
    """Turn pytest-benchmark's JSON into a table and a short JSON file."""
    measured = json.loads(raw.read_text(encoding="utf-8"))
    date, machine = measured["datetime"][:10], measured["machine_info"]
    groups, drop_in = read_groups(measured), read_drop_in(measured)
    described = {"date": date, "machine": machine, "groups": [asdict(group) for group in groups]}
    if drop_in:
        described["drop_in"] = asdict(drop_in)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}-{date}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}-{date}.md").write_text(as_markdown(date, machine, groups, drop_in), encoding="utf-8")
    click.echo(f"{out / f'{name}-{date}'}.md and .json")


if __name__ == "__main__":
    main()
