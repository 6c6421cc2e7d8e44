"""The emulated machine: its devices, their memory, and what was copied between them and the host."""

from __future__ import annotations

from typing import Self


class OutOfMemoryError(MemoryError):
    """As ``cupy.cuda.memory.OutOfMemoryError``, its message included."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Machine:
    """What the emulation is asked to be, and what it has been doing.

    Attributes
    ----------
    transfers : list of (direction, number of bytes)
        Copies "to device" and "to host" so far.
    n_operations : int
        Kernel launches and products so far.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(
        self,
        n_devices: int = 1,
        free_bytes: int = 1 << 40,
        driver_error: Exception | None = None,
        compiler_error: Exception | None = None,
        product_error: Exception | None = None,
    ) -> None:
        self.n_devices = n_devices
        self.free_bytes = free_bytes
        self.driver_error = driver_error
        self.compiler_error = compiler_error
        self.product_error = product_error
        self.current_device = 0
        self.transfers: list[tuple[str, int]] = []
        self.n_operations = 0

    def count_devices(self) -> int:
        if self.driver_error is not None:
            raise self.driver_error
        return self.n_devices

    def allocate(self, n_bytes: int) -> None:
        """Nothing is taken off: what matters is whether one array fits."""
        if n_bytes > self.free_bytes:
            raise OutOfMemoryError(n_bytes, 0)


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
    def mem_info(self) -> tuple[int, int]:
        return MACHINE.free_bytes, 2 * MACHINE.free_bytes
