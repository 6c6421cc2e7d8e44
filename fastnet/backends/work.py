"""How long a CPU and a GPU take for work whose sizes are known, roughly: which of the two is sooner done."""

# Legend: B rows of a step.

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise

from fastnet.data import Dataset, is_sparse
from fastnet.spec import TrainingSpec

__all__ = ["Work"]

# What compiled kernels take on one CPU: measured on an EPYC (the README's table of speeds), and right to a factor of
# about three. Units are activations, forward and backward.
_CPU_SECONDS_PER_STEP = 1e-6
_CPU_FLOPS_PER_SECOND = 5e10
_CPU_SECONDS_PER_UNIT = 1.2e-9

# Estimates, none of which has been measured on a GPU. ``benchmarks/gpu.py`` prints what belongs here: how long a device
# takes to start, and a first call; the time per step of `digits-adam`, which is that of launches, and the same by the
# generic path, where each operation is a launch; and the time per step of `deep-512`, which has 1.35e11 operations.
_GPU_SECONDS_TO_START = 1.0
_GPU_SECONDS_PER_STEP = 1e-5
_GPU_SECONDS_PER_STEP_OF_OPERATIONS = 3e-4
_GPU_FLOPS_PER_SECOND = 2e13

_FLOPS_OF_TRAINING = 6  # per weight and row: forward, back, and the gradient, a multiplication and an addition each
_FLOPS_OF_PREDICTION = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done in one call of `fit` or `predict`.

    Attributes
    ----------
    layer_sizes : tuple of int
    n_rows : int
        B, samples that pass through the network at once.
    n_steps : int
        How often.
    flops_per_weight : int
        Floating-point operations for each weight and row.
    has_kernels : bool
        Whether a GPU may have kernels that do more than one operation at a time: for dense samples in float32.
    """

    layer_sizes: tuple[int, ...]
    n_rows: int
    n_steps: int
    flops_per_weight: int = _FLOPS_OF_TRAINING
    has_kernels: bool = True

    @classmethod
    def of_training(cls, spec: TrainingSpec, dataset: Dataset, n_steps: int) -> Work:
        """Work of a fit that is not stopped early."""
        has_kernels = spec.network.dtype == "float32" and not is_sparse(dataset.x)
        n_rows = spec.batch_size or dataset.n_samples
        return cls(spec.network.layer_sizes, n_rows, n_steps, has_kernels=has_kernels)

    @classmethod
    def of_prediction(cls, layer_sizes: tuple[int, ...], n_samples: int) -> Work:
        """Work of a prediction, which is made of operations."""
        return cls(layer_sizes, n_samples, 1, _FLOPS_OF_PREDICTION, has_kernels=False)

    @property
    def flops_per_step(self) -> int:
        """Floating-point operations of a step, in matrix products."""
        weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.layer_sizes))
        return self.flops_per_weight * weights * self.n_rows

    def cpu_seconds(self, n_threads: int | None = None) -> float:
        """Seconds that compiled kernels take, on all CPUs that the process may use or on `n_threads` of them."""
        units = self.n_rows * sum(self.layer_sizes[1:])
        of_one_cpu = self.flops_per_step / _CPU_FLOPS_PER_SECOND + units * _CPU_SECONDS_PER_UNIT
        return self.n_steps * (_CPU_SECONDS_PER_STEP + of_one_cpu / (n_threads or _count_cpus()))

    @property
    def gpu_seconds(self) -> float:
        """Seconds that a GPU takes, its start included."""
        per_step = _GPU_SECONDS_PER_STEP if self.has_kernels else _GPU_SECONDS_PER_STEP_OF_OPERATIONS
        return _GPU_SECONDS_TO_START + self.n_steps * (per_step + self.flops_per_step / _GPU_FLOPS_PER_SECOND)

    def describe_if_small(self, n_threads: int | None = None) -> str | None:
        """Why a CPU is the better choice; None where a GPU is."""
        on_cpu, on_gpu = self.cpu_seconds(n_threads), self.gpu_seconds
        if on_cpu > on_gpu:
            return None
        return f"too little work, for which a CPU takes about {on_cpu:.2g} s, and a GPU {on_gpu:.2g} s with its start"


def _count_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
