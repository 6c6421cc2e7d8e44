"""The exponential function for numbers up to zero, without branches or calls, so that loops of it become vectors."""

# exp(x) = 2 ** n * exp(r) with a whole number n and |r| <= log(2) / 2. log(2) is subtracted n times in two pieces, the
# first of which has so few digits that its product with n is exact (Cody and Waite 1980). The polynomial of float32 and
# the rational function of float64 are those of Moshier's Cephes library.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from fastnet.backends.numba_backend.compiling import FASTMATH, kernel
from fastnet.backends.numba_backend.vectors import intrinsic

__all__ = ["exp_of_nonpositive"]

# Adding it rounds a small number to a whole one, which then stands in the lowest bits.
_ROUNDER_32, _ROUNDER_64 = np.float32(1.5 * 2**23), np.float64(1.5 * 2**52)


@intrinsic
def power_of_two(context, rounded):
    """``2 ** n`` for a whole number n, given as n plus the rounder of its dtype."""
    is_single = rounded == types.float32
    mantissa_bits, exponent_bias = (23, 127) if is_single else (52, 1023)

    def generate(context, builder, signature, arguments):
        bits = ir.IntType(rounded.bitwidth)
        exponent = builder.add(builder.bitcast(arguments[0], bits), bits(exponent_bias))
        shifted = builder.shl(exponent, bits(mantissa_bits))
        return builder.bitcast(shifted, ir.FloatType() if is_single else ir.DoubleType())

    return rounded(rounded), generate


@kernel
def _exp_32(x):
    rounded = x * np.float32(1.44269504) + _ROUNDER_32
    n = rounded - _ROUNDER_32
    r = x - n * np.float32(0.693359375)
    r -= n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * (r * r) + r + np.float32(1)
    return np.float32(0) if x < np.float32(-87.33) else p * power_of_two(rounded)


@kernel
def _exp_64(x):
    rounded = x * 1.4426950408889634 + _ROUNDER_64
    n = rounded - _ROUNDER_64
    r = x - n * 6.93145751953125e-1
    r -= n * 1.42860682030941723212e-6
    s = r * r
    p = r * ((1.26177193074810590878e-4 * s + 3.02994407707441961300e-2) * s + 9.99999999999999999910e-1)
    q = (3.00198505138664455042e-6 * s + 2.52448340349684104192e-3) * s + 2.27265548208155028766e-1
    q = q * s + 2.0
    return 0.0 if x < -708.3 else (1.0 + 2.0 * p / (q - p)) * power_of_two(rounded)


def exp_of_nonpositive(x):
    """``exp(x)`` for x <= 0 to two units in the last place; 0 below the smallest normal number; NaN stays NaN."""
    return np.exp(x)


@overload(exp_of_nonpositive, jit_options={"fastmath": FASTMATH, "error_model": "numpy"}, inline="always")
def _exp_of_nonpositive(x):
    if x == types.float32:
        return lambda x: _exp_32(x)  # noqa: PLW0108, Numba wants a plain function
    return lambda x: _exp_64(x)  # noqa: PLW0108
