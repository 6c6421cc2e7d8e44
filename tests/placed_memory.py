"""Flat arrays that hold matrices, with room between them that no kernel may touch."""

# Legend: w numbers of a vector, R rows, P panels.

from __future__ import annotations

import numpy as np
from native_calls import run as call_native

from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.kernels.products import Panels
from fastnet.backends.numba_backend.layout import lanes_of_dtype

# What memory holds that nothing may read, or write to.
UNTOUCHED = np.nan


def run(native, dtype, **arguments):
    """Call a native function with arguments by name; what it reads from is handed over as plans do, read-only."""
    values = [
        read_only(value, dtype) if isinstance(value, np.ndarray) and name != "out" else value
        for name, value in arguments.items()
    ]
    call_native(native, *values)


class Memory:
    """A flat array that holds matrices, with room between them that must not be touched."""

    def __init__(self, dtype, seed=0):
        self.dtype = np.dtype(dtype)
        self.lanes = lanes_of_dtype(self.dtype)
        self.random = np.random.default_rng(seed)
        self.parts, self.size = [], 5

    def place(self, places, values=None):
        """Put numbers at `places`, counted from the end of what there is; returns where they start, and in float64."""
        if values is None:
            values = self.random.normal(size=places.shape).astype(self.dtype)
        start = self.size
        self.parts.append((start + places, values))
        self.size = start + int(places.max(initial=0)) + 1 + 3
        return start, values.astype(np.float64)

    def flat(self):
        flat = np.full(self.size, UNTOUCHED, self.dtype)
        for places, values in self.parts:
            flat[places] = values
        return flat


def strided(*strides_and_sizes):
    """Places (size, ...) of a matrix, or of one of more dimensions, for pairs of a stride and a size."""
    axes = [stride * np.arange(size) for stride, size in strides_and_sizes]
    return sum(np.ix_(*axes), start=np.zeros([len(axis) for axis in axes], np.int64))


def place_panels(memory, n_rows, n_panels, values=None):
    """Panels with room between them: `Panels`, and the numbers (P, R, w)."""
    lanes = memory.lanes
    stride = n_rows * lanes + 7
    start, values = memory.place(strided((stride, n_panels), (lanes, n_rows), (1, lanes)), values)
    return Panels(start, lanes, stride), values
