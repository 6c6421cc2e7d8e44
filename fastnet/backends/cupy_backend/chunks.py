"""Runs cut into chunks: what the steps of a chunk read and write lies at fixed addresses on the device."""

# Legend: S steps of one run, K steps of one chunk.

from __future__ import annotations

from collections.abc import Callable

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_plan import Array

__all__ = ["STEPS_PER_CHUNK", "Chunks"]

STEPS_PER_CHUNK = 4096


class Chunks:
    """Where the kernels of a path find their rates, and leave their figures, step by step.

    Parameters
    ----------
    dtype : str
        Of the network.

    Attributes
    ----------
    lengths : cupy.ndarray (K, 2) of `dtype`
        `rate` and `decay` of each step: see `functions.step_lengths`.
    step : cupy.ndarray (1,) of int32
        Steps made of the chunk; zero when it begins. Kernels advance it.
    loss, penalty : cupy.ndarray (K,) of float64
        Objective, and the penalty's part of it, before the update of each step.
    n_correct : cupy.ndarray (K,) of int64
    """

    def __init__(self, dtype: str) -> None:
        self.lengths = cupy.empty((STEPS_PER_CHUNK, 2), np.dtype(dtype))
        self.step = cupy.zeros(1, np.int32)
        self.loss = cupy.empty(STEPS_PER_CHUNK, np.float64)
        self.penalty = cupy.empty(STEPS_PER_CHUNK, np.float64)
        self.n_correct = cupy.empty(STEPS_PER_CHUNK, np.int64)

    def run(self, lengths: NDArray[np.float64], make_steps: Callable[[int, int], None]) -> tuple[Array, Array, Array]:
        """Make the steps whose `lengths` (S, 2) are given.

        ``make_steps(start, stop)`` makes those from `start` to `stop` of the run, a chunk of at most K steps. Returns
        what `fastnet.backends.array_plan.Engine.run` does.
        """
        n_steps = len(lengths)
        loss, penalty = cupy.empty(n_steps, np.float64), cupy.empty(n_steps, np.float64)
        n_correct = cupy.empty(n_steps, np.int64)
        on_device = cupy.asarray(lengths.astype(self.lengths.dtype))
        for start in range(0, n_steps, STEPS_PER_CHUNK):
            stop = min(start + STEPS_PER_CHUNK, n_steps)
            self.lengths[: stop - start] = on_device[start:stop]
            self.step[...] = 0
            make_steps(start, stop)
            for figures, figure in ((loss, self.loss), (penalty, self.penalty), (n_correct, self.n_correct)):
                figures[start:stop] = figure[: stop - start]
        return loss, penalty, n_correct
