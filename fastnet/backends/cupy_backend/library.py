"""How a training plan reaches CuPy: uploads, downloads, the device it works on, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_plan import ArrayLibrary
from fastnet.backends.cupy_backend import kernels
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.memory import Needs, describe_needs
from fastnet.backends.cupy_backend.operations import CupyOperations
from fastnet.backends.cupy_backend.sparse import SparseMatrix
from fastnet.backends.cupy_backend.uploads import upload
from fastnet.data import is_sparse
from fastnet.errors import DeviceMemoryError

__all__ = ["CupyLibrary"]

Array = Any

_FIRST_WITH_TF32 = 80  # compute capability 8.0: Ampere

# What does not come from CuPy's pool of memory, such as modules, graphs and what cuBLAS keeps for itself, fails with
# other errors than what does. cuBLAS worked when the backend was tried: it is "not initialized" for want of memory.
_STATUSES_OF_FULL_MEMORY: dict[type[Exception], set[int]] = {
    cupy.cuda.runtime.CUDARuntimeError: {2},  # cudaErrorMemoryAllocation
    cupy.cuda.driver.CUDADriverError: {2},  # CUDA_ERROR_OUT_OF_MEMORY
    cupy.cuda.cublas.CUBLASError: {1, 3},  # CUBLAS_STATUS_NOT_INITIALIZED, CUBLAS_STATUS_ALLOC_FAILED
}


class CupyLibrary(ArrayLibrary):
    """CuPy on one device.

    Parameters
    ----------
    device_index : int
        As CUDA numbers the visible devices.
    precision : {"fp32", "tf32"}
        What is permitted for float32 products.

    Attributes
    ----------
    device_index : int
    precision : {"fp32", "tf32"}
        What they are computed in: a device that has no TF32 keeps to true float32.
    """

    def __init__(self, device_index: int, precision: str = "fp32") -> None:
        has_tf32 = int(cupy.cuda.Device(device_index).compute_capability) >= _FIRST_WITH_TF32
        self.device_index = device_index
        self.precision = precision if has_tf32 else "fp32"
        super().__init__(CupyOperations(self.precision))

    @property
    def properties(self) -> DeviceProperties:
        """What the device is like."""
        return DeviceProperties.of(self.device_index)

    def to_device(self, array: Any) -> Array:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.to_device`."""
        return SparseMatrix.from_host(array) if is_sparse(array) else upload(array)

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
        """Work on the device; what does not fit into its memory raises `DeviceMemoryError`.

        All of it goes to the default stream, whichever one the caller is on.
        """
        with cupy.cuda.Device(self.device_index), cupy.cuda.Stream.null:
            try:
                yield
            except (cupy.cuda.memory.OutOfMemoryError, *_STATUSES_OF_FULL_MEMORY) as error:
                if not _tells_of_full_memory(error):
                    raise
                raise DeviceMemoryError(f"{str(error).rstrip('.')}. {self.memory_left()}") from error

    def require_memory(self, needs: Needs, remedies: Callable[[int], str]) -> None:
        """Raise an error where the device has less memory free than training needs; within the scope.

        Parameters
        ----------
        needs : Needs
        remedies : callable
            Maps the free bytes to what would do with them.

        Raises
        ------
        DeviceMemoryError
            It says what is needed, what is free, and what would do.
        """
        pool = cupy.get_default_memory_pool()
        free, total = cupy.cuda.Device(self.device_index).mem_info
        free += pool.free_bytes()
        if pool.get_limit():
            total = min(total, pool.get_limit())
            free = min(free, total - pool.used_bytes())
        if needs.total > free:
            raise DeviceMemoryError(
                f"training needs {describe_needs(needs)}, and the device cuda:{self.device_index} has "
                f"{free / 1e6:,.0f} MB free of {total / 1e6:,.0f} MB: {remedies(free)}"
            )

    def memory_left(self) -> str:
        """How much memory the device has left, and what to do when that is too little."""
        free, total = cupy.cuda.Device(self.device_index).mem_info
        return (
            f"The device cuda:{self.device_index} has {free / 1e6:,.0f} MB free of {total / 1e6:,.0f} MB: train on "
            "batches (or smaller ones) with batch_size=, or on the CPU with backend='numba'"
        )

    def synchronize(self) -> None:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.synchronize`."""
        cupy.cuda.get_current_stream().synchronize()


def _tells_of_full_memory(error: Any) -> bool:
    statuses = _STATUSES_OF_FULL_MEMORY.get(type(error))
    return statuses is None or error.status in statuses
