"""Activations and their derivatives, over all numbers of a tile's layer at once.

The formulas are those of :mod:`fastnet.reference`, where their sources stand. Each loop is a function of its own, so
that only those of a network are compiled.
"""

# Legend: h, on entry a pre-activation z, becomes the activation; d, on entry the gradient of the objective with respect
# to h, becomes that with respect to z. Both are flat. `kept` is z where ``layout.KEEPS_Z`` says so, and h
# elsewhere.
# Constants take the type of what they meet, ``type(z)(1)``: a plain 1 or 0.5 would turn float32 into float64.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, kernel
from fastnet.backends.numba_backend.kernels.elementary import exp_of_nonpositive, tanh
from fastnet.reference import LEAKY_SLOPE

__all__ = ["ACTIVATE", "BACKWARD", "sigmoid", "sigmoid_of"]

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = math.sqrt(0.5 / math.pi)


@kernel
def sigmoid(z):
    """``1 / (1 + exp(-z))``, without overflow on either side, to 2 units in the last place."""
    return sigmoid_of(z, exp_of_nonpositive(-abs(z)))


@kernel
def sigmoid_of(z, e):
    """The same, given ``e = exp(-|z|)``."""
    one = type(z)(1)
    numerator, reciprocal = one if z >= type(z)(0) else e, one / (one + e)
    p = numerator * reciprocal
    missing = numerator - p - p * e  # of ``numerator - p * (1 + e)``, the difference is exact
    return p + missing * reciprocal


@NativeFunction
def identity(h):
    """H is z."""


@NativeFunction
def identity_backward(d, kept):
    """The derivative is one."""


@NativeFunction
def relu(h):
    """``max(z, 0)``."""
    for k in range(h.size):
        zero = type(h[k])(0)
        h[k] = zero if h[k] < zero else h[k]  # noqa: FURB136, NaN must stay NaN


@NativeFunction
def relu_backward(d, kept):
    """1 above zero, else 0."""
    for k in range(d.size):
        zero = type(d[k])(0)
        d[k] = d[k] if kept[k] > zero else zero


@NativeFunction
def sigmoid_forward(h):
    """``1 / (1 + exp(-z))``."""
    for k in range(h.size):
        h[k] = sigmoid(h[k])


@NativeFunction
def sigmoid_backward(d, kept):
    """``h (1 - h)``."""
    for k in range(d.size):
        d[k] *= kept[k] * (type(d[k])(1) - kept[k])


@NativeFunction
def tanh_forward(h):
    """``tanh(z)``."""
    for k in range(h.size):
        h[k] = tanh(h[k])


@NativeFunction
def tanh_backward(d, kept):
    """``1 - h ** 2``."""
    for k in range(d.size):
        d[k] *= type(d[k])(1) - kept[k] * kept[k]


@NativeFunction
def leaky_relu(h):
    """Z above zero, else a small multiple of it."""
    for k in range(h.size):
        h[k] = type(h[k])(LEAKY_SLOPE) * h[k] if h[k] < type(h[k])(0) else h[k]


@NativeFunction
def leaky_relu_backward(d, kept):
    """1 above zero, else the slope."""
    for k in range(d.size):
        d[k] = d[k] if kept[k] > type(d[k])(0) else type(d[k])(LEAKY_SLOPE) * d[k]


@NativeFunction
def elu(h):
    """Z above zero, else ``exp(z) - 1``."""
    for k in range(h.size):
        h[k] = math.expm1(h[k]) if h[k] < type(h[k])(0) else h[k]


@NativeFunction
def elu_backward(d, kept):
    """1 above zero, else ``h + 1``."""
    for k in range(d.size):
        d[k] = d[k] if kept[k] > type(d[k])(0) else d[k] * (kept[k] + type(d[k])(1))


@NativeFunction
def gelu(h):
    """Z times the normal distribution function of z."""
    for k in range(h.size):
        half, one = type(h[k])(0.5), type(h[k])(1)
        h[k] = half * h[k] * (one + math.erf(h[k] * type(h[k])(_SQRT_HALF)))


@NativeFunction
def gelu_backward(d, kept):
    """The distribution function plus z times the density."""
    for k in range(d.size):
        z, half, one = kept[k], type(d[k])(0.5), type(d[k])(1)
        distribution = half * (one + math.erf(z * type(z)(_SQRT_HALF)))
        density = type(z)(_DENSITY_AT_ZERO) * math.exp(-half * z * z)
        d[k] *= distribution + z * density


@NativeFunction
def silu(h):
    """``z sigmoid(z)``."""
    for k in range(h.size):
        h[k] *= sigmoid(h[k])


@NativeFunction
def silu_backward(d, kept):
    """``s (1 + z (1 - s))`` with ``s = sigmoid(z)``."""
    for k in range(d.size):
        z, one = kept[k], type(d[k])(1)
        s = sigmoid(z)
        d[k] *= s * (one + z * (one - s))


ACTIVATE = {
    "identity": identity,
    "relu": relu,
    "sigmoid": sigmoid_forward,
    "tanh": tanh_forward,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "silu": silu,
}

BACKWARD = {
    "identity": identity_backward,
    "relu": relu_backward,
    "sigmoid": sigmoid_backward,
    "tanh": tanh_backward,
    "leaky_relu": leaky_relu_backward,
    "elu": elu_backward,
    "gelu": gelu_backward,
    "silu": silu_backward,
}
