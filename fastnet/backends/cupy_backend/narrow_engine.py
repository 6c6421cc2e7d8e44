"""The steps of the narrow path: two launches each, recorded once as CUDA graphs, and scales that follow the numbers.

Tensor cores multiply halves (fp16). A float32 number is the sum of two halves to 22 bits as long as it is in their
range, which a power of two brings it to. When weights or gradients leave the range, the device freezes; the host looks
after every chunk of steps, chooses other scales, and has the steps made that were not.
"""

# Legend: P parameters, S steps of one run, B blocks of a step, E elements, U blocks of an update; see ``narrow.cuh``.

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_plan import Array
from fastnet.backends.cupy_backend.chunks import Chunks
from fastnet.backends.cupy_backend.functions import optimizer_constants, step_lengths
from fastnet.backends.cupy_backend.modules import get_kernel, load_module
from fastnet.backends.cupy_backend.narrow_layout import NarrowLayout, macros
from fastnet.backends.cupy_backend.narrow_scales import Scales
from fastnet.backends.cupy_backend.narrow_storage import make_records, store_samples
from fastnet.backends.cupy_backend.replay import Replay
from fastnet.backends.cupy_backend.uploads import upload
from fastnet.data import Dataset
from fastnet.reference import mean_scale
from fastnet.spec import TrainingSpec

__all__ = ["SOURCES", "NarrowEngine"]

SOURCES = ("narrow.cuh", "narrow_memory.cuh", "narrow_products.cuh", "narrow_step.cu", "narrow_update.cu")

# Of choosing scales for one step. Weights may take one, d_z another; twice that is never needed.
_MOST_ATTEMPTS = 4

_WARP = 32
_UPDATE_THREADS = 256
_UPDATE_SHARED_BYTES = (_UPDATE_THREADS + 2 * _UPDATE_THREADS // _WARP) * 4


class NarrowEngine:
    """A `fastnet.backends.array_plan.Engine` that reads X once per step.

    Parameters
    ----------
    spec : TrainingSpec
    dataset : Dataset
        Brought to the device once.
    layout : NarrowLayout
    n_multiprocessors : int
        B, or fewer blocks where there are fewer tiles of samples. Sums depend on it.
    """

    def __init__(self, spec: TrainingSpec, dataset: Dataset, layout: NarrowLayout, n_multiprocessors: int) -> None:
        n_tiles = math.ceil(dataset.n_samples / layout.tile_samples)
        n_blocks = min(n_multiprocessors, n_tiles)
        form = "bytes" if layout.in_bytes else "floats in two halves"
        self.detail = (
            f"X, as {form}, is read once per step by tensor cores, in {n_blocks} blocks of {layout.n_teams} teams of "
            f"{layout.team_warps} warps"
        )
        self._spec, self._layout = spec, layout
        self._n_samples, self._n_blocks = dataset.n_samples, n_blocks
        self._n_update_blocks = layout.n_elements // _WARP

        tiles_of_team = math.ceil(n_tiles / (n_blocks * layout.n_teams))
        module = load_module(SOURCES, macros(spec, layout, tiles_of_team))
        self._prepare_kernel, self._step_kernel, self._update_kernel = (
            get_kernel(module, f"fastnet_narrow_{name}") for name in ("prepare", "step", "update")
        )
        self._step_kernel.max_dynamic_shared_size_bytes = layout.shared_bytes
        samples = store_samples(dataset, layout, n_multiprocessors)
        records, mean_weight = make_records(dataset, layout)
        self._x, self._records = samples.rows, upload(records).view(np.uint8)
        self._input_scale = spec.network.input_scale * samples.scale
        of_mean = float(mean_scale(dataset.n_samples, dataset.sample_weight, xp=np))
        self._scale = mean_weight * (of_mean if spec.network.reduction == "mean" else 1.0)
        self._l2 = spec.network.l2 * (of_mean if spec.network.l2_averaged else 1.0)
        self._constants = cupy.asarray(np.array(optimizer_constants(spec.optimizer), np.float32))
        self._feature_unscales = cupy.asarray(np.exp2(-samples.exponents).astype(np.float32))
        self._scales = Scales(int(samples.exponents.min()))
        self._allocate()
        self._replay: Replay | None = None

    def _allocate(self) -> None:
        """What passes from launch to launch; see the kernels."""
        n_blocks, n_update_blocks = self._n_blocks, self._n_update_blocks
        self._fragments = cupy.zeros(self._layout.fragment_bytes // 2, np.uint16)  # padding is never written to
        self._elements = cupy.empty((n_blocks, self._layout.n_elements), np.float32)
        self._losses, self._n_correct = cupy.empty(n_blocks, np.float64), cupy.empty(n_blocks, np.int32)
        self._largest_delta = cupy.empty(n_blocks, np.float32)
        self._squares = cupy.empty((2, n_update_blocks), np.float64)
        self._largest_weight = cupy.empty((2, n_update_blocks), np.float32)
        self._status = cupy.zeros(2, np.int32)  # whether the device is frozen, and at which step of the chunk
        self._chunks = Chunks("float32")

    def run(
        self,
        flat: Array,
        state: dict[str, Array],
        n_updates: int,
        learning_rates: Sequence[float] | NDArray,
        order: NDArray[np.int64] | None,
    ) -> tuple[Array, Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.run`."""
        assert order is None
        if self._replay is None:
            figures = self._chunks.loss, self._chunks.penalty, self._chunks.n_correct
            # Arrays that the kernel has no use for are not touched, whichever they are.
            states = [*state.values(), flat, flat][:2]
            update = self._update(flat, states, figures, flat, updates=True)
            self._replay = Replay(partial(_launch_all, (self._sums(flat), update)))
        prepare, replay = self._prepare(flat), self._replay

        def make_steps(start: int, stop: int) -> None:
            n_made = n_attempts = 0
            while n_made < stop - start:
                prepare()
                replay.run(stop - start - n_made)
                frozen_at = self._frozen_at()
                if frozen_at is None:
                    return
                n_attempts = n_attempts + 1 if frozen_at == n_made else 1
                self._thaw(frozen_at, n_attempts)
                n_made = frozen_at

        return self._chunks.run(step_lengths(self._spec.optimizer, learning_rates, n_updates), make_steps)

    def loss_and_gradients(self, flat: Array) -> tuple[Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.loss_and_gradients`."""
        gradient, loss = cupy.empty_like(flat), cupy.empty(1, np.float64)
        figures = loss, cupy.empty(1, np.float64), cupy.empty(1, np.int64)
        update = self._update(flat, [flat, flat], figures, gradient, updates=False)
        launches = self._prepare(flat), self._sums(flat), update
        for n_attempts in count(1):
            _launch_all(launches)
            frozen_at = self._frozen_at()
            if frozen_at is None:
                break
            self._thaw(frozen_at, n_attempts)
        return loss[0], gradient

    def _frozen_at(self) -> int | None:
        """Wait for the device; the step of the chunk at which it is frozen, or None."""
        is_frozen, step = cupy.asnumpy(self._status).tolist()
        return int(step) if is_frozen else None

    def _thaw(self, step: int, n_attempts: int) -> None:
        """Choose other scales for a step, for which that is done the n-th time now."""
        largest = float(self._largest_weight[step % 2].max()), float(self._largest_delta.max())
        if n_attempts > _MOST_ATTEMPTS:
            raise RuntimeError(f"no scales are found for weights and gradients of up to {largest}: the device fails")
        self._scales.adapt(*largest)
        self._status.fill(0)

    def _prepare(self, flat: Array) -> _Launch:
        arguments = (
            flat,
            self._feature_unscales,
            self._scales.on_device,
            self._chunks.step,
            self._fragments,
            self._squares,
            self._largest_weight,
        )
        return _Launch(self._prepare_kernel, self._n_update_blocks, _WARP, arguments)

    def _sums(self, flat: Array) -> _Launch:
        arguments = (
            self._x,
            self._records,
            np.int32(self._n_samples),
            flat,
            self._fragments,
            self._scales.on_device,
            np.float32(self._input_scale),
            self._chunks.step,
            self._status,
            self._elements,
            self._losses,
            self._n_correct,
            self._largest_delta,
        )
        n_threads, shared_bytes = self._layout.n_threads, self._layout.shared_bytes
        return _Launch(self._step_kernel, self._n_blocks, n_threads, arguments, shared_bytes)

    def _update(
        self, flat: Array, states: list[Array], figures: tuple[Array, Array, Array], gradient: Array, *, updates: bool
    ) -> _Launch:
        arguments = (
            self._elements,
            self._losses,
            self._n_correct,
            self._largest_delta,
            np.int32(self._n_blocks),
            self._feature_unscales,
            self._scales.on_device,
            np.float64(self._scale),
            np.float64(self._input_scale),
            np.float64(self._l2),
            self._chunks.lengths,
            self._constants,
            flat,
            *states,
            self._fragments,
            self._squares,
            self._largest_weight,
            self._status,
            self._chunks.step,
            *figures,
            gradient,
            np.int32(updates),
        )
        return _Launch(self._update_kernel, self._n_update_blocks, _UPDATE_THREADS, arguments, _UPDATE_SHARED_BYTES)


@dataclass(frozen=True, slots=True)
class _Launch:
    """A kernel, and all that it takes; it can be launched again and again, and does not refer to its engine."""

    kernel: Any
    n_blocks: int
    n_threads: int
    arguments: tuple[Any, ...]
    shared_bytes: int = 0

    def __call__(self) -> None:
        self.kernel((self.n_blocks,), (self.n_threads,), self.arguments, shared_mem=self.shared_bytes)


def _launch_all(launches: Iterable[_Launch]) -> None:
    for launch in launches:
        launch()
