"""The last thing that ``python -m fastnet.accel -v`` prints: what ran where, and for how long."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnet.accel.report import Told

__all__ = ["print_summary"]


def print_summary(told: list[Told]) -> None:
    """Print a table of all calls to standard error, and why scikit-learn's own code ran where it did."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not told:
        console.print("[fastnet.accel] no MLPClassifier or MLPRegressor was trained")
        return
    console.print(_table(told))
    for (method, reason), calls in Counter(_fallback(each) for each in told if each.entry.is_fallback).items():
        console.print(f"{method} fell back to scikit-learn's own code ({_counted(calls, 'call')}): {reason}")
    n_processes = len({each.process for each in told})
    if n_processes > 1:
        console.print(f"Calls and seconds are added up over {n_processes} processes.")


def _table(told: list[Told]) -> Any:
    from rich.table import Table

    groups: defaultdict[tuple[str, str], list[Told]] = defaultdict(list)
    for each in told:
        groups[_method(each), each.entry.ran_on].append(each)
    table = Table("estimator.method", "ran on", box=None, pad_edge=False)
    table.add_column("calls", justify="right")
    table.add_column("seconds", justify="right")
    for (method, ran_on), group in sorted(groups.items()):
        seconds = sum(each.entry.seconds for each in group)
        table.add_row(method, ran_on, str(len(group)), f"{seconds:.2f}")
    return table


def _method(told: Told) -> str:
    return f"{told.entry.estimator}.{told.entry.method}"


def _fallback(told: Told) -> tuple[str, str]:
    return _method(told), told.entry.reason


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
