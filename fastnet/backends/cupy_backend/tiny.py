"""Networks of few parameters: one block of threads makes all the steps of a launch.

A launch of a kernel takes some microseconds, a step of such a network on one multiprocessor often less. So the other
multiprocessors are left idle, and there is no launch between steps.
"""

# Legend: N samples, D features, B batch size, P parameters, S steps of one run, T threads, V sums of a step.

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.array_plan import Array, ArrayLibrary, Engine
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.functions import (
    activation_name,
    head_name,
    optimizer_constants,
    optimizer_name,
    step_lengths,
    task_name,
)
from fastnet.backends.cupy_backend.modules import load_module
from fastnet.data import Dataset, is_sparse
from fastnet.parameters import ParameterLayout
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = [
    "MAX_NUMBERS",
    "MAX_OPERATIONS",
    "MAX_SAMPLES",
    "TinyEngine",
    "macros",
    "obstacle",
    "open_engine",
]

_C_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}

_WARP = 32
_N_FIGURES = 3  # summed beside the gradients: losses, squared weights, right predictions

# A thread has at most 255 registers, and the compiler needs 100 of them for other than these numbers: the gradient of
# every parameter, a sample and the one after it, what is kept of each unit. A few of the largest networks spill some
# bytes to the L1 cache nevertheless; in float64, where a number takes two registers, all do from some 100 numbers on.
MAX_NUMBERS = 154

# A multiprocessor has 65,536 registers: 512 threads get 128 each, 256 as many as a thread can use.
_MOST_THREADS = 512
_MOST_THREADS_OF_MANY_REGISTERS = 256
_FEW_REGISTERS = 52  # of those numbers alone

# What a sample costs, roughly, in operations.
_OPERATIONS_PER_PARAMETER = 6  # forward, back, and its gradient: a multiplication and an addition each
_OPERATIONS_PER_UNIT = 100  # at most an exponential, a logarithm and divisions

# Of a step. One multiprocessor of a hundred is at work: with more to do, all of them together are sooner done, for all
# that their launches cost. These are 66,000 samples for a network 2-3-1 in float32, 13,000 for one 5-7-6-3. In float64
# one takes twice as long, or much longer if it is not made for that.
MAX_OPERATIONS = {"float32": 30e6, "float64": 10e6}

# The gradient over all samples is one launch, whatever the batch size.
MAX_SAMPLES = 1 << 20

# A launch cannot be interrupted, and is killed if a display hangs on the device. So it is cut by what steps cost on a
# slow device; a fast one is done ten times sooner, which still is long for a launch.
_LONGEST_LAUNCH = 0.05  # seconds
_SECONDS_PER_STEP = 3e-6  # for barriers and sums
_SECONDS_PER_OPERATION = {"float32": 5e-11, "float64": 1e-9}


def obstacle(spec: TrainingSpec, dataset: Dataset, _properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, or would be the slower choice; None if it should."""
    numbers = _numbers_per_thread(spec.network)
    n_operations = _operations_per_sample(spec.network) * _samples_per_step(spec, dataset)
    if is_sparse(dataset.x):
        return "X is sparse"
    if numbers > MAX_NUMBERS:
        return f"a thread would hold {numbers} numbers, more than {MAX_NUMBERS}"
    if n_operations > MAX_OPERATIONS[spec.network.dtype]:
        return f"a step of {n_operations:,} operations is too long for one multiprocessor"
    if dataset.n_samples > MAX_SAMPLES:
        return f"{dataset.n_samples:,} samples are more than {MAX_SAMPLES:,}"
    return None


def _numbers_per_thread(network: NetworkSpec) -> int:
    """What a thread has to keep in registers: see `MAX_NUMBERS`."""
    return ParameterLayout.of(network).size + 2 * sum(network.layer_sizes)


def _samples_per_step(spec: TrainingSpec, dataset: Dataset) -> int:
    return min(spec.batch_size or dataset.n_samples, dataset.n_samples)


def _n_threads(network: NetworkSpec, n_samples: int) -> int:
    """T: whole warps, as few as take the samples of a step in the fewest rounds."""
    registers = _numbers_per_thread(network) * network.numpy_dtype.itemsize // 4
    most = _MOST_THREADS if registers <= _FEW_REGISTERS else _MOST_THREADS_OF_MANY_REGISTERS
    n_rounds = -(-n_samples // most)
    return -(-n_samples // (n_rounds * _WARP)) * _WARP


def _operations_per_sample(network: NetworkSpec) -> int:
    n_units = sum(network.layer_sizes[1:])
    return _OPERATIONS_PER_PARAMETER * ParameterLayout.of(network).size + _OPERATIONS_PER_UNIT * n_units


def _steps_per_launch(network: NetworkSpec, n_samples: int) -> int:
    seconds = n_samples * _operations_per_sample(network) * _SECONDS_PER_OPERATION[network.dtype]
    return max(int(_LONGEST_LAUNCH / (_SECONDS_PER_STEP + seconds)), 1)


def macros(spec: TrainingSpec, dataset: Dataset) -> dict[str, object]:
    """What ``tiny.cu`` is compiled with: its names of what is known of a network and its data."""
    network, layout = spec.network, ParameterLayout.of(spec.network)
    real = _C_TYPES[network.dtype]
    names = [*map(activation_name, network.activations), head_name(network.output, network.loss)]
    return {
        "REAL": real,
        "SAMPLE": _C_TYPES[dataset.x.dtype.name],
        "LAYER_SIZES": _listed(network.layer_sizes),
        "FUNCTIONS": _listed(f"{name}<{real}>" for name in names),
        "TASK": task_name(spec.task, network.output, real),
        "OPTIMIZER": f"{optimizer_name(spec.optimizer)}<{real}>",
        "N_CONSTANTS": len(optimizer_constants(spec.optimizer)),
        "WEIGHT_OFFSETS": _listed(layout.weight_offsets),
        "BIAS_OFFSETS": _listed(layout.bias_offsets or [0] * network.n_layers),
        "HAS_BIAS": int(network.bias),
        "N_WEIGHTS": layout.n_weights,
        "N_PARAMETERS": layout.size,
        "TAKES_LABELS": int(network.takes_labels),
        "N_THREADS": _n_threads(network, _samples_per_step(spec, dataset)),
    }


def _listed(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def open_engine(spec: TrainingSpec, dataset: Dataset, library: ArrayLibrary) -> Engine:
    """An engine for what no :func:`obstacle` stands against; within the library's scope."""
    return TinyEngine(spec, dataset, library)


class TinyEngine:
    """A `fastnet.backends.array_plan.Engine` whose steps are made by one block of threads.

    Parameters
    ----------
    spec : TrainingSpec
    dataset : Dataset
        Brought to the device once, as it is.
    library : ArrayLibrary
        In whose scope the engine is made.
    """

    def __init__(self, spec: TrainingSpec, dataset: Dataset, library: ArrayLibrary) -> None:
        network, n_samples = spec.network, _samples_per_step(spec, dataset)
        self._spec = spec
        self._n_samples = dataset.n_samples
        self._n_threads = _n_threads(network, n_samples)
        self._steps_per_launch = _steps_per_launch(network, n_samples)
        self.detail = f"all steps of a chunk in one launch of one block of {self._n_threads} threads"

        module = load_module("tiny.cu", macros(spec, dataset))
        self._kernel = module.get_function("fastnet_tiny")
        self._shared_bytes = _shared_bytes(network, self._n_threads)
        self._constants = cupy.asarray(np.array(optimizer_constants(spec.optimizer), network.dtype))
        self._x, self._targets = library.to_device(dataset.x), library.to_device(dataset.targets)
        self._host_weight = dataset.sample_weight  # for their sum over a batch
        self._sample_weight = None if self._host_weight is None else library.to_device(self._host_weight)
        self._no_order = cupy.empty(1, np.int64)
        self._whole_schedule = cupy.asarray(self._schedule(np.zeros((1, 2)), None))

    def run(
        self,
        flat: Array,
        state: dict[str, Array],
        n_updates: int,
        learning_rates: Sequence[float] | NDArray,
        order: NDArray[np.int64] | None,
    ) -> tuple[Array, Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.run`."""
        lengths = step_lengths(self._spec.optimizer, learning_rates, n_updates)
        schedule = cupy.asarray(self._schedule(lengths, order))
        order_on_device = None if order is None else cupy.asarray(order)
        figures = _new_figures(len(lengths))
        for start in range(0, len(lengths), self._steps_per_launch):
            steps = range(start, min(start + self._steps_per_launch, len(lengths)))
            self._launch(schedule, steps, order_on_device, flat, state, None, figures)
        return figures

    def loss_and_gradients(self, flat: Array) -> tuple[Array, Array]:
        """See :meth:`fastnet.backends.array_plan.Engine.loss_and_gradients`."""
        gradient, figures = cupy.empty_like(flat), _new_figures(1)
        self._launch(self._whole_schedule, range(1), None, flat, {}, gradient, figures)
        return figures[0][0], gradient

    def _schedule(self, lengths: NDArray[np.float64], order: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Rate, decay, scale and l2 of each step (S, 4), the first two from `lengths` (S, 2)."""
        network = self._spec.network
        schedule = np.empty((len(lengths), 4))
        schedule[:, :2] = lengths
        schedule[:, 2] = self._mean_scales(order) if network.reduction == "mean" else 1.0
        schedule[:, 3] = network.l2 * (schedule[:, 2] if network.l2_averaged else 1.0)
        return schedule

    def _mean_scales(self, order: NDArray[np.int64] | None) -> NDArray[np.float64] | float:
        """`fastnet.reference.mean_scale` of each batch (S,), or that of all samples."""
        if order is None:
            return float(reference.mean_scale(self._n_samples, self._host_weight, xp=np))
        weight = np.ones(len(order)) if self._host_weight is None else self._host_weight[order]
        totals = np.add.reduceat(weight, np.arange(0, len(order), self._spec.batch_size), dtype=np.float64)
        return 1 / np.where(totals == 0, 1, totals)

    def _launch(
        self,
        schedule: Array,
        steps: range,
        order: Array | None,
        flat: Array,
        state: dict[str, Array],
        gradient: Array | None,
        figures: tuple[Array, Array, Array],
    ) -> None:
        """Make some steps of a schedule; where there is an array for the gradient, that alone, and no updates."""
        # Arrays that the kernel has no use for are not touched, whichever they are.
        first_state, second_state = [*state.values(), flat, flat][:2]
        n_ordered, batch_size = (0, 0) if order is None else (len(order), self._spec.batch_size or 0)
        self._kernel(
            (1,),
            (self._n_threads,),
            (
                self._x,
                self._targets,
                self._constants if self._sample_weight is None else self._sample_weight,
                self._no_order if order is None else order,
                np.int64(n_ordered),
                np.int32(self._n_samples),
                np.int32(batch_size),
                np.int32(self._sample_weight is not None),
                self._spec.network.numpy_dtype.type(self._spec.network.input_scale),
                schedule,
                np.int32(steps.start),
                np.int32(len(steps)),
                np.int32(gradient is None),
                self._constants,
                flat,
                first_state,
                second_state,
                flat if gradient is None else gradient,
                *figures,
            ),
            shared_mem=self._shared_bytes,
        )


def _new_figures(n_steps: int) -> tuple[Array, Array, Array]:
    """Loss, penalty and right predictions of a run (S,), yet to be written."""
    return cupy.empty(n_steps, np.float64), cupy.empty(n_steps, np.float64), cupy.empty(n_steps, np.int64)


def _shared_bytes(network: NetworkSpec, n_threads: int) -> int:
    """Parameters, and the V sums of each warp, both in whole lines of 32."""
    n_parameters = ParameterLayout.of(network).size
    n_lines = -(-n_parameters // _WARP) + n_threads // _WARP * -(-(n_parameters + _N_FIGURES) // _WARP)
    return n_lines * _WARP * network.numpy_dtype.itemsize
