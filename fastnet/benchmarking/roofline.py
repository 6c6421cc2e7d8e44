"""What a training step must do at least, and how long a machine must take for that: the roofline model.

After Williams, Waterman and Patterson (2009), "Roofline: an insightful visual performance model for multicore
architectures": a step takes at least as long as its bytes take to be moved, and as its operations take to be made.
"""

# Legend: N samples, D features, I fan-in, O fan-out of a layer, P parameters, B samples of a step (their mean number).

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet import reference
from fastnet.data import Dataset, is_sparse
from fastnet.parameters import ParameterLayout
from fastnet.spec import TrainingSpec

__all__ = ["MachineSpeed", "Roofline", "StepCost", "count_step"]


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step must do at least, whoever makes it.

    Attributes
    ----------
    n_bytes : float
        Samples, targets and weights of the step in the form in which they are stored, read once; parameters and
        optimizer state, read and written once. Activations and gradients may stay in a cache.
    flops : float
        Of matrix products, two for each multiplication and addition, as if no feature were zero.
    flops_of_nonzeros : float
        The same, less what is multiplied by features that are zero.
    """

    n_bytes: float
    flops: float
    flops_of_nonzeros: float


@dataclass(frozen=True, slots=True)
class MachineSpeed:
    """What a machine was measured to do, with so many threads.

    Attributes
    ----------
    dtype : str
        Of the matrices multiplied.
    n_threads : int
    bytes_per_second : float
        Read from memory.
    flops_per_second : float
        In NumPy's product of large matrices.
    """

    dtype: str
    n_threads: int
    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """A measured step beside what the machine allows. Times are in seconds.

    Attributes
    ----------
    memory_seconds : float
        What reading and writing takes.
    product_seconds, product_seconds_of_nonzeros : float
        What the products take, with and without those by zero.
    fraction, fraction_of_nonzeros : float
        The larger of the times for memory and products over the measured time. The first may exceed 1 where zeros are
        skipped, and both where the samples lie in a cache, or smaller than they are stored.
    """

    memory_seconds: float
    product_seconds: float
    product_seconds_of_nonzeros: float
    fraction: float
    fraction_of_nonzeros: float

    @classmethod
    def of(cls, cost: StepCost, speed: MachineSpeed, seconds: float) -> Roofline:
        """The roofline of a step that took so many seconds."""
        memory = cost.n_bytes / speed.bytes_per_second
        dense, nonzero = cost.flops / speed.flops_per_second, cost.flops_of_nonzeros / speed.flops_per_second
        return cls(memory, dense, nonzero, max(memory, dense) / seconds, max(memory, nonzero) / seconds)


def count_step(spec: TrainingSpec, dataset: Dataset) -> StepCost:
    """What the steps of `spec` on `dataset` cost, on average over an epoch."""
    network, n_steps = spec.network, spec.n_steps(dataset.n_samples)
    layout = ParameterLayout.of(network)
    n_state_arrays = len(reference.initial_state(spec.optimizer, np.empty(0), xp=np))
    kept_bytes = (1 + n_state_arrays) * layout.size * network.numpy_dtype.itemsize
    # Forward and the weight's gradient multiply each feature of the first layer's input by its O weights, one by one.
    of_features = 2 * 2 * network.layer_sizes[1]
    # The layers above make a third product, the gradient of their input.
    of_sample = sum(3 * 2 * fan_in * fan_out for fan_in, fan_out in layout.weight_shapes[1:])
    n_samples, n_features = dataset.n_samples / n_steps, dataset.n_samples * network.n_features / n_steps
    return StepCost(
        n_bytes=_stored_bytes(dataset) / n_steps + 2 * kept_bytes,
        flops=of_features * n_features + of_sample * n_samples,
        flops_of_nonzeros=of_features * _count_nonzeros(dataset) / n_steps + of_sample * n_samples,
    )


def _stored_bytes(dataset: Dataset) -> int:
    x, weight = dataset.x, dataset.sample_weight
    arrays = [x.data, x.indices, x.indptr] if is_sparse(x) else [x]
    arrays += [dataset.targets] if weight is None else [dataset.targets, weight]
    return sum(array.nbytes for array in arrays)


def _count_nonzeros(dataset: Dataset) -> int:
    return int(np.count_nonzero(dataset.x.data if is_sparse(dataset.x) else dataset.x))
