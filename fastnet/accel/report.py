"""Telling what ran where: as it happens, and in a file that all processes of a run add to."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing the estimators' package imports scikit-learn
    from fastnet.sklearn.journal import Entry

__all__ = ["REPORT", "Told", "read", "tell"]

logger = logging.getLogger("fastnet")

REPORT = "FASTNET_ACCEL_REPORT"  # environment: the file, in runs that tell everything

_reasons_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class Told:
    """An entry, and the number of the process that it comes from."""

    entry: Entry
    process: int


def tell(entry: Entry) -> None:
    """Print an entry and write it down where everything is to be told; elsewhere, warn of fallbacks for new reasons."""
    path = os.environ.get(REPORT)
    if path:
        print(f"[fastnet.accel] {entry}", file=sys.stderr)
        _append(path, entry)
    elif entry.is_fallback and entry.reason not in _reasons_told:
        _reasons_told.add(entry.reason)
        logger.warning("fastnet.accel: %s", entry)


def _append(path: str, entry: Entry) -> None:
    line = json.dumps(asdict(entry) | {"process": os.getpid()}) + "\n"
    # A worker may outlive the file; and a report that cannot be written is no reason to stop training.
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, line.encode())  # all at once, so that the lines of several processes do not mix
        finally:
            os.close(file)


def read(path: Path) -> list[Told]:
    """What all processes have written down."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines:
        return []
    from fastnet.sklearn.journal import Entry

    return [Told(process=line.pop("process"), entry=Entry(**line)) for line in lines]
