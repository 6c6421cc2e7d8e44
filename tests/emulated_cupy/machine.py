"""The emulated machine: its devices, their memory, and what was copied between them and the host."""

from __future__ import annotations

import weakref
from typing import Any, Self

import numpy as np

SCHEDULES = ("forward", "reverse", "random")


class OutOfMemoryError(MemoryError):
    """As ``cupy.cuda.memory.OutOfMemoryError``, its message included."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class StatusError(RuntimeError):
    """What CuPy raises when CUDA or a library of it fails.

    Attributes
    ----------
    status : int
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class CUDARuntimeError(StatusError):
    """As ``cupy.cuda.runtime.CUDARuntimeError``."""


class CUDADriverError(StatusError):
    """As ``cupy.cuda.driver.CUDADriverError``."""


class Machine:
    """What the emulation is asked to be, and what it has been doing.

    Attributes
    ----------
    pool : MemoryPool
    memory : MemoryInUse
    transfers : list of (direction, number of bytes)
        Copies "to device" and "to host" so far.
    n_waits : int
        How often the host has waited so far for all that the device had to do: for a copy to the host, or one to the
        device of memory that is not page-locked.
    n_operations : int
        Kernel launches and products so far.
    products : list of int
        What each of cuBLAS's products was computed in, as ``cublasGemmEx`` has it.
    n_captures : int
        Graphs that were recorded so far.
    n_graph_launches : int
        Of whole graphs; their kernels count as operations, too.
    schedule : {"forward", "reverse", "random"}
        Which of the threads that can run does, and the order of the blocks of a raw kernel: lowest index first, highest
        first, or drawn at random.
    deleted_line : int or None
        Line of the code of the modules that are launched; a barrier on it is passed as if it were not there.
    truncating_tensor_cores : bool
        Whether sums of products are rounded toward zero, as tensor cores do, or to the nearest float32.
    has_unified_memory : bool
        Whether an array of the host may be one of the device as it is, as with ``CUPY_ENABLE_UMP=1``.
    has_default_stream_per_thread : bool
        As with ``CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1``: other streams do not wait for it.
    entered_streams : list of Stream
        Those in whose context the program is.
    capturing_stream : Stream or None
    """

    def __init__(self) -> None:
        self.reset()

    def reset(
        self,
        n_devices: int = 1,
        free_bytes: int = 1 << 40,
        pool: tuple[int, int] = (0, 0),
        driver_error: Exception | None = None,
        compiler_error: Exception | None = None,
        product_error: Exception | None = None,
        compute_capability: str = "90",
        n_multiprocessors: int = 3,
        shared_memory_per_block_optin: int = 232448,
        has_unified_memory: bool = False,
        has_default_stream_per_thread: bool = False,
    ) -> None:
        self.n_devices = n_devices
        self.free_bytes = free_bytes
        self.pool = MemoryPool(*pool)
        self.memory = MemoryInUse()
        self.driver_error = driver_error
        self.compiler_error = compiler_error
        self.product_error = product_error
        self.current_device = 0
        self.transfers: list[tuple[str, int]] = []
        self.n_waits = 0
        self.n_operations = 0
        self.products: list[int] = []
        self.n_captures = 0
        self.n_graph_launches = 0
        self.compute_capability = compute_capability
        self.n_multiprocessors = n_multiprocessors
        self.shared_memory_per_block_optin = shared_memory_per_block_optin
        self.has_unified_memory = has_unified_memory
        self.has_default_stream_per_thread = has_default_stream_per_thread
        self.schedule = "forward"
        self.deleted_line: int | None = None
        self.truncating_tensor_cores = True
        self.entered_streams: list[Any] = []
        self.capturing_stream: Any = None

    def refuse_while_capturing(self, what: str) -> None:
        """Of what CUDA can capture, the emulation knows launches of raw kernels alone."""
        if self.capturing_stream is not None:
            raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is capturing")

    def count_devices(self) -> int:
        if self.driver_error is not None:
            raise self.driver_error
        return self.n_devices

    def allocate(self, values: np.ndarray) -> None:
        """`free_bytes` stays as it is: what matters is whether one array fits."""
        if values.nbytes > self.free_bytes:
            raise OutOfMemoryError(values.nbytes, 0)
        self.memory.count(values)


class MemoryInUse:
    """Bytes that arrays take, and have taken at most at one time."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def count(self, values: np.ndarray) -> None:
        self.now += values.nbytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(values, self._forget, values.nbytes)

    def _forget(self, n_bytes: int) -> None:
        self.now -= n_bytes


class MemoryPool:
    """What ``cupy.get_default_memory_pool()`` tells of itself."""

    def __init__(self, free: int, limit: int) -> None:
        self._free, self._limit = free, limit

    def free_bytes(self) -> int:
        return self._free

    def used_bytes(self) -> int:
        return MACHINE.memory.now

    def get_limit(self) -> int:
        return self._limit


MACHINE = Machine()


class Device:
    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> Self:
        if self.id >= MACHINE.n_devices:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._previous, MACHINE.current_device = MACHINE.current_device, self.id
        return self

    def __exit__(self, *error: object) -> None:
        MACHINE.current_device = self._previous

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MaxSharedMemoryPerBlockOptin": MACHINE.shared_memory_per_block_optin,
            "MultiProcessorCount": MACHINE.n_multiprocessors,
        }

    @property
    def compute_capability(self) -> str:
        return MACHINE.compute_capability

    @property
    def mem_info(self) -> tuple[int, int]:
        return MACHINE.free_bytes, 2 * MACHINE.free_bytes
