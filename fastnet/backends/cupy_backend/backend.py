"""The CuPy backend behind the seam. Nothing here imports CuPy before it is needed."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastnet.backends import array_engine
from fastnet.backends.array_plan import ArrayPlan
from fastnet.backends.cupy_backend.availability import availability
from fastnet.backends.interface import Availability
from fastnet.data import Dataset, is_sparse
from fastnet.errors import BackendUnavailableError, DeviceMemoryError
from fastnet.parameters import Parameters
from fastnet.spec import NetworkSpec, TrainingSpec

if TYPE_CHECKING:
    from fastnet.backends.cupy_backend.library import CupyLibrary

__all__ = ["CupyBackend"]

logger = logging.getLogger("fastnet")


class CupyBackend:
    """Trains on a CUDA device; a `fastnet.backends.interface.Backend`.

    Matrix products are cuBLAS's, in true float32 unless the environment says ``CUPY_TF32=1``.

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
            The data do not fit into the device's memory.
        """
        library = self._library
        from fastnet.backends.cupy_backend.paths import open_engine

        try:
            with library.scope():
                engine = open_engine(spec, dataset, library)
            return ArrayPlan(spec, parameters, engine, library)
        except DeviceMemoryError as error:
            megabytes = _samples_bytes(spec, dataset) / 1e6
            raise DeviceMemoryError(f"X needs {megabytes:,.0f} MB. {library.memory_left()}") from error

    def predict(self, spec: NetworkSpec, parameters: Parameters, x: Any) -> NDArray:
        """See :meth:`fastnet.backends.interface.Backend.predict`."""
        return array_engine.predict(spec, parameters, x, self._library)

    @cached_property
    def _library(self) -> CupyLibrary:
        found = self.availability()
        if not found.ok:
            raise BackendUnavailableError(f"backend 'cupy' cannot run here: {found.reason}")
        from fastnet.backends.cupy_backend.library import CupyLibrary

        return CupyLibrary(self._device_index)


def _samples_bytes(spec: TrainingSpec, dataset: Dataset) -> int:
    """Memory that X takes on the device: as it is for batches, as floats or twice (transposed) for the full batch."""
    x = dataset.x
    if is_sparse(x):
        return int(x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) * (1 if spec.batch_size else 2)
    converted = x.size * spec.network.numpy_dtype.itemsize if x.dtype != spec.network.dtype else 0
    return int(x.nbytes + (0 if spec.batch_size else converted))
