"""Activations in forward and backward pairs, and the passes over a tile that apply them.

The formulas are those of :mod:`fastnet.reference`, where their sources stand.
"""

# Legend: B rows of a tile, O width of a layer. z (B, O) pre-activation, h (B, O) activation, d_h and d_z (B, O) the
# gradients of the objective with respect to them.
# Constants take the type of what they meet, ``type(z)(1)``: a plain 1 or 0.5 would turn float32 into float64.
# The choice of activation stands outside the loop over a tile, so that the compiler can vectorise each of them.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from fastnet.backends.numba_backend.compiling import kernel
from fastnet.backends.numba_backend.exponential import exp_of_nonpositive
from fastnet.reference import LEAKY_SLOPE

__all__ = ["ACTIVATION_CODES", "activation_backward", "bias_activation", "sigmoid"]

IDENTITY, RELU, SIGMOID, TANH, LEAKY_RELU, ELU, GELU, SILU = range(8)

ACTIVATION_CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "leaky_relu": LEAKY_RELU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SILU,
}

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = math.sqrt(0.5 / math.pi)


@kernel
def relu(z):
    zero = type(z)(0)
    return zero if z < zero else z  # noqa: FURB136, NaN must stay NaN


@kernel
def relu_backward(d_h, z):
    zero = type(z)(0)
    return d_h if z > zero else zero


@kernel
def sigmoid(z):
    """``1 / (1 + exp(-z))``, without overflow on either side."""
    zero, one = type(z)(0), type(z)(1)
    e = exp_of_nonpositive(-abs(z))
    return (one if z >= zero else e) / (one + e)


@kernel
def sigmoid_backward(d_h, h):
    return d_h * h * (type(h)(1) - h)


@kernel
def tanh_backward(d_h, h):
    return d_h * (type(h)(1) - h * h)


@kernel
def leaky_relu(z):
    return type(z)(LEAKY_SLOPE) * z if z < type(z)(0) else z


@kernel
def leaky_relu_backward(d_h, z):
    return d_h if z > type(z)(0) else type(z)(LEAKY_SLOPE) * d_h


@kernel
def elu(z):
    return math.expm1(z) if z < type(z)(0) else z


@kernel
def elu_backward(d_h, z, h):
    return d_h if z > type(z)(0) else d_h * (h + type(z)(1))


@kernel
def gelu(z):
    half, one = type(z)(0.5), type(z)(1)
    return half * z * (one + math.erf(z * type(z)(_SQRT_HALF)))


@kernel
def gelu_backward(d_h, z):
    half, one = type(z)(0.5), type(z)(1)
    distribution = half * (one + math.erf(z * type(z)(_SQRT_HALF)))
    density = type(z)(_DENSITY_AT_ZERO) * math.exp(-half * z * z)
    return d_h * (distribution + z * density)


@kernel
def silu(z):
    return z * sigmoid(z)


@kernel
def silu_backward(d_h, z):
    one = type(z)(1)
    s = sigmoid(z)
    return d_h * s * (one + z * (one - s))


@kernel
def bias_activation(code, z, scale, bias, h):
    """``z = scale * z + bias`` in place, and ``h = activation(z)``: z and h (B, O), bias (O,)."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] = scale * z[i, j] + bias[j]
    activate(code, z.reshape(z.size), h.reshape(h.size))


@kernel
def activate(code, z, h):
    """``h = activation(z)``, both of one dimension: a layer may be narrower than the CPU's vectors."""
    if code == IDENTITY:
        for k in range(z.size):
            h[k] = z[k]
    elif code == RELU:
        for k in range(z.size):
            h[k] = relu(z[k])
    elif code == SIGMOID:
        for k in range(z.size):
            h[k] = sigmoid(z[k])
    elif code == TANH:
        for k in range(z.size):
            h[k] = math.tanh(z[k])
    elif code == LEAKY_RELU:
        for k in range(z.size):
            h[k] = leaky_relu(z[k])
    elif code == ELU:
        for k in range(z.size):
            h[k] = elu(z[k])
    elif code == GELU:
        for k in range(z.size):
            h[k] = gelu(z[k])
    elif code == SILU:
        for k in range(z.size):
            h[k] = silu(z[k])


@kernel
def activation_backward(code, d_h, z, h):
    """Turn d_h (B, O) into d_z in place."""
    d, z, h = d_h.reshape(d_h.size), z.reshape(z.size), h.reshape(h.size)
    if code == RELU:
        for k in range(d.size):
            d[k] = relu_backward(d[k], z[k])
    elif code == SIGMOID:
        for k in range(d.size):
            d[k] = sigmoid_backward(d[k], h[k])
    elif code == TANH:
        for k in range(d.size):
            d[k] = tanh_backward(d[k], h[k])
    elif code == LEAKY_RELU:
        for k in range(d.size):
            d[k] = leaky_relu_backward(d[k], z[k])
    elif code == ELU:
        for k in range(d.size):
            d[k] = elu_backward(d[k], z[k], h[k])
    elif code == GELU:
        for k in range(d.size):
            d[k] = gelu_backward(d[k], z[k])
    elif code == SILU:
        for k in range(d.size):
            d[k] = silu_backward(d[k], z[k])
