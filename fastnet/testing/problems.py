"""Small problems with known answers, and the one rule by which answers are compared."""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.backends.interface import Backend, TrainingPlan
from fastnet.data import Dataset
from fastnet.optimizers import SGD, Optimizer
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.reference import Operations
from fastnet.spec import NetworkSpec, Task, TrainingSpec

__all__ = ["TOLERANCE_FACTOR", "Problem", "assert_close", "make_problem", "oracle", "tolerance"]

# The one constant of the tolerance rule. The largest error of NumPy and Numba, measured over all checks in both dtypes,
# is 1.9 of these units.
TOLERANCE_FACTOR = 8.0

# Pre-activations of the small problems stay this far from zero, where ReLU and its kin have a kink, and outputs as far
# from their targets, where the absolute error has one, so that rounding cannot move one to the other side.
KINK_MARGIN = 1e-4

_KINKED = ("relu", "leaky_relu")

_DEFAULT_TASKS: dict[str, Task] = {
    "softmax": "multiclass",
    "sigmoid": "multilabel",
    "identity": "regression",
    "exp": "regression",
}


def tolerance(dtype: str | np.dtype, longest_reduction: int) -> float:
    """Relative error allowed of a tensor that sums over up to `longest_reduction` terms: ``c sqrt(K) eps``.

    Rounding errors of random sign grow with the square root of their number (Higham 2002, section 2.8).
    """
    return float(TOLERANCE_FACTOR * np.sqrt(longest_reduction) * np.finfo(dtype).eps)


def assert_close(
    actual: Any, expected: Any, *, dtype: str | np.dtype, longest_reduction: int, name: str = "value"
) -> None:
    """Compare by the largest difference over the largest expected value: ``max|a - r| / max|r|``.

    Parameters
    ----------
    actual, expected : array-like of one shape
    dtype : str or dtype
        The precision that `actual` was computed in.
    longest_reduction : int
        K, the number of terms in the longest sum that feeds a value.
    name : str
        For the message.

    Raises
    ------
    AssertionError
        Shapes differ, a value is not finite, all expected values are zero and not all actual ones, or the error is
        larger than :func:`tolerance`.
    """
    a, r = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == r.shape, f"{name}: shape {a.shape}, expected {r.shape}"
    assert np.isfinite(a).all(), f"{name}: holds a value that is not finite"
    scale = np.abs(r).max(initial=0.0)
    if scale == 0:
        assert not a.any(), f"{name}: expected all zeros, got up to {np.abs(a).max():.2e}"
        return
    error = np.abs(a - r).max() / scale
    allowed = tolerance(dtype, longest_reduction)
    assert error <= allowed, f"{name}: relative error {error:.2e}, allowed {allowed:.2e}"


@dataclass(frozen=True, eq=False)
class Problem:
    """A small problem with everything a plan needs."""

    spec: TrainingSpec
    parameters: Parameters
    dataset: Dataset

    @property
    def longest_reduction(self) -> int:
        """K: the number of samples, or the widest layer."""
        return max(self.dataset.n_samples, *self.spec.network.layer_sizes)

    def plan(self, backend: Backend) -> TrainingPlan:
        """The problem as a plan of `backend`."""
        return backend.plan_training(self.spec, self.parameters, self.dataset)


def make_problem(
    layer_sizes: tuple[int, ...] = (5, 7, 6, 3),
    n_samples: int = 19,
    *,
    activation: str = "tanh",
    output: str = "softmax",
    loss: str = "cross_entropy",
    task: Task | None = None,
    optimizer: Optimizer | None = None,
    batch_size: int | None = None,
    storage: str = "dense",
    weighted: bool = False,
    **network_options: Any,
) -> Problem:
    """Random data and parameters for a specification, the same every time it is asked for.

    Parameters
    ----------
    layer_sizes : tuple of int
    n_samples : int
    activation, output, loss, optimizer, batch_size
        As in the specifications.
    task : {"multiclass", "multilabel", "regression"}, optional
        By default what the output suggests.
    storage : {"dense", "uint8", "pixels", "csr"}
        Form of X; pixels are uint8 as well, three quarters of them zero.
    weighted : bool
        Whether samples have weights, some of them zero.
    **network_options
        Further fields of `NetworkSpec`.
    """
    network = NetworkSpec(layer_sizes, (activation,) * (len(layer_sizes) - 2), output, loss, **network_options)
    spec = TrainingSpec(network, optimizer or SGD(learning_rate=0.1), batch_size, task or _DEFAULT_TASKS[output])
    for seed in range(1000):
        problem = _draw_problem(spec, n_samples, storage, weighted, np.random.default_rng(seed))
        if _distance_from_kinks(oracle(problem)) > KINK_MARGIN:
            return problem
    raise AssertionError("no seed keeps all values away from the kinks: use fewer samples")


def _draw_problem(
    spec: TrainingSpec, n_samples: int, storage: str, weighted: bool, random: np.random.Generator
) -> Problem:
    network = spec.network
    layout = ParameterLayout.of(network)
    flat = random.normal(size=layout.size) / np.sqrt(max(2.0, float(np.mean(network.layer_sizes))))
    x: Any = random.normal(size=(n_samples, network.n_features)).astype(network.dtype)
    if storage == "uint8":
        x = random.integers(0, 256, x.shape).astype(np.uint8)
    if storage == "pixels":
        x = np.where(random.random(x.shape) < 0.25, random.integers(1, 256, x.shape), 0).astype(np.uint8)
    if storage == "csr":
        from scipy.sparse import csr_array

        x = csr_array(np.where(random.random(x.shape) < 0.3, x, 0))
    weight = random.integers(0, 4, n_samples) / 2 if weighted else None
    return Problem(
        spec,
        Parameters(layout, flat.astype(network.dtype)),
        Dataset(x, _draw_targets(spec, n_samples, random), None if weight is None else weight.astype(network.dtype)),
    )


def _draw_targets(spec: TrainingSpec, n_samples: int, random: np.random.Generator) -> NDArray:
    network = spec.network
    shape = (n_samples, network.n_outputs)
    if network.takes_labels:
        return random.integers(0, network.n_outputs, n_samples).astype(np.int32)
    if spec.task == "multiclass":
        return np.eye(network.n_outputs, dtype=network.dtype)[random.integers(0, network.n_outputs, n_samples)]
    if spec.task == "multilabel":
        return random.integers(0, 2, shape).astype(network.dtype)
    if network.loss == "poisson":
        return random.integers(0, 4, shape).astype(network.dtype)
    if network.loss == "gamma":
        return random.gamma(2.0, size=shape).astype(network.dtype)
    return random.normal(size=shape).astype(network.dtype)


def oracle(problem: Problem) -> Problem:
    """The same problem, the same numbers, to be computed in float64."""
    network, dataset = problem.spec.network, problem.dataset
    weight = dataset.sample_weight
    targets = dataset.targets if network.takes_labels else dataset.targets.astype(np.float64)
    return Problem(
        replace(problem.spec, network=network.in_float64()),
        Parameters(problem.parameters.layout, problem.parameters.flat.astype(np.float64)),
        Dataset(dataset.x.astype(np.float64), targets, None if weight is None else weight.astype(np.float64)),
    )


def _distance_from_kinks(problem: Problem) -> float:
    network, layout = problem.spec.network, problem.parameters.layout
    hidden, logits = reference.forward(
        network, layout, problem.parameters.flat, problem.dataset.x, Operations(NumpyNamespace())
    )
    distances = [z for (z, _), activation in zip(hidden, network.activations, strict=True) if activation in _KINKED]
    if network.loss == "absolute_error":
        distances.append(logits - problem.dataset.targets)
    return min((float(np.abs(distance).min()) for distance in distances), default=np.inf)
