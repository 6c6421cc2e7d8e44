"""Steps recorded once as CUDA graphs, and replayed: one launch from the host for many steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy

__all__ = ["GRAPH_LENGTHS", "Replay"]

# Steps of each graph, the longest first. A launch of a graph takes the host some microseconds, whatever its length, and
# so does the launch of one kernel. So a run is made of as many long graphs as fit, of shorter ones for what is left,
# which is all of it where epochs are short, and of single steps at last.
GRAPH_LENGTHS = (32, 8, 2)


class Replay:
    """A step that consists of kernel launches alone, and takes all that changes between steps from the device.

    A graph keeps addresses, not arrays: whoever makes a `Replay` owns every array that its kernels touch.

    Parameters
    ----------
    launch_step : callable
        Launches the kernels of one step on the current stream. Nothing may be compiled, allocated or copied in it.
    """

    def __init__(self, launch_step: Callable[[], None]) -> None:
        self._launch_step = launch_step
        self._graphs: dict[int, Any] = {}  # by length; recorded when they are needed

    def run(self, n_steps: int) -> None:
        """Make steps one after the other, on the current stream as all other work; returns before they are done."""
        n_left = n_steps
        for length in GRAPH_LENGTHS:
            n_graphs, n_left = divmod(n_left, length)
            if n_graphs and length not in self._graphs:
                self._graphs[length] = self._capture(length)
            for _ in range(n_graphs):
                self._graphs[length].launch()
        for _ in range(n_left):
            self._launch_step()

    def _capture(self, n_steps: int) -> Any:
        # The default stream cannot capture. While a blocking stream does, other threads must leave the default stream
        # alone; they may be training.
        recording = cupy.cuda.Stream(non_blocking=True)
        with recording:
            recording.begin_capture()
            try:
                for _ in range(n_steps):
                    self._launch_step()
            finally:  # a stream left capturing could not be used again
                graph = recording.end_capture()
        return graph
