"""Exponential, logarithm and hyperbolic tangent without branches or calls, so that loops of them become vectors.

Errors are at most two units in the last place.
"""

# exp(x) = 2 ** n * exp(r) with a whole number n and |r| <= log(2) / 2. log(2) is subtracted n times in two pieces, the
# first of which has so few digits that its product with n is exact (Cody and Waite 1980). log(x) = n log(2) + log(m)
# with m between sqrt(1/2) and sqrt(2), and log(m) = 2 atanh((m - 1) / (m + 1)), whose Taylor series converges fast.
# The polynomial of exp in float32 is 1 + r + r**2 q(r), with a q of degree 4 that meets the exact one at five Chebyshev
# nodes: it is off by 1e-8. The rational functions of exp in float64 and of tanh are those of Moshier's Cephes library.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from fastnet.backends.numba_backend.kernels.blocks import intrinsic
from fastnet.backends.numba_backend.kernels.compiling import FASTMATH, kernel

__all__ = ["exp_of_nonpositive", "log_of_normal", "log_of_one_plus", "tanh"]

# Adding it rounds a small number to a whole one, which then stands in the lowest bits.
_ROUNDER_32, _ROUNDER_64 = np.float32(1.5 * 2**23), np.float64(1.5 * 2**52)

# log(2) in two pieces.
_LOG_2_HIGH_32, _LOG_2_LOW_32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOG_2_HIGH_64, _LOG_2_LOW_64 = 6.93145751953125e-1, 1.42860682030941723212e-6


def _bits_of(number):
    """LLVM's integer as wide as a number, the bits of its mantissa, and the number sqrt(1/2) as such an integer."""
    if number == types.float32:
        return ir.IntType(32), 23, int(np.float32(math.sqrt(0.5)).view(np.int32))
    return ir.IntType(64), 52, int(np.float64(math.sqrt(0.5)).view(np.int64))


def _llvm(number):
    return ir.FloatType() if number == types.float32 else ir.DoubleType()


@intrinsic
def power_of_two(context, rounded):
    """``2 ** n`` for a whole number n, given as n plus the rounder of its dtype."""
    bits, mantissa_bits, _ = _bits_of(rounded)
    exponent_bias = 127 if rounded == types.float32 else 1023

    def generate(context, builder, signature, arguments):
        exponent = builder.add(builder.bitcast(arguments[0], bits), bits(exponent_bias))
        return builder.bitcast(builder.shl(exponent, bits(mantissa_bits)), _llvm(rounded))

    return rounded(rounded), generate


def _exponent_bits(builder, number, value):
    bits, mantissa_bits, root = _bits_of(number)
    above_root = builder.sub(builder.bitcast(value, bits), bits(root))
    return builder.ashr(above_root, bits(mantissa_bits))


@intrinsic
def exponent_of(context, x):
    """The whole number n for which ``x / 2 ** n`` is between sqrt(1/2) and sqrt(2)."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(_exponent_bits(builder, x, arguments[0]), _llvm(x))

    return x(x), generate


@intrinsic
def mantissa_of(context, x):
    """``x / 2 ** n`` for that number n."""
    bits, mantissa_bits, _ = _bits_of(x)

    def generate(context, builder, signature, arguments):
        shifted = builder.shl(_exponent_bits(builder, x, arguments[0]), bits(mantissa_bits))
        return builder.bitcast(builder.sub(builder.bitcast(arguments[0], bits), shifted), _llvm(x))

    return x(x), generate


@kernel
def _exp_32(x):
    rounded = x * np.float32(1.44269504) + _ROUNDER_32
    n = rounded - _ROUNDER_32
    r = x - n * _LOG_2_HIGH_32
    r -= n * _LOG_2_LOW_32
    p = np.float32(1.392618171e-3)
    p = p * r + np.float32(8.363178000e-3)
    p = p * r + np.float32(4.166655615e-2)
    p = p * r + np.float32(1.666657627e-1)
    p = p * r + np.float32(0.5)
    p = (p * r + np.float32(1)) * r + np.float32(1)
    return np.float32(0) if x < np.float32(-87.33) else p * power_of_two(rounded)


@kernel
def _exp_64(x):
    rounded = x * 1.4426950408889634 + _ROUNDER_64
    n = rounded - _ROUNDER_64
    r = x - n * _LOG_2_HIGH_64
    r -= n * _LOG_2_LOW_64
    s = r * r
    p = r * ((1.26177193074810590878e-4 * s + 3.02994407707441961300e-2) * s + 9.99999999999999999910e-1)
    q = (3.00198505138664455042e-6 * s + 2.52448340349684104192e-3) * s + 2.27265548208155028766e-1
    q = q * s + 2.0
    return 0.0 if x < -708.3 else (1.0 + 2.0 * p / (q - p)) * power_of_two(rounded)


@kernel
def _twice_atanh_32(s):
    """``2 atanh(s)`` for 0 <= |s| <= 1/3."""
    t = s * s
    p = np.float32(1 / 15)
    p = p * t + np.float32(1 / 13)
    p = p * t + np.float32(1 / 11)
    p = p * t + np.float32(1 / 9)
    p = p * t + np.float32(1 / 7)
    p = p * t + np.float32(1 / 5)
    p = p * t + np.float32(1 / 3)
    twice = s + s
    return twice + twice * (t * p)


@kernel
def _twice_atanh_64(s):
    t = s * s
    p = 1 / 33
    p = p * t + 1 / 31
    p = p * t + 1 / 29
    p = p * t + 1 / 27
    p = p * t + 1 / 25
    p = p * t + 1 / 23
    p = p * t + 1 / 21
    p = p * t + 1 / 19
    p = p * t + 1 / 17
    p = p * t + 1 / 15
    p = p * t + 1 / 13
    p = p * t + 1 / 11
    p = p * t + 1 / 9
    p = p * t + 1 / 7
    p = p * t + 1 / 5
    p = p * t + 1 / 3
    twice = s + s
    return twice + twice * (t * p)


@kernel
def _log_32(x):
    n, m = exponent_of(x), mantissa_of(x)
    one = np.float32(1)
    result = n * _LOG_2_HIGH_32 + (n * _LOG_2_LOW_32 + _twice_atanh_32((m - one) / (m + one)))
    return result if x < np.float32(np.inf) else x  # NaN and infinity stay what they are


@kernel
def _log_64(x):
    n, m = exponent_of(x), mantissa_of(x)
    result = n * _LOG_2_HIGH_64 + (n * _LOG_2_LOW_64 + _twice_atanh_64((m - 1.0) / (m + 1.0)))
    return result if x < np.inf else x


@kernel
def _tanh_32(x):
    t = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * t + np.float32(2.06390887954e-2)
    p = p * t + np.float32(-5.37397155531e-2)
    p = p * t + np.float32(1.33314422036e-1)
    p = p * t + np.float32(-3.33332819422e-1)
    small = x + x * (t * p)
    e = _exp_32(np.float32(-2) * abs(x))
    large = (np.float32(1) - e) / (np.float32(1) + e)
    return small if abs(x) < np.float32(0.625) else math.copysign(large, x)


@kernel
def _tanh_64(x):
    t = x * x
    p = (-9.64399179425052238628e-1 * t - 9.92877231001918586564e1) * t - 1.61468768441708447952e3
    q = ((t + 1.12811678491632931402e2) * t + 2.23548839060100448583e3) * t + 4.84406305325125486048e3
    small = x + x * (t * (p / q))
    e = _exp_64(-2.0 * abs(x))
    large = (1.0 - e) / (1.0 + e)
    return small if abs(x) < 0.625 else math.copysign(large, x)


def exp_of_nonpositive(x):
    """``exp(x)`` for x <= 0; 0 where that is hardly a normal number, below -87.33 or -708.3; NaN stays NaN."""
    return np.exp(x)


def log_of_normal(x):
    """``log(x)`` for normal numbers x; infinity and NaN stay what they are."""
    return np.log(x)


def log_of_one_plus(x):
    """``log(1 + x)`` for 0 <= x <= 1."""
    return np.log1p(x)


def tanh(x):
    """``tanh(x)``."""
    return np.tanh(x)


_OPTIONS: Any = {"jit_options": {"fastmath": FASTMATH, "error_model": "numpy"}, "inline": "always"}


@overload(exp_of_nonpositive, **_OPTIONS)
def _exp_of_nonpositive(x):
    if x == types.float32:
        return lambda x: _exp_32(x)  # noqa: PLW0108, Numba wants a plain function
    return lambda x: _exp_64(x)  # noqa: PLW0108


@overload(log_of_normal, **_OPTIONS)
def _log_of_normal(x):
    if x == types.float32:
        return lambda x: _log_32(x)  # noqa: PLW0108
    return lambda x: _log_64(x)  # noqa: PLW0108


@overload(log_of_one_plus, **_OPTIONS)
def _log_of_one_plus(x):
    if x == types.float32:
        return lambda x: _twice_atanh_32(x / (np.float32(2) + x))
    return lambda x: _twice_atanh_64(x / (2.0 + x))


@overload(tanh, **_OPTIONS)
def _tanh(x):
    if x == types.float32:
        return lambda x: _tanh_32(x)  # noqa: PLW0108
    return lambda x: _tanh_64(x)  # noqa: PLW0108
