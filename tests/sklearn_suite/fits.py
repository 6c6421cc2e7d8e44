"""Counting which fits ran where."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imports scikit-learn, which must wait until its classes can be replaced
    from fastnet.sklearn.journal import Entry

__all__ = ["Fits"]


class Fits:
    """Listens to the journal of fastnet's estimators.

    Attributes
    ----------
    backend : str
        Where fits should run.
    counts : Counter
        How many ran where.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.counts: Counter[str] = Counter()
        self._elsewhere: list[Entry] = []

    def note(self, entry: Entry) -> None:
        """Take an entry of the journal."""
        self.counts[entry.ran_on] += 1
        if entry.ran_on != self.backend:
            self._elsewhere.append(entry)

    def take_elsewhere(self) -> str:
        """What ran elsewhere since this was last asked, in a sentence; empty if nothing did."""
        entries, self._elsewhere = self._elsewhere, []
        return f"not on {self.backend}: {'; '.join(map(str, entries))}" if entries else ""

    def __str__(self) -> str:
        return ", ".join(f"{count} fits on {place}" for place, count in sorted(self.counts.items())) or "no fits"
