"""The launches that a step on a mini-batch consists of."""

# Legend: B rows of a batch, I fan-in, O fan-out, P parameters.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cupy
import numpy as np

from fastnet.backends.array_plan import Array
from fastnet.backends.cupy_backend.batch_launches import Launch, StepLauncher
from fastnet.backends.cupy_backend.batch_memory import BatchMemory, Samples
from fastnet.backends.cupy_backend.batch_shapes import (
    GATHER_WARPS,
    HEAD_WARPS,
    N_WARPS,
    Shapes,
    head_shared_bytes,
    n_slices,
    slice_lengths,
)
from fastnet.backends.cupy_backend.chunks import Chunks
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.functions import optimizer_constants
from fastnet.backends.cupy_backend.modules import get_kernel
from fastnet.parameters import ParameterLayout
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["Steps", "distinct_activations"]

_WARP = 32
_N_THREADS = N_WARPS * _WARP
_SHARED_BYTES_WITHOUT_ASKING = 48 << 10
_SUMS_BYTES = 8 * N_WARPS  # a float64 of each warp


@dataclass(frozen=True, slots=True, eq=False)
class _Goal:
    """What steps read and write beside their own memory; the gradient is None where they update."""

    chunks: Chunks
    flat: Array
    state: Sequence[Array]
    l2: float
    gradient: Array | None


class Steps:
    """Steps on batches of one size.

    Parameters
    ----------
    module : cupy.RawModule
        ``batches.cu``, for `spec` and `shapes`.
    spec : TrainingSpec
    shapes : Shapes
    samples : Samples
    n_batch : int
        B.
    changes_batches : bool
        Whether each step is made on a batch of its own, rather than all on the first one.
    scale : float or None
        What sums over samples are multiplied by; None makes them means over the samples of a batch.
    properties : DeviceProperties

    Attributes
    ----------
    n_batch : int
    memory : BatchMemory
    """

    def __init__(
        self,
        module: Any,
        spec: TrainingSpec,
        shapes: Shapes,
        samples: Samples,
        n_batch: int,
        changes_batches: bool,
        scale: float | None,
        properties: DeviceProperties,
    ) -> None:
        self._spec, self._network = spec, spec.network
        self._layout = ParameterLayout.of(spec.network)
        self._shapes, self._samples = shapes, samples
        self.n_batch = n_batch
        self._changes_batches = changes_batches
        self._scale = scale
        self._slice_lengths = slice_lengths(spec.network, n_batch, properties.n_multiprocessors, shapes.forward)
        self._kernels = _get_functions(module, spec.network, properties)
        self._constants = cupy.asarray(np.array(optimizer_constants(spec.optimizer), np.float32))
        self.memory = BatchMemory(
            spec, samples, n_batch, 2 if changes_batches else 1, self._slice_lengths, shapes.update
        )

    @property
    def n_launches(self) -> int:
        """Of a step."""
        n_hidden = self._network.n_layers - 1
        return n_hidden + max(n_hidden - 1, 0) + 2

    def bind(
        self, chunks: Chunks, flat: Array, state: Sequence[Array], l2: float, gradient: Array | None = None
    ) -> StepLauncher:
        """Steps with the order that is in the memory now.

        Parameters
        ----------
        chunks : Chunks
            Where they find their rates and leave their figures.
        flat : cupy.ndarray (P,) of float32
        state : sequence of cupy.ndarray (P,)
            What the optimizer remembers, in the order of `fastnet.reference.initial_state`.
        l2 : float
        gradient : cupy.ndarray (P,), optional
            What the gradients of all steps are added to; then nothing is updated.
        """
        goal = _Goal(chunks, flat, state, l2, gradient)
        gather = Launch(
            self._kernels["gather"],
            (self._n_gathering,),
            _N_THREADS,
            _SUMS_BYTES,
            (*self._sources(), np.int32(self.n_batch), goal.chunks.step, *self.memory.batch(0)),
        )
        if not self._changes_batches:
            return StepLauncher(gather, [self._step(goal, 0, 0)] * 2)
        return StepLauncher(gather, [self._step(goal, 0, 1), self._step(goal, 1, 0)])

    def _step(self, goal: _Goal, batch: int, following: int) -> list[Launch]:
        """The launches of a step on one batch that gathers the following one."""
        return [
            *self._forward(goal, batch),
            self._head(goal, batch),
            *self._backward(goal),
            self._update(goal, batch, following),
        ]

    @property
    def _n_gathering(self) -> int:
        return -(-self.n_batch // (N_WARPS // GATHER_WARPS))

    def _forward(self, goal: _Goal, batch: int) -> list[Launch]:
        tile, memory, launches = self._shapes.forward, self.memory, []
        for layer, (fan_in, fan_out) in enumerate(pairwise(self._network.layer_sizes[:-1])):
            length = self._slice_lengths[layer]
            grid = tile.n_across(fan_out), tile.n_down(self.n_batch), n_slices(fan_in, length)
            weight, sizes = self._weight(goal, layer), _int32(self.n_batch, fan_in, fan_out, length)
            if layer == 0:
                name, arguments = "forward_first", (memory.x(batch), weight, *sizes)
            else:
                *_, n_rows, _ = memory.batch(batch)
                below = *self._hidden(goal, layer - 1), memory.h(layer - 1)
                name, arguments = "forward_next", (*below, n_rows, weight, *sizes)
            arguments = (*arguments, memory.slices[layer])
            launches.append(Launch(self._kernels[name], grid, _N_THREADS, tile.shared_bytes, arguments))
        return launches

    def _head(self, goal: _Goal, batch: int) -> Launch:
        memory, last = self.memory, self._network.n_layers - 1
        x, targets, weights, n_rows, scale = memory.batch(batch)
        d_logits = memory.d_z(last)
        if last:
            below, kept = self._hidden(goal, last - 1), (memory.h(last - 1), memory.d_z(last - 1))
        else:  # nothing is read or written in the place of a hidden layer
            below, kept = (x, goal.flat, *_int32(0, 0)), (memory.squares.view(np.float32),) * 2
        arguments = (
            *below,
            self._weight(goal, last),
            self._bias(goal, last),
            targets,
            weights,
            n_rows,
            scale,
            *_int32(self.n_batch, self._network.layer_sizes[-2], self._is_weighted),
            goal.flat,
            *_int32(self._layout.n_weights, memory.n_squares),
            *kept,
            d_logits,
            memory.losses,
            memory.is_correct,
            memory.squares,
            goal.chunks.step,
        )
        grid = (-(-self.n_batch // HEAD_WARPS) + memory.n_squares,)
        shared_bytes = head_shared_bytes(self._network)
        return Launch(self._kernels["head"], grid, HEAD_WARPS * _WARP, shared_bytes, arguments)

    def _backward(self, goal: _Goal) -> list[Launch]:
        tile, memory, launches = self._shapes.forward, self.memory, []
        for layer in reversed(range(1, self._network.n_layers - 1)):
            fan_in, fan_out = self._layout.weight_shapes[layer]
            arguments = (
                memory.d_z(layer),
                self._weight(goal, layer),
                *self._hidden(goal, layer - 1),
                *_int32(self.n_batch, fan_in, fan_out),
                memory.d_z(layer - 1),
            )
            grid = tile.n_across(fan_in), tile.n_down(self.n_batch)
            launches.append(Launch(self._kernels["backward"], grid, _N_THREADS, tile.shared_bytes, arguments))
        return launches

    def _update(self, goal: _Goal, batch: int, following: int) -> Launch:
        memory, chunks, tile = self.memory, goal.chunks, self._shapes.update
        n_gathering = self._n_gathering if self._changes_batches else 0
        *_, scale = memory.batch(batch)
        first_state, second_state = [*goal.state, goal.flat, goal.flat][:2]  # what there is none of is not touched
        arguments = (
            memory.layers,
            np.int32(self._network.n_layers),
            memory.inputs,
            np.int32(batch * memory.x_size),
            memory.all_d_z,
            np.int32(self.n_batch),
            self._constants,
            chunks.lengths,
            chunks.step,
            scale,
            np.float64(goal.l2),
            *_int32(self._network.l2_averaged, goal.gradient is None),
            goal.flat,
            first_state,
            second_state,
            goal.flat if goal.gradient is None else goal.gradient,
            memory.losses,
            memory.is_correct,
            memory.squares,
            np.int32(memory.n_squares),
            chunks.loss,
            chunks.penalty,
            chunks.n_correct,
            np.int32(n_gathering),
            *self._sources(),
            *memory.batch(following),
        )
        grid = (n_gathering + 1 + memory.n_tiles,)
        return Launch(self._kernels["update"], grid, _N_THREADS, tile.shared_bytes, arguments)

    # --- Arguments that several kernels take ---

    @property
    def _is_weighted(self) -> bool:
        return self._samples.sample_weight is not None

    def _sources(self) -> tuple[Any, ...]:
        """The samples, and how batches are made of them."""
        samples = self._samples
        return (
            samples.x,
            samples.targets,
            samples.sample_weight if self._is_weighted else self._constants,
            self.memory.order,
            self.memory.n_ordered,
            *_int32(self._network.n_features, self._is_weighted),
            np.float32(self._network.input_scale),
            np.float64(self._scale or 0.0),
        )

    def _hidden(self, goal: _Goal, layer: int) -> tuple[Any, ...]:
        """A hidden layer's slices, its bias, the number of slices, and its activation."""
        n = n_slices(self._network.layer_sizes[layer], self._slice_lengths[layer])
        activation = distinct_activations(self._network).index(self._network.activations[layer])
        return self.memory.slices[layer], self._bias(goal, layer), *_int32(n, activation)

    def _weight(self, goal: _Goal, layer: int) -> Array:
        return goal.flat[self._layout.weight_offsets[layer] :]

    def _bias(self, goal: _Goal, layer: int) -> Array:
        return goal.flat[self._layout.bias_offsets[layer] :] if self._network.bias else goal.flat


def distinct_activations(network: NetworkSpec) -> tuple[str, ...]:
    """Each activation of a network once, in the order in which kernels number them."""
    return tuple(sorted(set(network.activations))) or ("identity",)


def _get_functions(module: Any, network: NetworkSpec, properties: DeviceProperties) -> dict[str, Any]:
    """The kernels that a network needs, ready to be launched."""
    names = ["gather", "head", "update"]
    names += ["forward_first"] if network.n_layers > 1 else []
    names += ["forward_next", "backward"] if network.n_layers > 2 else []
    kernels = {name: get_kernel(module, f"fastnet_batches_{name}") for name in names}
    if head_shared_bytes(network) > _SHARED_BYTES_WITHOUT_ASKING:
        # As much as there is, since the kernel of another plan may be the same one.
        kernels["head"].max_dynamic_shared_size_bytes = properties.shared_memory_per_block
    return kernels


def _int32(*numbers: int) -> tuple[np.int32, ...]:
    return tuple(map(np.int32, numbers))
