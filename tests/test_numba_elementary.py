"""Elementary functions of the Numba backend, against NumPy's in extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from native_calls import compiled

from fastnet.backends.numba_backend.kernels import activations, elementary

# Units in the last place of the exact result. Numbers below this many times the smallest normal one may be zero.
LARGEST_ERROR = 2
FLUSHED = 1.25

N_DRAWN = 300_000

float64_too = pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="long double is no wider than double here")
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=float64_too)])


def over_arrays(function):
    @compiled
    def each(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    return each


FUNCTIONS = {
    "exp_of_nonpositive": over_arrays(elementary.exp_of_nonpositive),
    "log_of_normal": over_arrays(elementary.log_of_normal),
    "log_of_one_plus": over_arrays(elementary.log_of_one_plus),
    "tanh": over_arrays(elementary.tanh),
    "sigmoid": over_arrays(activations.sigmoid),
}


def values_of(name, x):
    y = np.empty_like(x)
    FUNCTIONS[name](x, y)
    return y


def error_in_units(y, exact):
    unit = np.spacing(np.abs(exact).astype(y.dtype)).astype(np.longdouble)
    error = np.abs(y - exact) / unit
    flushed = (y == 0) & (exact < FLUSHED * np.finfo(y.dtype).tiny)
    return np.where(flushed, 0, error)


def draw(dtype, low, high):
    """Numbers between two that are not negative: of every size, and spread evenly."""
    random = np.random.default_rng(0)
    integer = np.int32 if dtype == np.float32 else np.int64
    first, last = np.array([low, high], dtype).view(integer)
    of_every_size = random.integers(first, last, N_DRAWN, endpoint=True).astype(integer).view(dtype)
    evenly = random.uniform(low, min(high, low + 1000), N_DRAWN).astype(dtype)
    return np.r_[of_every_size, evenly, np.array([low, high], dtype)]


def assert_accurate(name, x, function, largest=LARGEST_ERROR):
    y = values_of(name, x)
    with np.errstate(under="ignore"):
        error = error_in_units(y, function(x.astype(np.longdouble)))
    worst = int(error.argmax())
    assert error[worst] <= largest, f"{name}({x[worst]}) is {y[worst]}, off by {float(error[worst]):.2f} units"


@both_dtypes
def test_exponential(dtype):
    assert_accurate("exp_of_nonpositive", -draw(dtype, 0, 100 if dtype == np.float32 else 745), np.exp)
    assert_accurate("exp_of_nonpositive", -draw(dtype, 0, 2), np.exp)


@both_dtypes
def test_logarithm(dtype):
    """Near one, too, where it is all in the lowest bits of its argument."""
    assert_accurate("log_of_normal", draw(dtype, np.finfo(dtype).tiny, np.finfo(dtype).max / 2), np.log)
    assert_accurate("log_of_normal", draw(dtype, 0.5, 2), np.log)


@both_dtypes
def test_logarithm_of_the_largest_numbers(dtype):
    assert_accurate("log_of_normal", draw(dtype, np.finfo(dtype).max / 2, np.finfo(dtype).max), np.log)


@both_dtypes
def test_logarithm_of_one_plus(dtype):
    assert_accurate("log_of_one_plus", draw(dtype, 0, 1), np.log1p)


@both_dtypes
@pytest.mark.parametrize("sign", [-1, 1])
def test_hyperbolic_tangent(sign, dtype):
    assert_accurate("tanh", sign * draw(dtype, 0, np.finfo(dtype).max), np.tanh)
    assert_accurate("tanh", sign * draw(dtype, 0, 2), np.tanh)


def exact_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@both_dtypes
def test_sigmoid_of_positive_numbers(dtype):
    assert_accurate("sigmoid", draw(dtype, 0, 100), exact_sigmoid)


@both_dtypes
def test_sigmoid_of_negative_numbers(dtype):
    assert_accurate("sigmoid", -draw(dtype, 0, 100 if dtype == np.float32 else 745), exact_sigmoid)
    assert_accurate("sigmoid", -draw(dtype, 0, 4), exact_sigmoid)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("exp_of_nonpositive", [(0, 1), (-0.0, 1), (-np.inf, 0), (-1e30, 0), (np.nan, np.nan)]),
        ("log_of_normal", [(1, 0), (np.inf, np.inf), (np.nan, np.nan)]),
        ("log_of_one_plus", [(0, 0), (np.nan, np.nan)]),
        ("tanh", [(0, 0), (-0.0, 0), (np.inf, 1), (-np.inf, -1), (np.nan, np.nan)]),
        ("sigmoid", [(0, 0.5), (-0.0, 0.5), (np.inf, 1), (-np.inf, 0), (1e30, 1), (-1e30, 0), (np.nan, np.nan)]),
    ],
)
def test_what_is_no_ordinary_number(name, pairs, dtype):
    x, expected = np.array(pairs, dtype).T
    np.testing.assert_array_equal(values_of(name, np.ascontiguousarray(x)), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_numbers(dtype):
    """Around zero the functions are 1 + x, x, x and a half: what is lost of x is at most its last bit."""
    tiny = np.finfo(dtype).tiny
    x = np.r_[np.finfo(dtype).smallest_subnormal * np.arange(9), np.linspace(0, tiny, 1000)].astype(dtype)
    np.testing.assert_array_equal(values_of("exp_of_nonpositive", -x), 1)
    np.testing.assert_array_equal(values_of("sigmoid", x), 0.5)
    np.testing.assert_array_equal(values_of("tanh", -x), -x)
    np.testing.assert_allclose(values_of("log_of_one_plus", x), x, rtol=0, atol=np.finfo(dtype).smallest_subnormal)
