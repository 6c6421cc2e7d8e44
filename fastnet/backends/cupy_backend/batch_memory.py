"""The memory in which the steps on mini-batches work, at fixed addresses on the device."""

# Legend: N samples, D features, B rows of a batch, I fan-in, O fan-out, C outputs, L layers.

from __future__ import annotations

from dataclasses import dataclass

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_plan import Array
from fastnet.backends.cupy_backend.batch_shapes import HEAD_WARPS, Tile, n_slices
from fastnet.backends.cupy_backend.uploads import upload_into
from fastnet.parameters import ParameterLayout
from fastnet.spec import TrainingSpec

__all__ = ["BatchMemory", "Samples"]

_FLOATS_PER_SECTOR = 8
_WEIGHTS_PER_WARP = 512  # of those whose squares are summed, in blocks of their own
_MAX_SQUARES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """A dataset on the device.

    Attributes
    ----------
    x : cupy.ndarray (N, D) of uint8 or float32
    targets : cupy.ndarray (N,) of int32, or (N, C) of float32
    sample_weight : cupy.ndarray (N,) of float32, or None
    """

    x: Array
    targets: Array
    sample_weight: Array | None


class BatchMemory:
    """What the launches of a step leave for those that follow; rows of floats are padded to 32 bytes.

    Parameters
    ----------
    spec : TrainingSpec
    samples : Samples
    n_batch : int
        B.
    n_batches : int
        How many batches there are at a time: one, or two of which the second is gathered while the first is in use.
    slice_lengths : sequence of int
        Inputs per slice of each hidden layer.
    update : Tile
        Of the products that make gradients.

    Attributes
    ----------
    order : cupy.ndarray of int64
        Sample indices, B for each step.
    n_ordered : cupy.ndarray (1,) of int64
        How many of them count.
    inputs : cupy.ndarray of float32
        Of all layers: x of all batches, h of each hidden layer. Parts of it are `x` and `h`. Where there are biases,
        a one follows each row.
    all_d_z : cupy.ndarray of float32
        Of all layers. Parts of it are `d_z`.
    slices : list of cupy.ndarray of float32
        Of z of each hidden layer, (slices, B, O).
    losses, is_correct, squares : cupy.ndarray
        Of each row of the batch (B,), float64 and int32; and sums of squared weights, float64, of which `n_squares`
        count.
    layers : cupy.ndarray (L, 7) of int32
        As ``batches.cu`` has it.
    n_tiles : int
        Of all layers together.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        samples: Samples,
        n_batch: int,
        n_batches: int,
        slice_lengths: tuple[int, ...],
        update: Tile,
    ) -> None:
        network, layout = spec.network, ParameterLayout.of(spec.network)
        pitches = [_pitch(width + network.bias) for width in network.layer_sizes[:-1]]
        input_sizes = [n_batch * pitch for pitch in pitches]
        sizes = [n_batch * _pitch(width) for width in network.layer_sizes[1:]]
        self._n_samples = len(samples.targets)
        self.order, self.n_ordered = cupy.empty(0, np.int64), cupy.empty(1, np.int64)

        self.x_size = input_sizes[0]
        self._input_starts = np.cumsum([0, n_batches * input_sizes[0], *input_sizes[1:]]).tolist()
        self._d_z_starts = np.cumsum([0, *sizes]).tolist()
        self.inputs = cupy.empty(self._input_starts[-1], np.float32)
        for layer, (width, pitch) in enumerate(zip(network.layer_sizes, pitches, strict=False)):
            rows = self.inputs[self._input_starts[layer] : self._input_starts[layer + 1]].reshape(-1, pitch)
            rows[:, width : width + network.bias] = 1.0
        self.all_d_z = cupy.empty(self._d_z_starts[-1], np.float32)
        shapes = zip(network.layer_sizes, slice_lengths, sizes, strict=False)
        self.slices = [cupy.empty(n_slices(fan_in, length) * size, np.float32) for fan_in, length, size in shapes]

        targets, is_weighted = samples.targets, samples.sample_weight is not None
        self._targets = cupy.empty((n_batches, n_batch, *targets.shape[1:]), targets.dtype)
        self._weights = cupy.empty((n_batches, n_batch if is_weighted else 1), np.float32)
        self._n_rows = cupy.empty((n_batches, 1), np.int32)
        self._scales = cupy.empty((n_batches, 1), np.float64)

        self.losses, self.is_correct = cupy.empty(n_batch, np.float64), cupy.empty(n_batch, np.int32)
        n_squares = -(-layout.n_weights // (_WEIGHTS_PER_WARP * HEAD_WARPS))
        self.n_squares = min(n_squares, _MAX_SQUARES) if network.l2 else 0
        self.squares = cupy.empty(max(self.n_squares, 1), np.float64)
        self.layers, self.n_tiles = self._describe_layers(layout, update)

    def _describe_layers(self, layout: ParameterLayout, tile: Tile) -> tuple[Array, int]:
        rows, n_tiles = [], 0
        bias_offsets = layout.bias_offsets or (0,) * len(layout.weight_shapes)
        offsets = zip(layout.weight_offsets, bias_offsets, self._input_starts, self._d_z_starts, strict=False)
        for shape, offsets_of_layer in zip(layout.weight_shapes, offsets, strict=True):
            rows.append([*shape, *offsets_of_layer, n_tiles])
            n_tiles += tile.n_tiles(shape[0] + layout.bias, shape[1])
        return cupy.asarray(np.array(rows, np.int32)), n_tiles

    def place_order(self, order: Array) -> None:
        """Take sample indices that are on the device, at the address where they are."""
        self.order = order
        self.n_ordered.fill(len(order))

    def upload_order(self, order: NDArray[np.int64]) -> bool:
        """Copy sample indices from the host; whether the address changes, as there was too little room."""
        has_moved = len(order) > len(self.order)
        if has_moved:  # to room for an epoch, as runs may become longer and longer until they take one
            self.order = cupy.empty(max(len(order), self._n_samples), np.int64)
        # Not by `set`: of memory that is not page-locked, CUDA takes a copy when all work before it is done.
        upload_into(self.order[: len(order)], order)
        self.n_ordered.fill(len(order))
        return has_moved

    def batch(self, k: int) -> tuple[Array, ...]:
        """The k-th batch: x (B, D), targets, weights (B,), the number of rows that are samples, and the scale."""
        return self.x(k), self._targets[k], self._weights[k], self._n_rows[k], self._scales[k]

    def x(self, k: int) -> Array:
        """The k-th batch's (B, D)."""
        return self.inputs[k * self.x_size : (k + 1) * self.x_size]

    def h(self, layer: int) -> Array:
        """A hidden layer's (B, O)."""
        return self.inputs[self._input_starts[layer + 1] : self._input_starts[layer + 2]]

    def d_z(self, layer: int) -> Array:
        """A layer's (B, O)."""
        return self.all_d_z[self._d_z_starts[layer] : self._d_z_starts[layer + 1]]


def _pitch(width: int) -> int:
    """Floats from one row to the next."""
    return -(-width // _FLOATS_PER_SECTOR) * _FLOATS_PER_SECTOR
