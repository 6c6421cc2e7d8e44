"""How a training plan reaches CuPy: uploads, downloads, the device it works on, and memory that runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_plan import ArrayLibrary
from fastnet.backends.cupy_backend import kernels
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.operations import CupyOperations
from fastnet.backends.cupy_backend.sparse import SparseMatrix
from fastnet.data import is_sparse
from fastnet.errors import DeviceMemoryError

__all__ = ["CupyLibrary"]

Array = Any


class CupyLibrary(ArrayLibrary):
    """CuPy on one device.

    Parameters
    ----------
    device_index : int
        As CUDA numbers the visible devices.
    """

    def __init__(self, device_index: int) -> None:
        super().__init__(CupyOperations())
        self._device_index = device_index

    @property
    def properties(self) -> DeviceProperties:
        """What the device is like."""
        return DeviceProperties.of(self._device_index)

    def to_device(self, array: Any) -> Array:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.to_device`."""
        return SparseMatrix.from_host(array) if is_sparse(array) else cupy.asarray(array)

    def to_host(self, array: Array) -> NDArray:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.to_host`."""
        host: NDArray = cupy.asnumpy(array)
        return host

    def as_floats(self, x: Array, dtype: str) -> Array:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.as_floats`."""
        return x if isinstance(x, SparseMatrix) else x.astype(dtype, copy=False)

    def take_rows(self, x: Array, rows: Array, dtype: str) -> Array:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.take_rows`."""
        if isinstance(x, SparseMatrix):
            return x.take_rows(rows)
        batch = cupy.empty((len(rows), x.shape[1]), np.dtype(dtype))
        return kernels.GATHER(x, rows, x.shape[1], batch)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Work on the device; what does not fit into its memory raises `DeviceMemoryError`."""
        with cupy.cuda.Device(self._device_index):
            try:
                yield
            except cupy.cuda.memory.OutOfMemoryError as error:
                raise DeviceMemoryError(f"{error} {self.memory_left()}") from error

    def memory_left(self) -> str:
        """How much memory the device has left, and what to do when that is too little."""
        free, total = cupy.cuda.Device(self._device_index).mem_info
        return (
            f"The device cuda:{self._device_index} has {free / 1e6:,.0f} MB free of {total / 1e6:,.0f} MB: train on "
            "batches (or smaller ones) with batch_size=, or on the CPU with backend='numba'"
        )

    def synchronize(self) -> None:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.synchronize`."""
        cupy.cuda.get_current_stream().synchronize()
