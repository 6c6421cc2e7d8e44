"""The executable specification: forward and backward in pairs, over any array namespace `xp`.

`xp` is a namespace of the Python array API standard's core (NumPy, CuPy), with `erf` beside it for GELU. Every backend
is compared with these functions; nothing here is written for speed.
"""

# Legend: N samples, I fan-in, O fan-out, C outputs, P parameters.
# z (N, O) pre-activation, h (N, O) activation, logits (N, C) the last layer's z; d_<name> is the gradient of the
# objective with respect to <name> and has its shape.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastnet.optimizers import SGD, Adam, AdamW, Optimizer
from fastnet.parameters import ParameterLayout
from fastnet.spec import NetworkSpec, Task, TrainingSpec

__all__ = [
    "LEAKY_SLOPE",
    "Operations",
    "adam_rate",
    "adam_update",
    "affine",
    "affine_backward",
    "count_correct",
    "initial_state",
    "loss_and_gradients",
    "mean_scale",
    "predict",
    "reduce_samples",
    "sgd_update",
]

Array = Any  # of whichever library `xp` is

LEAKY_SLOPE = 0.01


def affine(x: Array, weight: Array, bias: Array | None, scale: float = 1.0) -> Array:
    """``z = scale * (x @ weight) + bias``: x (N, I) dense or sparse, weight (I, O), bias (O,) -> z (N, O)."""
    z = x @ weight
    if scale != 1.0:
        z = z * scale
    return z if bias is None else z + bias


def affine_backward(x: Array, d_z: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """Gradients d_weight (I, O) and d_bias (O,) of :func:`affine`; d_x is ``scale * d_z @ weight.T``."""
    d_weight = x.T @ d_z
    if scale != 1.0:
        d_weight = d_weight * scale
    return d_weight, d_z.sum(axis=0)


def identity(z: Array, *, xp: Any) -> Array:
    """``h = z``."""
    return z


def identity_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = 1``."""
    return d_h


def relu(z: Array, *, xp: Any) -> Array:
    """``h = max(z, 0)``."""
    return xp.maximum(z, 0.0)  # NaN stays NaN


def relu_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = 1`` above zero, 0 elsewhere, zero included."""
    return xp.where(z > 0, d_h, 0.0)


def sigmoid(z: Array, *, xp: Any) -> Array:
    """``h = 1 / (1 + exp(-z))``, without overflow on either side."""
    e = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = h (1 - h)``."""
    return d_h * h * (1 - h)


def tanh(z: Array, *, xp: Any) -> Array:
    """``h = tanh(z)``."""
    return xp.tanh(z)


def tanh_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = 1 - h ** 2``."""
    return d_h * (1 - h * h)


def leaky_relu(z: Array, *, xp: Any) -> Array:
    """``h = z`` above zero, ``0.01 z`` below (Maas et al. 2013)."""
    return xp.where(z < 0, LEAKY_SLOPE * z, z)


def leaky_relu_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = 1`` above zero, 0.01 elsewhere."""
    return xp.where(z > 0, d_h, LEAKY_SLOPE * d_h)


def elu(z: Array, *, xp: Any) -> Array:
    """``h = z`` above zero, ``exp(z) - 1`` below (Clevert et al. 2016, with alpha 1)."""
    return xp.where(z < 0, xp.expm1(xp.where(z < 0, z, 0.0)), z)


def elu_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = 1`` above zero, ``h + 1`` elsewhere."""
    return xp.where(z > 0, d_h, d_h * (h + 1))


def gelu(z: Array, *, xp: Any) -> Array:
    """``h = z Phi(z)`` with the normal distribution function Phi, exact (Hendrycks and Gimpel 2016)."""
    return 0.5 * z * (1 + xp.erf(z * math.sqrt(0.5)))


def gelu_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = Phi(z) + z phi(z)``."""
    phi = math.sqrt(0.5 / math.pi) * xp.exp(-0.5 * z * z)
    return d_h * (0.5 * (1 + xp.erf(z * math.sqrt(0.5))) + z * phi)


def silu(z: Array, *, xp: Any) -> Array:
    """``h = z sigmoid(z)`` (Elfwing et al. 2018)."""
    return z * sigmoid(z, xp=xp)


def silu_backward(d_h: Array, z: Array, h: Array, *, xp: Any) -> Array:
    """``dh/dz = s (1 + z (1 - s))`` with ``s = sigmoid(z)``."""
    s = sigmoid(z, xp=xp)
    return d_h * s * (1 + z * (1 - s))


ACTIVATION_PAIRS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "identity": (identity, identity_backward),
    "relu": (relu, relu_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
    "leaky_relu": (leaky_relu, leaky_relu_backward),
    "elu": (elu, elu_backward),
    "gelu": (gelu, gelu_backward),
    "silu": (silu, silu_backward),
}


def softmax(z: Array, *, xp: Any) -> Array:
    """``exp(z) / sum(exp(z))`` over each row, its maximum subtracted first."""
    e = xp.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


OUTPUT_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "identity": identity,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "exp": lambda z, *, xp: xp.exp(z),
}


# A head joins output and loss: logits (N, C), targets -> losses (N,) in nats, d_logits (N, C), both per sample. The
# absolute error alone is in the unit of the targets. Targets are class indices (N,) for softmax with cross-entropy, and
# a matrix (N, C) for the others.


def softmax_cross_entropy(logits: Array, labels: Array, *, xp: Any) -> tuple[Array, Array]:
    """``-log softmax(logits)[label]``; the gradient is ``softmax(logits) - one_hot(label)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    hot = labels[:, None] == xp.arange(logits.shape[1])[None, :]
    losses = xp.log(total)[:, 0] - xp.where(hot, shifted, 0.0).sum(axis=1)
    return losses, e / total - hot


def sigmoid_cross_entropy(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """``-y log p - (1 - y) log(1 - p)`` with ``p = sigmoid(logits)``, summed over outputs, from the logits."""
    losses = xp.where(logits < 0, 0.0, logits) - logits * targets + xp.log1p(xp.exp(-xp.abs(logits)))
    return losses.sum(axis=1), sigmoid(logits, xp=xp) - targets


def identity_squared_error(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """Half the squared difference, summed over outputs."""
    difference = logits - targets
    return 0.5 * (difference * difference).sum(axis=1), difference


def identity_absolute_error(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """The absolute difference, summed over outputs; the gradient is its sign, 0 at 0 (Koenker and Bassett 1978)."""
    difference = logits - targets
    return xp.abs(difference).sum(axis=1), xp.sign(difference)


def sigmoid_squared_error(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """Half the squared difference between ``sigmoid(logits)`` and the targets, summed over outputs."""
    p = sigmoid(logits, xp=xp)
    difference = p - targets
    return 0.5 * (difference * difference).sum(axis=1), difference * p * (1 - p)


def softmax_squared_error(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """Half the squared difference between ``softmax(logits)`` and the targets, summed over outputs."""
    p = softmax(logits, xp=xp)
    difference = p - targets
    inner = (difference * p).sum(axis=1, keepdims=True)
    return 0.5 * (difference * difference).sum(axis=1), p * (difference - inner)


def exp_squared_error(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """Half the squared difference between ``exp(logits)`` and the targets, summed over outputs."""
    p = xp.exp(logits)
    difference = p - targets
    return 0.5 * (difference * difference).sum(axis=1), difference * p


def exp_poisson(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """Half the Poisson deviance ``y log(y / p) - y + p`` with ``p = exp(logits)``, summed over outputs.

    McCullagh and Nelder 1989, section 2.3.
    """
    p = xp.exp(logits)
    y_log_y = targets * xp.log(xp.where(targets > 0, targets, 1.0))
    return (y_log_y - targets * logits - targets + p).sum(axis=1), p - targets


def exp_gamma(logits: Array, targets: Array, *, xp: Any) -> tuple[Array, Array]:
    """Half the gamma deviance ``log(p / y) + y / p - 1`` with ``p = exp(logits)``, summed over outputs.

    The gradient is ``1 - y / p``. Neither overflows where p does. McCullagh and Nelder 1989, section 2.3. The
    ``HalfGammaLoss`` of scikit-learn is the same but for what does not depend on p.
    """
    ratio = targets * xp.exp(-logits)
    return (logits - xp.log(targets) + ratio - 1).sum(axis=1), 1 - ratio


HEAD_FUNCTIONS: dict[tuple[str, str], Callable[..., tuple[Array, Array]]] = {
    ("softmax", "cross_entropy"): softmax_cross_entropy,
    ("sigmoid", "cross_entropy"): sigmoid_cross_entropy,
    ("identity", "squared_error"): identity_squared_error,
    ("identity", "absolute_error"): identity_absolute_error,
    ("sigmoid", "squared_error"): sigmoid_squared_error,
    ("softmax", "squared_error"): softmax_squared_error,
    ("exp", "squared_error"): exp_squared_error,
    ("exp", "poisson"): exp_poisson,
    ("exp", "gamma"): exp_gamma,
}


def count_correct(task: Task, output: str, logits: Array, targets: Array, *, xp: Any) -> Array:
    """Number of right predictions, a scalar; 0 for regression. See ``fastnet.spec.Task``."""
    if task == "multiclass":
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        return (logits.argmax(axis=1) == labels).sum()  # the lowest index wins a tie
    if task == "multilabel":
        predicted = OUTPUT_FUNCTIONS[output](logits, xp=xp) > 0.5
        return (predicted == (targets > 0.5)).all(axis=1).sum()
    return xp.zeros((), xp.int64)


def reduce_samples(
    reduction: str, losses: Array, d_logits: Array, sample_weight: Array | None, *, xp: Any
) -> tuple[Array, Array]:
    """The data's part of the objective (scalar, float64) and d_logits (N, C) of it, from what each sample gives.

    ``sum_i w_i loss_i / sum_i w_i`` for reduction "mean" (0 where all weights are 0), ``sum_i w_i loss_i`` for "sum".
    """
    if sample_weight is not None:
        losses, d_logits = losses * sample_weight, d_logits * sample_weight[:, None]
    loss = losses.sum(dtype=xp.float64)
    if reduction == "sum":
        return loss, d_logits
    scale = mean_scale(len(losses), sample_weight, xp=xp)
    return loss * scale, d_logits * (scale if sample_weight is None else scale.astype(d_logits.dtype))


def mean_scale(n_samples: int, sample_weight: Array | None, *, xp: Any) -> Array:
    """What turns a sum over samples into their mean, a scalar: ``1 / N`` or ``1 / sum_i w_i``; 1 where all are 0."""
    if sample_weight is None:
        return 1 / n_samples
    total = sample_weight.sum(dtype=xp.float64)
    return 1 / xp.where(total == 0, 1, total)


class Operations:
    """The functions that a step is made of, bound to one array namespace; fused kernels override them."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def affine_activation(
        self, activation: str, x: Array, weight: Array, bias: Array | None, scale: float
    ) -> tuple[Array, Array]:
        """(z, h), both (N, O), of a hidden layer."""
        z = affine(x, weight, bias, scale)
        return z, ACTIVATION_PAIRS[activation][0](z, xp=self.xp)

    def activation_backward(self, activation: str, d_h: Array, z: Array, h: Array) -> Array:
        """d_z (N, O) of a hidden layer."""
        return ACTIVATION_PAIRS[activation][1](d_h, z, h, xp=self.xp)

    def affine_backward(self, x: Array, d_z: Array, scale: float, d_weight: Array, d_bias: Array | None) -> None:
        """Write the gradients of :func:`affine` to d_weight (I, O), and to d_bias (O,) where there is a bias."""
        d_weight[...], summed = affine_backward(x, d_z, scale)
        if d_bias is not None:
            d_bias[...] = summed

    def input_gradient(self, d_z: Array, weight: Array) -> Array:
        """d_h (N, I) of what comes into a layer with d_z (N, O) and weight (I, O)."""
        return d_z @ weight.T

    def head(
        self, spec: TrainingSpec, logits: Array, targets: Array, sample_weight: Array | None
    ) -> tuple[Array, Array, Array]:
        """The data's part of the objective (scalar), d_logits (N, C), and the number of right predictions (scalar)."""
        network = spec.network
        n_correct = count_correct(spec.task, network.output, logits, targets, xp=self.xp)
        losses, d_logits = HEAD_FUNCTIONS[network.output, network.loss](logits, targets, xp=self.xp)
        return *reduce_samples(network.reduction, losses, d_logits, sample_weight, xp=self.xp), n_correct

    def penalty(self, l2: Array, weights: Array, d_weights: Array) -> Array:
        """``l2 / 2 * sum(weights ** 2)`` (scalar) for all weights (M,); its gradient is added to d_weights (M,).

        `l2` is a scalar: a float, or float64 of `xp`.
        """
        d_weights += self.xp.asarray(l2, weights.dtype) * weights
        return 0.5 * l2 * (weights * weights).sum(dtype=self.xp.float64)

    def update(
        self, spec: TrainingSpec, flat: Array, gradient: Array, state: dict[str, Array], rate: float, n_updates: int
    ) -> None:
        """One update of `flat` (P,) and `state` in place; `n_updates` counts this one."""
        if isinstance(spec.optimizer, SGD):
            sgd_update(spec.optimizer, flat, gradient, state, rate)
        else:
            n_weights = ParameterLayout.of(spec.network).n_weights
            adam_update(spec.optimizer, flat, gradient, state, rate, n_updates, n_weights, xp=self.xp)


def sgd_update(optimizer: SGD, flat: Array, gradient: Array, state: dict[str, Array], rate: float) -> None:
    """``v = momentum v - rate g``; the step is v, or ``momentum v - rate g`` with the new v for Nesterov."""
    step = -rate * gradient
    if optimizer.momentum:
        velocity = state["velocity"]
        velocity *= optimizer.momentum
        velocity += step
        step = optimizer.momentum * velocity + step if optimizer.nesterov else velocity
    flat += step


def adam_rate(optimizer: Adam, rate: float, n_updates: int) -> float:
    """The step length that corrects both moments for their start at zero; `n_updates` counts from one."""
    return rate * math.sqrt(1 - optimizer.beta_2**n_updates) / (1 - optimizer.beta_1**n_updates)


def adam_update(
    optimizer: Adam,
    flat: Array,
    gradient: Array,
    state: dict[str, Array],
    rate: float,
    n_updates: int,
    n_weights: int,
    *,
    xp: Any,
) -> None:
    """``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g ** 2``; the step is ``-rate_t m / (sqrt(v) + epsilon)``."""
    if isinstance(optimizer, AdamW):
        flat[:n_weights] -= rate * optimizer.weight_decay * flat[:n_weights]
    m, v = state["first_moment"], state["second_moment"]
    m *= optimizer.beta_1
    m += (1 - optimizer.beta_1) * gradient
    v *= optimizer.beta_2
    v += (1 - optimizer.beta_2) * (gradient * gradient)
    flat += -adam_rate(optimizer, rate, n_updates) * m / (xp.sqrt(v) + optimizer.epsilon)


def initial_state(optimizer: Optimizer, flat: Array, *, xp: Any) -> dict[str, Array]:
    """What an optimizer remembers between steps, each like `flat` (P,), all zero at first."""
    if isinstance(optimizer, Adam):
        return {"first_moment": xp.zeros_like(flat), "second_moment": xp.zeros_like(flat)}
    return {"velocity": xp.zeros_like(flat)} if optimizer.momentum else {}


def forward(
    network: NetworkSpec, layout: ParameterLayout, flat: Array, x: Array, operations: Operations
) -> tuple[list[tuple[Array, Array]], Array]:
    """(z, h) of every hidden layer, and the logits (N, C). `flat` (P,) holds the parameters, x is (N, I)."""
    weights = layout.weights(flat)
    biases: list[Array | None] = [*layout.biases(flat)] or [None] * network.n_layers
    hidden = []
    h, scale = x, network.input_scale
    for activation, weight, bias in zip(network.activations, weights, biases, strict=False):
        z, h = operations.affine_activation(activation, h, weight, bias, scale)
        hidden.append((z, h))
        scale = 1.0
    return hidden, operations.affine_activation("identity", h, weights[-1], biases[-1], scale)[0]


def predict(network: NetworkSpec, layout: ParameterLayout, flat: Array, x: Array, operations: Operations) -> Array:
    """Outputs (N, C): probabilities for softmax and sigmoid, values for the others."""
    _, logits = forward(network, layout, flat, x, operations)
    return OUTPUT_FUNCTIONS[network.output](logits, xp=operations.xp)


def loss_and_gradients(
    spec: TrainingSpec, flat: Array, x: Array, targets: Array, sample_weight: Array | None, operations: Operations
) -> tuple[Array, Array, Array, Array]:
    """Objective in nats, the penalty's part of it, its gradient (P,), and the number of right predictions.

    The objective is the sample losses' mean or sum (:func:`reduce_samples`) and ``l2 / 2 * sum(weight ** 2)``, which
    ``l2_averaged`` multiplies by :func:`mean_scale`.
    """
    network = spec.network
    layout = ParameterLayout.of(network)
    hidden, logits = forward(network, layout, flat, x, operations)
    loss, d_z, n_correct = operations.head(spec, logits, targets, sample_weight)

    gradient = operations.xp.empty_like(flat)  # every element is written
    weights, d_weights = layout.weights(flat), layout.weights(gradient)
    d_biases: list[Array | None] = [*layout.biases(gradient)] or [None] * network.n_layers
    for layer in reversed(range(1, network.n_layers)):
        z, h = hidden[layer - 1]
        operations.affine_backward(h, d_z, 1.0, d_weights[layer], d_biases[layer])
        d_h = operations.input_gradient(d_z, weights[layer])
        d_z = operations.activation_backward(network.activations[layer - 1], d_h, z, h)
    operations.affine_backward(x, d_z, network.input_scale, d_weights[0], d_biases[0])

    if not network.l2:
        return loss, 0.0, gradient, n_correct
    scale = mean_scale(len(logits), sample_weight, xp=operations.xp) if network.l2_averaged else 1.0
    penalty = operations.penalty(network.l2 * scale, flat[: layout.n_weights], gradient[: layout.n_weights])
    return loss + penalty, penalty, gradient, n_correct
