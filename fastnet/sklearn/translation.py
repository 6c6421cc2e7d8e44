"""scikit-learn's parameters, weights and targets as fastnet has them, and back."""

# Legend: N samples, C outputs, P parameters.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import is_regressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastnet.data import is_sparse
from fastnet.errors import unknown_name
from fastnet.optimizers import SGD, Adam, Optimizer
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec, Task

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "OUTPUTS",
    "arithmetic_dtype",
    "as_samples",
    "describe_network",
    "describe_optimizer",
    "encode_targets",
    "layer_sizes",
    "read_parameters",
    "read_state",
    "task_of",
    "write_parameters",
    "write_state",
]

# scikit-learn's names, and names in its manner for what it has not, to fastnet's.
ACTIVATIONS = {
    "identity": "identity",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "gelu": "gelu",
    "silu": "silu",
}
OUTPUTS = {"softmax": "softmax", "logistic": "sigmoid", "identity": "identity", "exp": "exp"}
LOSSES = {
    "log_loss": "cross_entropy",
    "squared_error": "squared_error",
    "absolute_error": "absolute_error",
    "poisson": "poisson",
    "gamma": "gamma",
}


def describe_network(estimator: Any, dtype: np.dtype) -> NetworkSpec:
    """The network of an estimator whose weights are drawn or fitted, computing in `dtype`.

    Raises
    ------
    ValueError
        The coefficients, the intercepts and the activations are not those of one network.
    """
    sizes = layer_sizes(estimator)
    return NetworkSpec(
        layer_sizes=sizes,
        activations=hidden_activations(estimator.activation, len(sizes) - 2),
        output=OUTPUTS[estimator.out_activation_],
        loss=LOSSES[estimator.loss],
        l2=float(estimator.alpha),
        l2_averaged=True,
        dtype=dtype.name,
    )


def layer_sizes(estimator: Any) -> tuple[int, ...]:
    """Features, and units of each layer, by the shapes of an estimator's coefficients and intercepts.

    Users may assign to these, and compiled code would read whatever lies beyond an array that is too small.

    Raises
    ------
    ValueError
        The shapes are not those of one network.
    """
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    if len(coefs) != len(intercepts):
        raise ValueError(f"coefs_ has {len(coefs)} arrays and intercepts_ has {len(intercepts)}: one for each layer")
    sizes = [coefs[0].shape[0]]
    for layer, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        if len(coef.shape) != 2 or coef.shape[0] != sizes[-1]:
            raise ValueError(
                f"coefs_[{layer}] has shape {coef.shape}, and {sizes[-1]} values come in from the layer before: "
                "it must have one row for each"
            )
        if np.size(intercept) != coef.shape[1]:
            raise ValueError(
                f"intercepts_[{layer}] has {np.size(intercept)} values, and coefs_[{layer}] has {coef.shape[1]} "
                "columns: one value for each"
            )
        sizes.append(coef.shape[1])
    return tuple(sizes)


def arithmetic_dtype(*dtypes: np.dtype) -> np.dtype:
    """What a backend computes in for arrays of these dtypes: NumPy's choice, or float64 where that is longer."""
    dtype = np.result_type(np.float32, *dtypes)
    return np.dtype(np.float64) if dtype == np.longdouble else dtype


def hidden_activations(activation: str | Sequence[str], n_hidden: int) -> tuple[str, ...]:
    """Activation of each hidden layer in fastnet's names.

    Raises
    ------
    ValueError
        There is not one for each layer, or one is unknown.
    """
    if isinstance(activation, str):
        return (ACTIVATIONS[activation],) * n_hidden
    if len(activation) != n_hidden:
        raise ValueError(f"activation names {len(activation)} activations for {n_hidden} hidden layers: one for each")
    for name in activation:
        if name not in ACTIVATIONS:
            raise unknown_name("activation", name, ACTIVATIONS)
    return tuple(ACTIVATIONS[name] for name in activation)


def describe_optimizer(optimizer: AdamOptimizer | SGDOptimizer) -> Optimizer:
    """Ours for scikit-learn's optimizer."""
    rate = float(optimizer.learning_rate_init)
    if isinstance(optimizer, AdamOptimizer):
        beta_1, beta_2, epsilon = float(optimizer.beta_1), float(optimizer.beta_2), float(optimizer.epsilon)
        return Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
    momentum = float(optimizer.momentum)
    return SGD(rate, momentum=momentum, nesterov=bool(optimizer.nesterov) and momentum > 0)


def task_of(estimator: Any) -> Task:
    """What the outputs of an estimator are, by its output activation."""
    if is_regressor(estimator):
        return "regression"
    return "multiclass" if estimator.out_activation_ == "softmax" else "multilabel"


def encode_targets(network: NetworkSpec, y: NDArray) -> NDArray:
    """Targets as they cross the seam, from what scikit-learn made of them: one column for each output (N, C)."""
    if network.takes_labels:
        return y.argmax(axis=1).astype(np.int32)
    return np.ascontiguousarray(y, dtype=network.numpy_dtype)


def as_samples(x: Any, dtype: np.dtype) -> Any:
    """X (N, D) as it crosses the seam, from what scikit-learn has validated."""
    if is_sparse(x):
        return csr_array(x, dtype=dtype)
    return np.ascontiguousarray(x, dtype=dtype)


def read_parameters(network: NetworkSpec, estimator: Any) -> Parameters:
    """A copy of an estimator's coefficients and intercepts."""
    return Parameters(ParameterLayout.of(network), _flatten(network, estimator.coefs_ + estimator.intercepts_))


def write_parameters(estimator: Any, parameters: Parameters) -> None:
    """Let an estimator have these weights as its coefficients and intercepts."""
    estimator.coefs_, estimator.intercepts_ = parameters.weights, parameters.biases


# What scikit-learn's optimizers call the arrays of ``fastnet.reference.initial_state``.
_STATE = {"velocity": "velocities", "first_moment": "ms", "second_moment": "vs"}


def read_state(network: NetworkSpec, optimizer: Any) -> dict[str, NDArray]:
    """What scikit-learn's optimizer remembers, as ``TrainingPlan.write_state`` takes it."""
    names = {name: theirs for name, theirs in _STATE.items() if hasattr(optimizer, theirs)}
    state: dict[str, NDArray] = {name: _flatten(network, getattr(optimizer, theirs)) for name, theirs in names.items()}
    return state | {"n_updates": np.array(getattr(optimizer, "t", 0), np.int64)}


def write_state(network: NetworkSpec, optimizer: Any, state: dict[str, NDArray]) -> None:
    """Let scikit-learn's optimizer remember what ``TrainingPlan.read_state`` returned."""
    layout = ParameterLayout.of(network)
    for name, theirs in _STATE.items():
        if name in state:
            setattr(optimizer, theirs, layout.weights(state[name]) + layout.biases(state[name]))
    if hasattr(optimizer, "t"):
        optimizer.t = int(state["n_updates"])


def _flatten(network: NetworkSpec, arrays: Sequence[NDArray]) -> NDArray:
    """One array (P,) of the network's dtype: scikit-learn, too, has all weights first, and then all biases."""
    return np.concatenate([np.ravel(array) for array in arrays]).astype(network.dtype, copy=False)
