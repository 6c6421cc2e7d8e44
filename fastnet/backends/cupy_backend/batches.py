"""Mini-batches, and full batches that are small: a few kernels of our own make a step, and a graph many of them.

Their products are float32 multiply-adds: exact factors, sums in float32. What limits such steps is not arithmetic but
how long a launch takes, and a launch takes the host longer than the device. So there are few of them, they are recorded
as CUDA graphs, and what differs from step to step lies on the device.
"""

# Legend: N samples, B rows of a batch, P parameters, S steps of one run.

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.array_plan import Array, Engine
from fastnet.backends.cupy_backend.batch_launches import StepLauncher
from fastnet.backends.cupy_backend.batch_memory import Samples
from fastnet.backends.cupy_backend.batch_shapes import (
    GATHER_WARPS,
    HEAD_WARPS,
    MAX_SLICES,
    N_WARPS,
    STAGE,
    Shapes,
    choose_shapes,
    head_shared_bytes,
    step_cycles,
)
from fastnet.backends.cupy_backend.batch_steps import Steps, distinct_activations
from fastnet.backends.cupy_backend.chunks import Chunks
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.functions import (
    activation_name,
    head_name,
    optimizer_constants,
    optimizer_name,
    step_lengths,
    task_name,
)
from fastnet.backends.cupy_backend.library import CupyLibrary
from fastnet.backends.cupy_backend.modules import load_module
from fastnet.backends.cupy_backend.replay import GRAPH_LENGTHS, Replay
from fastnet.data import Dataset, is_sparse
from fastnet.parameters import ParameterLayout
from fastnet.spec import TrainingSpec

__all__ = [
    "FILES",
    "MAX_CYCLES_PER_LAYER",
    "MAX_OUTPUTS",
    "MAX_ROWS",
    "BatchesEngine",
    "cannot_train",
    "macros",
    "obstacle",
    "open_engine",
]

FILES = ("batches.cu", "batches_head.cu", "batches_update.cu")

# A lane of the head has all logits of a sample in registers.
MAX_OUTPUTS = 64
# One block adds the losses of a batch up.
MAX_ROWS = 1 << 16
# Of a step, as `step_cycles` has it. The generic path takes some 85 microseconds per layer for its launches, which are
# 150,000 cycles, and hides its products behind them. These kernels had better take half of that, by an estimate that
# leaves out whatever may hinder them. Nothing of this has been measured on a GPU.
MAX_CYCLES_PER_LAYER = 75_000

# Rows at a time when the objective over the whole dataset is computed: enough to keep the device busy.
_EVALUATION_ROWS = 1024


def obstacle(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, or would be the slower choice; None if it should."""
    network, n_batch = spec.network, spec.batch_size or dataset.n_samples
    reason = cannot_train(spec, dataset, properties)
    if reason is not None:
        return reason
    cycles = step_cycles(network, n_batch, properties.n_multiprocessors)
    most = MAX_CYCLES_PER_LAYER * network.n_layers
    if cycles > most:
        return f"a step would take its kernels about {cycles:,.0f} cycles; from {most:,} on, cuBLAS is sooner done"
    return None


def cannot_train(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, be it the slower choice or not."""
    network, n_batch = spec.network, spec.batch_size or dataset.n_samples
    shared_bytes = head_shared_bytes(network)
    if network.dtype != "float32":
        return f"the network is {network.dtype}"
    if is_sparse(dataset.x):
        return "X is sparse"
    if dataset.x.dtype not in (np.float32, np.uint8):
        return f"X is {dataset.x.dtype}"
    if network.n_outputs > MAX_OUTPUTS:
        return f"{network.n_outputs} outputs are more than {MAX_OUTPUTS}"
    if n_batch > MAX_ROWS:
        return f"{n_batch:,} samples per step are more than {MAX_ROWS:,}"
    if shared_bytes > properties.shared_memory_per_block:
        has = properties.shared_memory_per_block
        return f"the last layer needs {shared_bytes} bytes of shared memory, and the device has {has}"
    return None


def macros(spec: TrainingSpec, x_dtype: np.dtype, shapes: Shapes) -> dict[str, object]:
    """What `FILES` are compiled with, for X of a dtype."""
    network = spec.network
    return {
        "SAMPLE": "unsigned char" if x_dtype == np.uint8 else "float",
        "N_HIDDEN": min(network.n_layers - 1, 2),
        "ACTIVATIONS": ",".join(f"{activation_name(name)}<float>" for name in distinct_activations(network)),
        "N_OUTPUTS": network.n_outputs,
        "HEAD": f"{head_name(network.output, network.loss)}<float>",
        "TASK": task_name(spec.task, network.output, "float"),
        "OPTIMIZER": f"{optimizer_name(spec.optimizer)}<float>",
        "N_CONSTANTS": len(optimizer_constants(spec.optimizer)),
        "HAS_BIAS": int(network.bias),
        "TAKES_LABELS": int(network.takes_labels),
        "N_WARPS": N_WARPS,
        "HEAD_WARPS": HEAD_WARPS,
        "GATHER_WARPS": GATHER_WARPS,
        "STAGE": STAGE,
        "MAX_SLICES": MAX_SLICES,
        "HAS_WEIGHT_VECTORS": int(all(width % 4 == 0 for width in network.layer_sizes[1:-1])),
        "FORWARD_ROWS": shapes.forward.rows,
        "FORWARD_COLUMNS": shapes.forward.columns,
        "UPDATE_ROWS": shapes.update.rows,
        "UPDATE_COLUMNS": shapes.update.columns,
    }


def open_engine(spec: TrainingSpec, dataset: Dataset, library: CupyLibrary) -> Engine:
    """An engine for what no :func:`obstacle` stands against; within the library's scope."""
    return BatchesEngine(spec, dataset, library)


class BatchesEngine:
    """A `fastnet.backends.array_plan.Engine` whose steps are a few launches each, replayed in graphs.

    Parameters
    ----------
    spec : TrainingSpec
    dataset : Dataset
        Brought to the device once, as it is.
    library : CupyLibrary
        In whose scope the engine is made.
    """

    def __init__(self, spec: TrainingSpec, dataset: Dataset, library: CupyLibrary) -> None:
        self._spec = spec
        self._library = library
        self._n_samples, self._n_batch = dataset.n_samples, spec.batch_size or dataset.n_samples
        self._shapes = choose_shapes(spec.network, self._n_batch, library.properties.n_multiprocessors)
        self._module = load_module(FILES, macros(spec, dataset.x.dtype, self._shapes))
        weight = dataset.sample_weight
        self._samples = Samples(
            library.to_device(dataset.x),
            library.to_device(dataset.targets),
            None if weight is None else library.to_device(weight),
        )
        is_mean = spec.network.reduction == "mean"
        self._scale_of_all = float(reference.mean_scale(self._n_samples, weight, xp=np)) if is_mean else 1.0
        self._chunks = Chunks(spec.network.dtype)
        self._steps = self._make_steps(self._n_batch, None if is_mean else 1.0)
        self._replayed: tuple[StepLauncher, Replay] | None = None
        if spec.batch_size is None:
            self._steps.memory.place_order(cupy.arange(self._n_samples, dtype=np.int64))
        self.detail = (
            f"batches of {self._n_batch}: {self._steps.n_launches} launches per step, replayed in graphs of up to "
            f"{GRAPH_LENGTHS[0]} steps, in tiles of {self._shapes.forward} and {self._shapes.update}"
        )

    def _make_steps(self, n_batch: int, scale: float | None) -> Steps:
        changes_batches = self._spec.batch_size is not None
        properties = self._library.properties
        return Steps(self._module, self._spec, self._shapes, self._samples, n_batch, changes_batches, scale, properties)

    def run(
        self,
        flat: Array,
        state: dict[str, Array],
        n_updates: int,
        learning_rates: Sequence[float] | NDArray,
        order: NDArray[np.int64] | None,
    ) -> tuple[Array, Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.run`."""

        def make_steps(start: int, stop: int) -> None:
            if order is not None:
                self._upload(order[start * self._n_batch : stop * self._n_batch])
            if self._replayed is None:
                launcher = self._steps.bind(self._chunks, flat, (*state.values(),), self._spec.network.l2)
                self._replayed = launcher, Replay(launcher)
            launcher, replay = self._replayed
            launcher.begin()
            replay.run(stop - start)

        return self._chunks.run(step_lengths(self._spec.optimizer, learning_rates, n_updates), make_steps)

    def _upload(self, order: NDArray[np.int64]) -> None:
        if self._steps.memory.upload_order(order):
            self._replayed = None  # it would read the order from where it was

    def loss_and_gradients(self, flat: Array) -> tuple[Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.loss_and_gradients`."""
        steps, gradient = self._steps_over_all, cupy.zeros_like(flat)

        def make_steps(start: int, stop: int) -> None:
            first, last = start * steps.n_batch, min(stop * steps.n_batch, self._n_samples)
            steps.memory.place_order(cupy.arange(first, last, dtype=np.int64))
            launcher = steps.bind(self._chunks, flat, (), 0.0, gradient)
            launcher.begin()
            for _ in range(start, stop):
                launcher()

        network, n_weights = self._spec.network, ParameterLayout.of(self._spec.network).n_weights
        losses, _, _ = self._chunks.run(np.zeros((-(-self._n_samples // steps.n_batch), 2)), make_steps)
        if not network.l2:
            return losses.sum(), gradient
        l2 = network.l2 * (self._scale_of_all if network.l2_averaged else 1.0)
        penalty = self._library.operations.penalty(l2, flat[:n_weights], gradient[:n_weights])
        return losses.sum() + penalty, gradient

    @cached_property
    def _steps_over_all(self) -> Steps:
        """Steps whose gradients add up to that of the whole dataset."""
        if self._spec.batch_size is None:
            return self._steps
        return self._make_steps(min(max(self._n_batch, _EVALUATION_ROWS), self._n_samples), self._scale_of_all)
