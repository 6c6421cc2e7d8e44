"""Which kernels train a network on the device: the one home of that decision."""

from __future__ import annotations

import logging
from types import ModuleType

from fastnet.backends.array_engine import ReferenceEngine
from fastnet.backends.array_plan import Engine
from fastnet.backends.cupy_backend.library import CupyLibrary
from fastnet.data import Dataset
from fastnet.spec import TrainingSpec

__all__ = ["PATHS", "open_engine"]

logger = logging.getLogger("fastnet")

# In order of preference. Each has ``obstacle(spec, dataset, device) -> str | None``, which says why it cannot train
# this network on these data, or would be the slower choice, and ``open_engine(spec, dataset, library) -> Engine``.
PATHS: tuple[ModuleType, ...] = ()

_GENERIC = "products by cuBLAS and fused elementwise kernels, one call per operation"


def open_engine(spec: TrainingSpec, dataset: Dataset, library: CupyLibrary) -> Engine:
    """The first path that nothing stands against; the generic one takes everything. Within the library's scope."""
    for path in PATHS:
        obstacle = path.obstacle(spec, dataset, library.properties)
        if obstacle is None:
            return path.open_engine(spec, dataset, library)
        logger.debug("backend cupy, not by %s: %s", path.__name__.rpartition(".")[2], obstacle)
    return ReferenceEngine(spec, dataset, library, _GENERIC)
