"""The CUDA source that all kernels share, the names in it that a specification stands for, and their constants."""

# Legend: S steps of one run.

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from fastnet.optimizers import SGD, Adam, AdamW, Optimizer
from fastnet.reference import LEAKY_SLOPE, adam_rate
from fastnet.spec import Task

__all__ = [
    "activation_name",
    "has_source",
    "head_name",
    "optimizer_constants",
    "optimizer_name",
    "read_source",
    "step_lengths",
    "task_name",
]


def has_source(file_name: str) -> bool:
    """Whether this package has such a file of CUDA source."""
    return files(__package__).joinpath(file_name).is_file()


def read_source(file_name: str) -> str:
    """A file of CUDA source of this package, with the constants it takes from Python defined above it."""
    source = files(__package__).joinpath(file_name).read_text(encoding="utf-8")
    return f"#define LEAKY_SLOPE {LEAKY_SLOPE}\n{source}" if file_name == "functions.cuh" else source


def activation_name(activation: str) -> str:
    """Template in ``functions.cuh`` of an activation."""
    return "fastnet::" + {"tanh": "hyperbolic_tangent"}.get(activation, activation)


def head_name(output: str, loss: str) -> str:
    """Template in ``functions.cuh`` of an output and a loss."""
    return f"fastnet::{output}_{loss}"


def task_name(task: Task, output: str, float_type: str) -> str:
    """Class in ``functions.cuh`` that counts right predictions; `float_type` is "float", "double" or a type's name."""
    return f"fastnet::{task}<{float_type}, fastnet::{output}_output>"


def optimizer_name(optimizer: Optimizer) -> str:
    """Template in ``functions.cuh`` of an optimizer."""
    if isinstance(optimizer, SGD):
        return "fastnet::" + ("nesterov" if optimizer.nesterov else "momentum" if optimizer.momentum else "sgd")
    return "fastnet::adam"


def optimizer_constants(optimizer: Optimizer) -> list[float]:
    """What ``functions.cuh`` calls `constants`; never empty, as arrays on a device had better not be."""
    if isinstance(optimizer, SGD):
        return [optimizer.momentum]
    beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
    return [beta_1, 1 - beta_1, beta_2, 1 - beta_2, optimizer.epsilon]


def step_lengths(
    optimizer: Optimizer, learning_rates: Sequence[float] | NDArray, n_updates: int
) -> NDArray[np.float64]:
    """`rate` and `decay` of each step (S, 2), when `n_updates` updates have been made before the first of them."""
    rates = np.asarray(learning_rates, np.float64)
    lengths = np.zeros((len(rates), 2))
    lengths[:, 0] = rates
    if isinstance(optimizer, Adam):
        lengths[:, 0] = [adam_rate(optimizer, rate, n_updates + k) for k, rate in enumerate(rates.tolist(), start=1)]
    if isinstance(optimizer, AdamW):
        lengths[:, 1] = rates * optimizer.weight_decay
    return lengths
