"""Steps recorded once as a CUDA graph, and replayed: one launch from the host for many steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy

__all__ = ["STEPS_PER_GRAPH", "Replay"]

# A launch of a graph costs the host some microseconds, whatever its length; what a run has beyond whole graphs is
# launched kernel by kernel.
STEPS_PER_GRAPH = 32


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
        # A blocking stream: work of the default stream, such as copies, waits for it, and it for them.
        self._stream = cupy.cuda.Stream()
        self._graph: Any = None

    def run(self, n_steps: int) -> None:
        """Make steps one after the other; returns before they are done."""
        n_graphs, n_single = divmod(n_steps, STEPS_PER_GRAPH)
        with self._stream:
            if n_graphs and self._graph is None:
                self._graph = self._capture()
            for _ in range(n_graphs):
                self._graph.launch(self._stream)
            for _ in range(n_single):
                self._launch_step()

    def _capture(self) -> Any:
        # While a blocking stream captures, other threads must leave the default stream alone; they may be training.
        recording = cupy.cuda.Stream(non_blocking=True)
        with recording:
            recording.begin_capture()
            try:
                for _ in range(STEPS_PER_GRAPH):
                    self._launch_step()
            finally:  # a stream left capturing could not be used again
                graph = recording.end_capture()
        return graph
