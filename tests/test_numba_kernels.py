"""Activations, losses and counts of the Numba backend, one by one, against the reference in float64."""

# Legend: C outputs, S samples, which lie along the rows of all arrays here and along the columns of the reference's.

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
from native_calls import compiled, run
from numba import cfunc, typeof, types

from fastnet import reference
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.backends.numba_backend.buffers import code_optimizer, read_only
from fastnet.backends.numba_backend.kernels import activations, compiling, heads, updates
from fastnet.backends.numba_backend.layout import KEEPS_Z
from fastnet.optimizers import Adam
from fastnet.spec import ACTIVATIONS, HEADS, OUTPUTS, Task

XP = NumpyNamespace()
DTYPES = ("float32", "float64")
ALL_HEADS = [(output, loss) for output, losses in HEADS.items() for loss in losses]


def activate(name, z):
    h = z.copy()
    run(activations.ACTIVATE[name], h)
    return h


def outputs_of(output, logits):
    """p (C, S), and what losses go on from: rows (2, S) and d (C, S)."""
    p, rows, d = np.empty_like(logits), np.empty_like(logits[:2]), np.empty_like(logits)
    run(heads.OUTPUTS[output], logits, p, rows, d)
    return p, rows, d


def pre_activations(dtype):
    """Around zero and as large as they get; zeros among them."""
    large = np.r_[0.0, np.logspace(-6, 4, 39)]
    return np.r_[np.linspace(-9, 9, 40), large, -large].astype(dtype)


def assert_elements_close(actual, expected, dtype, factor=32):
    """Element by element, since the arrays hold values of all sizes; below one, by the difference itself.

    An exponential has a relative error of its argument's size times eps: hence factors that grow with the logits.
    """
    allowed = factor * np.finfo(dtype).eps * np.maximum(np.abs(expected), 1)
    assert actual.dtype == np.dtype(dtype)
    np.testing.assert_array_less(np.abs(actual - expected), allowed)


def test_every_name_of_the_specification_has_its_functions():
    assert tuple(activations.ACTIVATE) == tuple(activations.BACKWARD) == ACTIVATIONS
    assert set(heads.OUTPUTS) == set(OUTPUTS)
    assert set(heads.HEADS) == set(ALL_HEADS)
    assert {task for task, _ in heads.COUNTS} == set(get_args(Task))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_backward_form(name, dtype):
    forward, backward = reference.ACTIVATION_PAIRS[name]
    z = pre_activations(dtype)
    exact = z.astype(np.float64)
    d_h = np.linspace(-1, 1, z.size).astype(dtype)
    exact_h = forward(exact, xp=XP)
    expected_d_z = backward(d_h.astype(np.float64), exact, exact_h, xp=XP)

    h = activate(name, z)
    assert_elements_close(h, exact_h, dtype)
    run(activations.BACKWARD[name], d_h, read_only(z if name in KEEPS_Z else h, dtype))
    assert_elements_close(d_h, expected_d_z, dtype)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_passes_through_every_activation(name):
    assert np.isnan(activate(name, np.full(40, np.nan, np.float32))).all()


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
    """Output, loss and gradient; one half of the samples has targets between zero and one."""
    random, factor = np.random.default_rng(0), 8 * min(largest, 30) + 8
    logits = random.uniform(-largest, largest, (4, 70)).astype(dtype)
    labels, targets = random.integers(0, 4, 70).astype(np.int32), random.integers(0, 2, (4, 70)).astype(dtype)
    targets[:, ::2] = random.random((4, 35))
    if loss == "gamma":
        targets += 0.5  # which must be above zero
    exact = logits.T.astype(np.float64)
    expected_losses, expected_d = reference.HEAD_FUNCTIONS[output, loss](
        exact, labels if (output, loss) == ("softmax", "cross_entropy") else targets.T.astype(np.float64), xp=XP
    )
    p, rows, d = outputs_of(output, logits)
    assert_elements_close(p.T, reference.OUTPUT_FUNCTIONS[output](exact, xp=XP), dtype, factor)
    losses = np.empty(70, dtype)
    run(heads.HEADS[output, loss], logits, p, labels, targets, rows, d, losses)
    assert_elements_close(losses, expected_losses, dtype, factor)
    assert_elements_close(d.T, expected_d, dtype, factor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gamma_does_not_overflow_where_outputs_do(dtype):
    logits, targets = np.full((2, 16), 1e4, dtype), np.full((2, 16), 2, dtype)
    p, rows, d = outputs_of("exp", logits)
    losses = np.empty(16, dtype)
    run(heads.HEADS["exp", "gamma"], logits, p, np.zeros(16, np.int32), targets, rows, d, losses)
    assert np.isinf(p).all()
    np.testing.assert_allclose(losses, 2 * (1e4 - np.log(2) - 1), rtol=1e-6)
    np.testing.assert_array_equal(d, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_slope_of_the_absolute_error_is_a_sign_and_keeps_nan(dtype):
    logits, targets = np.array([[-2.5, 0.5, 0.5, np.nan] * 4], dtype), np.array([[0.5, 0.5, 0.25, 0.0] * 4], dtype)
    d, losses = np.empty_like(logits), np.empty(16, dtype)
    run(heads.HEADS["identity", "absolute_error"], logits, logits, np.zeros(16, np.int32), targets, logits, d, losses)
    np.testing.assert_array_equal(d, [[-1, 0, 1, np.nan] * 4])
    np.testing.assert_array_equal(losses, [3, 0, 0.25, np.nan] * 4)


def count(task, output, logits, labels, targets, n_rows, *, by_labels):
    p, _, _ = outputs_of(output, logits)
    n_correct = np.array([100])
    predicted = np.full(logits.shape[1], -1, np.int32)
    native = heads.COUNTS[task, by_labels]
    run(native, logits, p, labels, targets, predicted, n_rows, n_correct)
    return n_correct[0] - 100


AWKWARD_LOGITS = [
    [1, 3, 3, 2],
    [5, 5, 5, 5],
    [1, np.nan, 7, np.nan],
    [np.nan, 1, 2, 3],
    [-np.inf, -np.inf, -1, -2],
    [np.inf, 1, np.inf, 2],
    [np.nan] * 4,
]


@pytest.mark.parametrize("by_labels", [True, False])
def test_the_predicted_class_is_numpys_for_ties_and_nan(by_labels):
    logits, n_samples = np.array(AWKWARD_LOGITS, np.float32).T.copy(), len(AWKWARD_LOGITS)
    for shift in range(4):
        labels = ((logits.argmax(axis=0) + shift) % 4).astype(np.int32)
        targets = np.eye(4, dtype=np.float32)[labels].T.copy()
        n_right = count("multiclass", "identity", logits, labels, targets, n_samples, by_labels=by_labels)
        assert n_right == (n_samples if shift == 0 else 0)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("task", "by_labels"), heads.COUNTS)
def test_right_predictions_are_those_of_the_reference(task, by_labels, output):
    """Ties, probabilities of one half and NaN among them; samples beyond the tile's last one do not count."""
    random, n_rows = np.random.default_rng(2), 180
    logits = random.integers(-2, 3, (2, 200)).astype(np.float32)
    logits[1, ::50] = np.nan
    labels = random.integers(0, 2, 200).astype(np.int32)
    targets = np.eye(2, dtype=np.float32)[labels].T.copy()
    if task == "multilabel":
        targets = random.integers(0, 2, (2, 200)).astype(np.float32)
    actual = count(task, output, logits, labels, targets, n_rows, by_labels=by_labels)
    wanted = labels[:n_rows] if by_labels else targets.T[:n_rows]
    expected = reference.count_correct(task, output, logits.T[:n_rows], wanted, xp=XP)
    assert actual == expected
    assert (actual > 0) == (task != "regression")


@compiled
def adam_rate(optimizer, rate, n_updates):
    return updates.adam_rate(optimizer, rate, n_updates)


def test_adam_rate_is_that_of_the_reference():
    optimizer = Adam(beta_1=0.8, beta_2=0.99)
    for n_updates in (1, 2, 10, 1000, 10**6):
        actual = adam_rate(code_optimizer(optimizer), 0.01, n_updates)
        assert actual == pytest.approx(reference.adam_rate(optimizer, 0.01, n_updates), rel=1e-12)


_ROW, _TABLE, _LABELS = np.zeros(3, np.float32), np.zeros((2, 3), np.float32), np.zeros(3, np.int32)

ARGUMENTS_OF_ALL = (
    [(native, (_ROW,)) for native in activations.ACTIVATE.values()]
    + [(native, (_ROW, _ROW)) for native in activations.BACKWARD.values()]
    + [(native, (_TABLE,) * 4) for native in heads.OUTPUTS.values()]
    + [(native, (_TABLE, _TABLE, _LABELS, _TABLE, _TABLE, _TABLE, _ROW)) for native in heads.HEADS.values()]
    + [(heads.weigh, (_TABLE, _ROW, np.float32(0)))]
)


@pytest.mark.parametrize(
    ("native", "arguments"), ARGUMENTS_OF_ALL, ids=[native.function.__name__ for native, _ in ARGUMENTS_OF_ALL]
)
def test_float32_is_never_computed_in_float64(native, arguments):
    """One plain 0.5 is enough to halve the speed of a loop. Compiled anew: what is on disk cannot be looked into."""
    signature = types.void(*map(typeof, arguments))
    code = cfunc(signature, **compiling._KERNEL_OPTIONS)(native.function).inspect_llvm()
    assert "define" in code
    arithmetic = r"= f(?:add|sub|mul|div|neg)\b.* double .*|= fcmp .* double .*|= fp(?:ext|trunc)\b.*"
    assert re.findall(rf"{arithmetic}|= call .*double @.*", code) == []
