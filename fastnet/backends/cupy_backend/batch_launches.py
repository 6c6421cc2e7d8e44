"""Launches of kernels, and steps that consist of them and use two batches by turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastnet.backends.cupy_backend.replay import GRAPH_LENGTHS

__all__ = ["Launch", "StepLauncher"]

assert not any(length % 2 for length in GRAPH_LENGTHS), "a graph begins and ends with the same one of two batches"


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with everything that it is launched with: calling it launches it on the current stream."""

    kernel: Any
    grid: tuple[int, ...]
    n_threads: int
    shared_bytes: int
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """Launch it."""
        self.kernel(self.grid, (self.n_threads,), self.arguments, shared_mem=self.shared_bytes)


class StepLauncher:
    """Makes steps on the current stream, each of which gathers the batch of the next one.

    Parameters
    ----------
    gather : callable
        Launches what gathers the first batch.
    steps : pair of sequences of callables
        The launches of the first step and every second one after it, and those of the others.
    """

    def __init__(self, gather: Callable[[], None], steps: Sequence[Sequence[Callable[[], None]]]) -> None:
        self._gather = gather
        self._steps = steps
        self._next = 0

    def begin(self) -> None:
        """Make ready for the first step of a chunk."""
        self._next = 0
        self._gather()

    def __call__(self) -> None:
        """Make a step."""
        for launch in self._steps[self._next]:
            launch()
        self._next = 1 - self._next
