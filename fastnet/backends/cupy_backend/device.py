"""What the choice of a path has to know of a device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cupy

__all__ = ["DeviceProperties"]


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """Of one CUDA device.

    Attributes
    ----------
    n_multiprocessors : int
    shared_memory_per_block : int
        The most that a block can ask for, in bytes.
    """

    n_multiprocessors: int
    shared_memory_per_block: int

    @staticmethod
    @cache
    def of(device_index: int) -> DeviceProperties:
        """Those of a device, as CUDA numbers the visible ones."""
        attributes = cupy.cuda.Device(device_index).attributes
        return DeviceProperties(
            n_multiprocessors=attributes["MultiProcessorCount"],
            shared_memory_per_block=attributes["MaxSharedMemoryPerBlockOptin"],
        )
