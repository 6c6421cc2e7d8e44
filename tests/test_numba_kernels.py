"""Kernels of the Numba backend, one by one, against the reference in float64."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
from numba import njit, typeof

from fastnet import reference
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.backends.numba_backend import activations, exponential, heads, layers, updates
from fastnet.backends.numba_backend.buffers import code_optimizer
from fastnet.backends.numba_backend.compiling import FASTMATH
from fastnet.optimizers import Adam
from fastnet.spec import ACTIVATIONS, HEADS, OUTPUTS, Task
from fastnet.testing import assert_close

XP = NumpyNamespace()
DTYPES = ("float32", "float64")
ALL_HEADS = [(output, loss) for output, losses in HEADS.items() for loss in losses]


def callable_from_python(kernel):
    """The kernel, compiled with the same options once more: kernels themselves are made for compiled code alone."""
    return njit(fastmath=FASTMATH, error_model="numpy")(kernel.py_func)


bias_activation = callable_from_python(activations.bias_activation)
activation_backward = callable_from_python(activations.activation_backward)
softmax_cross_entropy = callable_from_python(heads.softmax_cross_entropy)
head_of_row = callable_from_python(heads.head_of_row)
outputs_of = callable_from_python(heads.outputs_of)
prepare_heads = callable_from_python(heads.prepare_heads)
product = callable_from_python(layers.product)
product_backward = callable_from_python(layers.product_backward)
is_correct = callable_from_python(heads.is_correct)
argmax = callable_from_python(heads.argmax)
adam_rate = callable_from_python(updates.adam_rate)


def pre_activations(dtype):
    """(3, 40): small, around zero and as large as they get; zeros among them."""
    rows = [np.linspace(-9, 9, 40), np.r_[0.0, np.logspace(-6, 4, 39)], -np.r_[0.0, np.logspace(-6, 4, 39)]]
    return np.array(rows, dtype)


def assert_elements_close(actual, expected, dtype, factor=32):
    """Element by element, since the arrays hold values of all sizes; below one, by the difference itself.

    An exponential has a relative error of its argument's size times eps: hence factors that grow with the logits.
    """
    allowed = factor * np.finfo(dtype).eps * np.maximum(np.abs(expected), 1)
    assert actual.dtype == np.dtype(dtype)
    np.testing.assert_array_less(np.abs(actual - expected), allowed)


def test_every_name_of_the_specification_has_a_code():
    assert tuple(activations.ACTIVATION_CODES) == ACTIVATIONS
    assert tuple(heads.OUTPUT_CODES) == OUTPUTS
    assert set(heads.HEAD_CODES) == set(ALL_HEADS)
    assert set(heads.TASK_CODES) == set(get_args(Task))
    for codes in (activations.ACTIVATION_CODES, heads.OUTPUT_CODES, heads.HEAD_CODES, heads.TASK_CODES):
        assert sorted(codes.values()) == list(range(len(codes)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_backward_form(name, dtype):
    code, (forward, backward) = activations.ACTIVATION_CODES[name], reference.ACTIVATION_PAIRS[name]
    z, real = pre_activations(dtype), np.dtype(dtype).type
    exact = z.astype(np.float64)
    h, d_h = np.empty_like(z), np.linspace(-1, 1, z.size, dtype=dtype).reshape(z.shape)
    exact_h = forward(exact, xp=XP)
    expected_d_z = backward(d_h.astype(np.float64), exact, exact_h, xp=XP)

    bias_activation(code, z, real(1), np.zeros(z.shape[1], dtype), h)
    assert_elements_close(h, exact_h, dtype)
    activation_backward(code, d_h, z, h)
    assert_elements_close(d_h, expected_d_z, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_and_bias_come_before_the_activation(dtype):
    real = np.dtype(dtype).type
    z, bias, h = np.array([[2, -4], [6, 8]], dtype), np.array([-3, 1], dtype), np.empty((2, 2), dtype)
    bias_activation(activations.RELU, z, real(0.5), bias, h)
    np.testing.assert_array_equal(z, [[-2, -1], [0, 5]])
    np.testing.assert_array_equal(h, [[0, 0], [0, 5]])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_passes_through_every_activation(name):
    z, h = np.full((1, 3), np.nan, np.float32), np.zeros((1, 3), np.float32)
    bias_activation(activations.ACTIVATION_CODES[name], z, np.float32(1), np.zeros(3, np.float32), h)
    assert np.isnan(h).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("output", "loss", "largest"),
    [
        (output, loss, largest)
        for output, loss in ALL_HEADS
        for largest in ((1.0, 30.0) if output == "exp" else (1.0, 30.0, 1e4))  # exp(1e4) is infinite
    ],
)
def test_head(output, loss, largest, dtype):
    random = np.random.default_rng(0)
    logits = random.uniform(-largest, largest, (7, 4)).astype(dtype)
    if (output, loss) == ("softmax", "cross_entropy"):
        targets = random.integers(0, 4, 7)
    else:
        targets = random.integers(0, 2, (7, 4)).astype(dtype)
    exact = logits.astype(np.float64)
    expected_losses, expected = reference.HEAD_FUNCTIONS[output, loss](exact, targets, xp=XP)
    d = np.empty((7, 4), dtype)
    prepare_heads(heads.OUTPUT_CODES[output], logits, d)
    for i in range(len(logits)):
        sample = 6 - i  # targets are looked up by sample, which need not be the row
        if targets.ndim == 1:
            actual_loss = softmax_cross_entropy(logits, i, targets[i], d)
        else:
            actual_loss = head_of_row(heads.HEAD_CODES[output, loss], logits, i, targets[::-1].copy(), sample, d)
        assert_elements_close(
            np.asarray(actual_loss, dtype), expected_losses[i], dtype, factor=8 * min(largest, 30) + 8
        )
        assert_elements_close(d[i], expected[i], dtype, factor=8 * min(largest, 30) + 8)


@njit(error_model="numpy")
def exp_of_each(x, y):
    for i in range(x.size):
        y[i] = exponential.exp_of_nonpositive(x[i])


@pytest.mark.parametrize(("dtype", "lowest"), [("float32", -87.3), ("float64", -708.2)])
def test_exponential_to_two_units_in_the_last_place(dtype, lowest):
    x = np.r_[np.linspace(lowest, 0, 400_001), -np.logspace(-45, 1, 2001), 0.0].astype(dtype)
    y = np.empty_like(x)
    exp_of_each(x, y)
    exact = np.exp(x.astype(np.longdouble))
    error = np.abs(y - exact) / np.spacing(exact.astype(dtype)).astype(np.longdouble)
    assert error.max() <= 2
    assert y[-1] == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponential_of_what_is_no_ordinary_number(dtype):
    x, y = np.array([-np.inf, np.nan, -1e4, -750], dtype), np.ones(4, dtype)
    exp_of_each(x, y)
    np.testing.assert_array_equal(y, [0, np.nan, 0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 3), (9, 8, 8), (10, 9, 8), (50, 3, 20)])
def test_small_and_large_products(shape, dtype):
    n_rows, fan_in, fan_out = shape
    random = np.random.default_rng(0)
    h, weight, d_z = (
        random.normal(size=s).astype(dtype) for s in ((n_rows, fan_in), (fan_in, fan_out), (n_rows, fan_out))
    )
    exact_h, exact_weight, exact_d = (array.astype(np.float64) for array in (h, weight, d_z))
    z, d_h = np.empty((n_rows, fan_out), dtype), np.empty((n_rows, fan_in), dtype)
    product(h, weight, z)
    product(d_z, weight.T, d_h)
    assert_close(z, exact_h @ exact_weight, dtype=dtype, longest_reduction=fan_in)
    assert_close(d_h, exact_d @ exact_weight.T, dtype=dtype, longest_reduction=fan_out)
    d_weight, scratch = np.full((fan_in, fan_out), np.nan, dtype), np.empty(fan_in * fan_out, dtype)
    product_backward(h, d_z, d_weight, scratch, True)
    assert_close(d_weight, exact_h.T @ exact_d, dtype=dtype, longest_reduction=n_rows)
    product_backward(h, d_z, d_weight, scratch, False)
    assert_close(d_weight, 2 * exact_h.T @ exact_d, dtype=dtype, longest_reduction=n_rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_output(output, dtype):
    logits = np.random.default_rng(1).uniform(-4, 4, (5, 3)).astype(dtype)
    outputs = np.empty_like(logits)
    outputs_of(heads.OUTPUT_CODES[output], logits, outputs)
    expected = reference.OUTPUT_FUNCTIONS[output](logits.astype(np.float64), xp=XP)
    assert_close(outputs, expected, dtype=dtype, longest_reduction=3)


@pytest.mark.parametrize(
    "row",
    [
        [1, 3, 3, 2],
        [5, 5, 5, 5],
        [1, np.nan, 7, np.nan],
        [np.nan, 1, 2, 3],
        [-np.inf, -np.inf, -1, -2],
        [np.inf, 1, np.inf, 2],
    ],
)
def test_argmax_is_numpys_for_ties_and_nan(row):
    assert argmax(np.array([[9, 9, 9, 9], row], np.float32), 1) == np.argmax(row)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_correct_predictions_are_those_of_the_reference(task, output):
    random = np.random.default_rng(2)
    logits = random.integers(-2, 3, (200, 2)).astype(np.float32)  # ties, and probabilities of one half
    logits[::50, 1] = np.nan
    targets = random.integers(0, 2, (200, 2)).astype(np.float32)
    task_code, output_code = heads.TASK_CODES[task], heads.OUTPUT_CODES[output]
    outputs = np.empty_like(logits)
    outputs_of(output_code, logits, outputs)
    actual = [is_correct(task_code, logits, outputs, i, targets, i) for i in range(len(logits))]
    expected = [reference.count_correct(task, output, logits[[i]], targets[[i]], xp=XP) for i in range(len(logits))]
    assert actual == expected
    assert any(actual) == (task != "regression")


def test_adam_rate_is_that_of_the_reference():
    optimizer = Adam(beta_1=0.8, beta_2=0.99)
    for n_updates in (1, 2, 10, 1000, 10**6):
        actual = adam_rate(code_optimizer(optimizer), 0.01, n_updates)
        assert actual == pytest.approx(reference.adam_rate(optimizer, 0.01, n_updates), rel=1e-12)


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (bias_activation, (0, (2, 3), 1.0, (3,), (2, 3))),
        (activation_backward, (0, (2, 3), (2, 3), (2, 3))),
        (softmax_cross_entropy, ((2, 3), 0, 0, (2, 3))),
        (head_of_row, (0, (2, 3), 0, (2, 3), 0, (2, 3))),
        (outputs_of, (0, (2, 3), (2, 3))),
        (product, ((2, 3), (3, 4), (2, 4))),
    ],
    ids=["activation", "activation_backward", "softmax_cross_entropy", "head_of_row", "outputs_of", "product"],
)
def test_float32_is_never_computed_in_float64(kernel, arguments):
    numbers = [np.zeros(each, np.float32) if isinstance(each, tuple) else each for each in arguments]
    numbers = [np.float32(each) if isinstance(each, float) else each for each in numbers]
    kernel(*numbers)
    code = kernel.inspect_llvm(tuple(map(typeof, numbers)))
    # What makes a Python number of the result is double, and so is the comparison of sizes in Numba's reshape ("une"):
    # neither is the kernel's business.
    arithmetic = r"= f(?:add|sub|mul|div|neg)\b.* double .*|= fcmp (?!.*\bune\b).* double .*"
    assert re.findall(rf"{arithmetic}|= call .*double @(?!PyFloat).*", code) == []
    assert "float" in code
