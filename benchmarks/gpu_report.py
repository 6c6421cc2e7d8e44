"""What the benchmark on a GPU has found so far: a file that is never behind, tables, and whether anything is wrong."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from gpu_checks import EQUAL, LARGEST_GRADIENT_ERROR, Parity
from gpu_rows import LESS_PRECISE, OURS, Timing
from rich.console import Console
from rich.table import Table

from fastnet.workloads import LoadedWorkload


@dataclass
class Report:
    """All figures, and what stood against others; written anew with each of them, so that none is lost.

    Attributes
    ----------
    path : Path or None
        The file, if there is to be one.
    described : dict
        When, where and on what.
    parity : dict
        By path; the others by workload first, then by path or row.
    """

    path: Path | None
    described: dict[str, Any]
    parity: defaultdict[str, Parity] = field(default_factory=lambda: defaultdict(Parity))
    gradient_errors: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    repeatable: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    timings: list[Timing] = field(default_factory=list)
    absent: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    failed: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    _lock: Lock = field(default_factory=Lock)

    def add_check(self, path: str, name: str, outcome: str, reason: str) -> None:
        """Of the conformance kit; from any thread."""
        with self._lock:
            self.parity[path].add(name, outcome, reason)
            self.write()

    def add_finding(self, loaded: LoadedWorkload, participant: str, kind: str, found: Any) -> None:
        """What one of `gpu_rows`' processes has yielded."""
        workload = loaded.workload.name
        if kind == "timing":
            self.timings.append(replace(found, agrees=loaded.agrees(found.loss)))
        elif kind in ("absent", "failed"):
            row, reason = found
            getattr(self, kind)[workload][row] = reason
        elif found is not None:
            of_paths = self.repeatable if kind == "repeatable" else self.gradient_errors
            of_paths[workload][participant] = found
        self.write()

    def add_end(self, workload: str, path: str, rows: list[str], reason: str) -> None:
        """The process of one of our paths was broken off; what it had not come to has failed."""
        self.gradient_errors[workload].setdefault(path, float("nan"))
        self.repeatable[workload].setdefault(path, reason)
        self.add_missing(self.failed, workload, rows, reason)

    def add_missing(self, where: dict[str, dict[str, str]], workload: str, rows: list[str], reason: str) -> None:
        """Note for those of the rows of which nothing is known yet."""
        known = {timing.row for timing in self.timings if timing.workload == workload}
        known |= {*self.absent[workload], *self.failed[workload]}
        where[workload].update({row: reason for row in rows if row not in known})
        self.write()

    def write(self) -> None:
        """Put all of it in the place of what was there."""
        if self.path is None:
            return
        everything = self.described | {
            "parity": {path: asdict(parity) for path, parity in self.parity.items()},
            "gradient_errors": self.gradient_errors,
            "repeatable": self.repeatable,
            "timings": [asdict(timing) for timing in self.timings],
            "absent": self.absent,
            "failed": self.failed,
        }
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)

    @property
    def is_right(self) -> bool:
        """Whether nothing has failed, all gradients are exact enough, and all runs repeatable."""
        agree = all(timing.agrees for timing in self.timings if not timing.row.endswith(LESS_PRECISE))
        errors = [error for of_paths in self.gradient_errors.values() for error in of_paths.values()]
        outcomes = [outcome for of_paths in self.repeatable.values() for outcome in of_paths.values()]
        return (
            agree
            and all(error <= LARGEST_GRADIENT_ERROR for error in errors)
            and all(outcome == EQUAL for outcome in outcomes)
            and not any(parity.failed for parity in self.parity.values())
            and not any(self.failed.values())
        )

    # --- What is printed ---

    def print_workload(self, console: Console, loaded: LoadedWorkload) -> None:
        """A table of all rows so far, the fastest first, and what there is to say of them."""
        workload = loaded.workload.name
        timings = [timing for timing in self.timings if timing.workload == workload]
        timings.sort(key=lambda timing: timing.microseconds_per_step)
        console.print(as_table(loaded, timings))
        for timing in timings:
            if timing.row.startswith(OURS):
                console.print(f"{timing.row}: {timing.detail}")
        for row, reason in self.absent[workload].items():
            console.print(f"not here: {row}, as {reason}")
        for row, reason in self.failed[workload].items():
            console.print(f"[red]{row}[/]: {reason}")

    def print_paths(self, console: Console, workload: str) -> None:
        """How exact and how repeatable each path is."""
        for path, outcome in self.repeatable[workload].items():
            error = self.gradient_errors[workload][path]
            of_gradient = mark(f"{error:.1e}", error <= LARGEST_GRADIENT_ERROR)
            of_runs = mark(outcome, outcome == EQUAL)
            console.print(f"path {path}: the gradient's relative error is {of_gradient}; two runs are {of_runs}")

    def print_parity(self, console: Console) -> None:
        """A line for each path, and one for each check that failed."""
        for path, parity in self.parity.items():
            console.print(f"parity with NumPy in float64, path {path}: {parity}")
            for check, reason in parity.failed.items():
                console.print(f"[red]{check}[/]: {reason}")


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


def mark(text: str, right: bool) -> str:
    return text if right else f"[red]{text}[/]"
