"""What the README shows of a report of ``report.py``: each library's best time on each workload."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
SUBJECT = "fastnet numba"

# Library -> how its rows' names begin. Those with several rows (eager and compiled, two precisions) show the best.
LIBRARIES = {
    SUBJECT: SUBJECT,
    "fastnet numpy": "fastnet numpy",
    "JAX": "JAX",
    "PyTorch": "PyTorch",
    "scikit-learn": "scikit-learn",
    "NumPy script": "NumPy script",
}
PEERS = [library for library in LIBRARIES if not library.startswith("fastnet ")]


@dataclass(frozen=True)
class Speeds:
    """Milliseconds per step on one workload, by library; those that took no part are left out."""

    workload: str
    title: str
    times: dict[str, float]

    def ratio(self, library: str) -> float:
        """A library's time over that of fastnet's Numba backend: above 1, fastnet is faster."""
        return self.times[library] / self.times[SUBJECT]

    @property
    def peers(self) -> list[str]:
        """Those that took part, the fastest first."""
        return sorted((peer for peer in PEERS if peer in self.times), key=self.times.__getitem__)


def latest_report(name: str = "cpu") -> Path:
    """The newest report of a name among those that are kept."""
    return max(RESULTS.glob(f"{name}-*.json"))


def read_speeds(report: Path) -> list[Speeds]:
    """Of every workload that fastnet's Numba backend and a peer trained, in the report's order."""
    groups = json.loads(report.read_text(encoding="utf-8"))["groups"]
    speeds = [
        Speeds(group["name"], group["title"], _best(group["rows"]))
        for group in groups
        if group["unit"] == "ms per step"
    ]
    return [each for each in speeds if SUBJECT in each.times and each.peers]


def _best(rows: Iterable[dict]) -> dict[str, float]:
    times: dict[str, float] = {}
    for row in rows:
        for library, beginning in LIBRARIES.items():
            if row["name"].startswith(beginning):
                times[library] = min(row["time"], times.get(library, row["time"]))
    return times
