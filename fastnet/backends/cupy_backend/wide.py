"""Full batches of bytes into a wide first layer: its products on tensor cores, as exact as in float32.

Bytes are halves (fp16) exactly, and a float32 is the sum of two halves to 22 bits. So cuBLAS multiplies X, kept as
halves, by the high and the low halves of the weights at once, and its transposed by those of the gradient. Products of
halves are exact; their sums are float32. The other layers are computed as by the generic engine.
"""

# Legend: N samples, D features, H units of the first layer, S units padded; K batches, R samples of a batch.

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_engine import ReferenceEngine
from fastnet.backends.array_plan import Engine
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.functions import activation_name
from fastnet.backends.cupy_backend.halves import HalvesLayout, find_bytes, holds_bytes
from fastnet.backends.cupy_backend.library import CupyLibrary
from fastnet.backends.cupy_backend.modules import load_module
from fastnet.backends.cupy_backend.operations import CupyOperations
from fastnet.backends.cupy_backend.products import multiply_halves, multiply_transposed_halves
from fastnet.backends.cupy_backend.sums import sum_rows
from fastnet.backends.cupy_backend.uploads import upload_into
from fastnet.data import Dataset, is_sparse
from fastnet.spec import TrainingSpec

__all__ = ["LEAST_FLOPS", "cannot_train", "obstacle", "open_engine"]

Array = Any

# Operations of the first layer's products in a step, below which what halves save is not worth four more launches. An
# estimate that has not been measured on a GPU: of float32 at 5e13 operations a second, these take 80 µs.
LEAST_FLOPS = 4e9

_THREADS = 256  # of a block, as in ``wide.cu``
_BLOCKS_PER_MULTIPROCESSOR = 8  # as many as run at a time
_FLOAT_BYTES = 4

_DETAIL = "first layer by cuBLAS on halves of X, weights and gradients, the others by cuBLAS in {}, call by call"


def obstacle(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, or would be the slower choice; None if it should."""
    n_features, n_units = spec.network.layer_sizes[:2]
    flops = 4.0 * dataset.n_samples * n_features * n_units
    if flops < LEAST_FLOPS:
        return f"the first layer takes {flops:.1g} operations, too few to be worth its launches"
    return cannot_train(spec, dataset, properties)


def cannot_train(spec: TrainingSpec, dataset: Dataset, _properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, be it the slower choice or not."""
    if spec.batch_size:
        return "batches are too small to keep the device busy by cuBLAS"
    if spec.network.dtype != "float32":
        return f"halves are not exact enough for {spec.network.dtype}"
    if is_sparse(dataset.x):
        return "X is sparse"
    return None if holds_bytes(dataset) else "X holds other numbers than bytes"


def open_engine(spec: TrainingSpec, dataset: Dataset, library: CupyLibrary) -> Engine:
    """An engine for what no :func:`obstacle` stands against; within the library's scope."""
    x = FirstLayer.of(spec, dataset, library.properties)
    on_device = Dataset(x, dataset.targets, dataset.sample_weight)
    detail = _DETAIL.format("TF32" if library.precision == "tf32" else "float32")
    return ReferenceEngine(spec, on_device, WideLibrary(library.device_index, library.precision), detail)


class WideLibrary(CupyLibrary):
    """A library whose operations know a :class:`FirstLayer` in the place of X."""

    def __init__(self, device_index: int, precision: str) -> None:
        super().__init__(device_index, precision)
        self.operations = WideOperations(self.precision)

    def to_device(self, array: Any) -> Array:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.to_device`."""
        return array if isinstance(array, FirstLayer) else super().to_device(array)

    def as_floats(self, x: Array, dtype: str) -> Array:
        """See :meth:`fastnet.backends.array_plan.ArrayLibrary.as_floats`."""
        return x if isinstance(x, FirstLayer) else super().as_floats(x, dtype)


class WideOperations(CupyOperations):
    """Operations that leave the products with X to a :class:`FirstLayer`."""

    def affine_activation(
        self, activation: str, x: Array, weight: Array, bias: Array | None, scale: float
    ) -> tuple[Array, Array]:
        """See :meth:`fastnet.reference.Operations.affine_activation`."""
        if isinstance(x, FirstLayer):
            return x.forward(weight, bias, scale)
        return super().affine_activation(activation, x, weight, bias, scale)

    def affine_backward(self, x: Array, d_z: Array, scale: float, d_weight: Array, d_bias: Array | None) -> None:
        """See :meth:`fastnet.reference.Operations.affine_backward`."""
        if not isinstance(x, FirstLayer):
            super().affine_backward(x, d_z, scale, d_weight, d_bias)
            return
        x.backward(d_z, scale, d_weight)
        if d_bias is not None:
            sum_rows(d_z, d_bias)


class FirstLayer:
    """X on the device as halves, and the memory that its products with weights and gradients take in every step.

    Parameters
    ----------
    x : ndarray (N, D) of uint8
    x_scale : float
        What every byte is multiplied by, besides the network's own scale.
    n_units : int
        H.
    activation : str
        "identity" where the first layer is the last one.
    properties : DeviceProperties
    """

    def __init__(
        self, x: NDArray[np.uint8], x_scale: float, n_units: int, activation: str, properties: DeviceProperties
    ) -> None:
        layout = HalvesLayout.of(x.shape[0], x.shape[1], n_units)
        n_features, n_units = layout.n_padded_features, layout.n_padded_units
        self._layout, self._x_scale = layout, x_scale
        self._is_linear = activation == "identity"
        self._n_blocks = _BLOCKS_PER_MULTIPROCESSOR * properties.n_multiprocessors
        # Padding is zero, and is never written to.
        self._x = cupy.zeros((layout.n_padded_samples, n_features), np.float16)
        upload_into(self._x[: layout.n_samples, : layout.n_features], x)
        self._weight = cupy.zeros((n_features, 2 * n_units), np.float16)
        self._d_z = cupy.zeros((layout.n_padded_samples, 2 * n_units), np.float16)
        self._product = cupy.empty((layout.n_samples, 2 * n_units), np.float32)
        self._partial = cupy.empty((layout.n_batches, n_features, 2 * n_units), np.float32)
        self._largest = cupy.empty(self._n_blocks, np.float32)
        self._weight_inverse, self._d_z_inverse = cupy.empty(1, np.float32), cupy.empty(1, np.float32)
        self._no_bias = cupy.zeros(layout.n_units, np.float32)
        module = load_module("wide.cu", {"ACTIVATION": activation_name(activation)})
        self._find_largest, self._split_values, self._finish_layer, self._add_batches = map(
            module.get_function, ("fastnet_largest", "fastnet_split", "fastnet_finish_layer", "fastnet_add_batches")
        )

    @classmethod
    def of(cls, spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> FirstLayer:
        """That of a network and the samples it is trained on."""
        x, x_scale = find_bytes(dataset)
        activation = (*spec.network.activations, "identity")[0]
        return cls(x, x_scale, spec.network.layer_sizes[1], activation, properties)

    def forward(self, weight: Array, bias: Array | None, scale: float) -> tuple[Array, Array]:
        """(z, h), both (N, H), from weight (D, H) and bias (H,)."""
        layout = self._layout
        self._split(weight, self._weight, self._weight_inverse)
        multiply_halves(self._x[: layout.n_samples], self._weight, self._product)
        z = cupy.empty((layout.n_samples, layout.n_units), np.float32)
        h = z if self._is_linear else cupy.empty_like(z)
        self._launch(
            self._finish_layer,
            layout.n_samples,
            self._product,
            self._weight_inverse,
            np.float32(scale * self._x_scale),
            self._no_bias if bias is None else bias,
            np.int64(layout.n_samples),
            np.int32(layout.n_units),
            np.int32(layout.n_padded_units),
            z,
            h,
        )
        return z, h

    def backward(self, d_z: Array, scale: float, d_weight: Array) -> None:
        """Write the gradient d_weight (D, H), from d_z (N, H)."""
        layout = self._layout
        self._split(d_z, self._d_z, self._d_z_inverse)
        batches = (layout.n_passes, layout.n_batches, layout.batch_samples, -1)
        x, d_z_halves = self._x.reshape(batches), self._d_z.reshape(batches)
        for k in range(layout.n_passes):
            multiply_transposed_halves(x[k], d_z_halves[k], self._partial, add=k > 0)
        self._launch(
            self._add_batches,
            layout.n_features,
            self._partial,
            np.int32(layout.n_batches),
            self._d_z_inverse,
            np.float32(scale * self._x_scale),
            np.int64(layout.n_features),
            np.int64(layout.n_padded_features),
            np.int32(layout.n_units),
            np.int32(layout.n_padded_units),
            d_weight,
        )

    def _split(self, values: Array, halves: Array, inverse: Array) -> None:
        """Write float32 `values` (R, C) as halves (>= R, 2, S), and the inverse of the scale they were given."""
        n_blocks = min(-(-values.size // _THREADS), self._n_blocks)
        shared_bytes = _THREADS * _FLOAT_BYTES
        arguments = (values, np.int64(values.size), self._largest)
        self._find_largest((n_blocks,), (_THREADS,), arguments, shared_mem=shared_bytes)
        self._launch(
            self._split_values,
            len(values),
            values,
            np.int64(len(values)),
            np.int32(values.shape[1]),
            np.int32(self._layout.n_padded_units),
            self._largest,
            np.int32(n_blocks),
            halves,
            inverse,
            shared_bytes=shared_bytes,
        )

    def _launch(self, kernel: cupy.RawKernel, n_rows: int, *arguments: Any, shared_bytes: int = 0) -> None:
        """Launch a kernel whose threads in x share the units, and those in y the rows."""
        columns = min(1 << (self._layout.n_units - 1).bit_length(), _THREADS)
        rows = _THREADS // columns
        kernel((min(-(-n_rows // rows), self._n_blocks),), (columns, rows), arguments, shared_mem=shared_bytes)
