"""The CuPy backend behind the seam. Nothing here imports CuPy before it is needed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastnet.backends import array_engine
from fastnet.backends.array_plan import ArrayPlan
from fastnet.backends.cupy_backend.availability import availability
from fastnet.backends.interface import Availability
from fastnet.data import Dataset
from fastnet.errors import BackendUnavailableError
from fastnet.parameters import Parameters
from fastnet.spec import NetworkSpec, TrainingSpec

if TYPE_CHECKING:
    from fastnet.backends.cupy_backend.library import CupyLibrary

__all__ = ["CupyBackend"]

logger = logging.getLogger("fastnet")


class CupyBackend:
    """Trains on a CUDA device; a `fastnet.backends.interface.Backend`.

    Matrix products in float32 are true float32 unless the network permits TF32 (`fastnet.spec.NetworkSpec.precision`),
    whatever ``CUPY_TF32`` says.

    Parameters
    ----------
    device : str
        "auto" and "cuda" are the first visible device, "cuda:1" the second; ``CUDA_VISIBLE_DEVICES`` chooses which
        devices are visible.
    n_threads : int or None
        Has no effect on a CUDA device. It is no error, since ``FASTNET_NUM_THREADS`` may be set for all backends.

    Raises
    ------
    BackendUnavailableError
        The CPU was asked for.
    """

    name = "cupy"

    def __init__(self, device: str = "auto", n_threads: int | None = None) -> None:
        if device == "cpu":
            raise BackendUnavailableError(
                "backend 'cupy' runs on a CUDA device, not on the CPU: use backend='numba' or 'numpy'"
            )
        self._device_index = int(device.partition(":")[2] or 0)
        if n_threads is not None:
            logger.debug("backend cupy: n_threads=%d has no effect on a CUDA device", n_threads)

    def availability(self) -> Availability:
        """Whether CuPy is installed and the device computes; where not, the reason and the remedy."""
        return availability(self._device_index)

    def check_support(self, spec: TrainingSpec) -> None:
        """Supports every specification."""

    def plan_training(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset) -> ArrayPlan:
        """See :meth:`fastnet.backends.interface.Backend.plan_training`.

        Raises
        ------
        BackendUnavailableError
            CuPy or the device cannot be used here.
        DeviceMemoryError
            The data, or what a step makes of them, do not fit into the device's memory; nothing was uploaded.
        """
        library = self._library(spec.network)
        from fastnet.backends.cupy_backend.paths import open_engine

        with library.scope():
            engine = open_engine(spec, dataset, library)
        return ArrayPlan(spec, parameters, engine, library)

    def predict(self, spec: NetworkSpec, parameters: Parameters, x: Any) -> NDArray:
        """See :meth:`fastnet.backends.interface.Backend.predict`."""
        return array_engine.predict(spec, parameters, x, self._library(spec))

    def _library(self, network: NetworkSpec) -> CupyLibrary:
        found = self.availability()
        if not found.ok:
            raise BackendUnavailableError(f"backend 'cupy' cannot run here: {found.reason}")
        from fastnet.backends.cupy_backend.library import CupyLibrary

        return CupyLibrary(self._device_index, network.precision)
