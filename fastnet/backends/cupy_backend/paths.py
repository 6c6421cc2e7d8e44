"""Which kernels train a network on the device: the one home of that decision."""

from __future__ import annotations

import logging
from types import ModuleType

from fastnet.backends.array_engine import ReferenceEngine
from fastnet.backends.array_plan import Engine
from fastnet.backends.cupy_backend import batches, narrow, tiny, wide
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.halves import remember_table
from fastnet.backends.cupy_backend.library import CupyLibrary
from fastnet.backends.cupy_backend.memory import Needs, estimate_needs, remedies
from fastnet.data import Dataset
from fastnet.spec import TrainingSpec

__all__ = ["PATHS", "find_path", "name_of", "open_engine"]

logger = logging.getLogger("fastnet")

# In order of preference. Each has ``obstacle(spec, dataset, device) -> str | None``, which says why it cannot train
# this network on these data, or would be the slower choice, and ``open_engine(spec, dataset, library) -> Engine``.
PATHS: tuple[ModuleType, ...] = (tiny, narrow, batches, wide)

_GENERIC = "products by cuBLAS{} and fused elementwise kernels, one call per operation"


def find_path(
    spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties
) -> tuple[ModuleType | None, dict[str, str]]:
    """The first path that nothing stands against, None for the generic one, and what stood against those before it."""
    obstacles: dict[str, str] = {}
    for path in PATHS:
        obstacle = path.obstacle(spec, dataset, properties)
        if obstacle is None:
            return path, obstacles
        obstacles[name_of(path)] = obstacle
    return None, obstacles


def name_of(path: ModuleType | None) -> str:
    """As in log messages; "generic" for None."""
    return "generic" if path is None else path.__name__.rpartition(".")[2]


def open_engine(spec: TrainingSpec, dataset: Dataset, library: CupyLibrary) -> Engine:
    """The engine of the path that is found. Within the library's scope.

    Raises
    ------
    DeviceMemoryError
        The device has too little memory for it; nothing has been uploaded then.
    """

    def reckon(spec: TrainingSpec, dataset: Dataset) -> Needs:
        return estimate_needs(name_of(find_path(spec, dataset, library.properties)[0]), spec, dataset)

    dataset = remember_table(dataset)
    path, obstacles = find_path(spec, dataset, library.properties)
    for name, obstacle in obstacles.items():
        logger.debug("backend cupy, not by %s: %s", name, obstacle)
    needs = estimate_needs(name_of(path), spec, dataset)
    library.require_memory(needs, lambda free: remedies(spec, dataset, free, reckon))
    if path is None:
        detail = _GENERIC.format(" in TF32" if library.precision == "tf32" else "")
        return ReferenceEngine(spec, dataset, library, detail)
    return path.open_engine(spec, dataset, library)
