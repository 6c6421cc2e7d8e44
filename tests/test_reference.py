"""The executable specification against SciPy, scikit-learn and finite differences, all in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import (
    log_loss,
    mean_absolute_error,
    mean_gamma_deviance,
    mean_poisson_deviance,
    mean_squared_error,
)

from fastnet import reference
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.reference import ACTIVATION_PAIRS, HEAD_FUNCTIONS, OUTPUT_FUNCTIONS, Operations, count_correct
from fastnet.spec import ACTIVATIONS, HEADS, LOSSES, OUTPUTS
from fastnet.testing import make_problem

XP = NumpyNamespace()
ALL_HEADS = [(output, loss) for output, losses in HEADS.items() for loss in losses]

# Written with other functions than the reference's own.
EXPECTED_ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "leaky_relu": lambda z: np.maximum(z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
    "gelu": lambda z: z * stats.norm.cdf(z),
    "silu": lambda z: z * special.expit(z),
}


def objective(problem, flat):
    loss, _, gradient, _ = reference.loss_and_gradients(
        problem.spec,
        flat,
        problem.dataset.x,
        problem.dataset.targets,
        problem.dataset.sample_weight,
        Operations(XP),
    )
    return float(loss), gradient


def central_differences(function, point, step=1e-5):
    """Gradient by ``(f(p + h) - f(p - h)) / 2 h``; wrong by about ``h ** 2``."""
    gradient = np.empty_like(point)
    for index in range(point.size):
        moved = point.copy()
        moved[index] = point[index] + step
        above = function(moved)
        moved[index] = point[index] - step
        gradient[index] = (above - function(moved)) / (2 * step)
    return gradient


def assert_gradient_matches_differences(problem):
    flat = problem.parameters.flat
    _, gradient = objective(problem, flat)
    expected = central_differences(lambda moved: objective(problem, moved)[0], flat)
    assert np.abs(gradient).max() > 1e-3, "a gradient of zero would prove nothing"
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(("output", "loss"), ALL_HEADS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_finite_differences(activation, output, loss):
    problem = make_problem((3, 4, 3, 2), 6, activation=activation, output=output, loss=loss, dtype="float64")
    assert_gradient_matches_differences(problem)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "sum"},
        {"weighted": True},
        {"weighted": True, "reduction": "sum"},
        {"l2": 0.7},
        {"bias": False},
        {"input_scale": 0.25},
        {"storage": "csr", "input_scale": 0.25},
        {"layer_sizes": (3, 2)},
        {"layer_sizes": (3, 4, 4, 4, 4, 2)},
        {"n_samples": 1},
    ],
    ids=str,
)
def test_gradients_of_every_option_are_those_of_finite_differences(options):
    assert_gradient_matches_differences(
        make_problem(**{"layer_sizes": (3, 4, 2), "n_samples": 7} | options, dtype="float64")
    )


def test_each_hidden_layer_uses_its_own_activation():
    problem = make_problem((2, 3, 3, 2), 5, output="identity", loss="squared_error", dtype="float64")
    network = replace(problem.spec.network, activations=("tanh", "silu"))
    mixed = replace(problem, spec=replace(problem.spec, network=network))
    outputs = reference.predict(
        network, problem.parameters.layout, problem.parameters.flat, problem.dataset.x, Operations(XP)
    )
    (w1, w2, w3), (b1, b2, b3) = problem.parameters.weights, problem.parameters.biases
    z = np.tanh(problem.dataset.x @ w1 + b1) @ w2 + b2
    np.testing.assert_allclose(outputs, z * special.expit(z) @ w3 + b3, rtol=1e-12)
    assert_gradient_matches_differences(mixed)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_have_their_textbook_values(activation):
    z = np.linspace(-30, 30, 241)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        values = ACTIVATION_PAIRS[activation][0](z, xp=XP)
    np.testing.assert_allclose(values, EXPECTED_ACTIVATIONS[activation](z), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_are_those_of_finite_differences(activation):
    forward, backward = ACTIVATION_PAIRS[activation]
    z = np.linspace(-6.05, 6.05, 122)
    slope = backward(np.full_like(z, 2.0), z, forward(z, xp=XP), xp=XP)
    step = 1e-6
    expected = 2.0 * (forward(z + step, xp=XP) - forward(z - step, xp=XP)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.01), ("elu", 1.0)])
def test_slope_at_the_kink(activation, slope):
    forward, backward = ACTIVATION_PAIRS[activation]
    zero = np.zeros(1)
    assert backward(np.ones(1), zero, forward(zero, xp=XP), xp=XP) == slope


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_survive_large_arguments_and_do_not_swallow_nan(activation):
    forward, backward = ACTIVATION_PAIRS[activation]
    z = np.array([-1e4, 1e4, np.nan])
    with np.errstate(over="raise", invalid="ignore"):
        h = forward(z, xp=XP)
        slope = backward(np.ones(3), z, h, xp=XP)
    np.testing.assert_allclose(h[:2], EXPECTED_ACTIVATIONS[activation](z[:2]), rtol=1e-12, atol=1e-300)
    assert np.isnan(h[2])
    assert np.isfinite(slope[:2]).all()


def random_logits(n_samples=40, n_outputs=3):
    return 3 * np.random.default_rng(0).normal(size=(n_samples, n_outputs))


def test_softmax_cross_entropy_is_scikit_learns_log_loss():
    logits, labels = random_logits(), np.random.default_rng(1).integers(0, 3, 40)
    losses, _ = reference.softmax_cross_entropy(logits, labels, xp=XP)
    np.testing.assert_allclose(losses.mean(), log_loss(labels, special.softmax(logits, axis=1), labels=[0, 1, 2]))


def test_sigmoid_cross_entropy_is_scikit_learns_log_loss_summed_over_outputs():
    logits, targets = random_logits(), np.random.default_rng(1).integers(0, 2, (40, 3))
    losses, _ = reference.sigmoid_cross_entropy(logits, targets, xp=XP)
    p = special.expit(logits)
    expected = sum(log_loss(targets[:, output], p[:, output]) for output in range(3))
    np.testing.assert_allclose(losses.mean(), expected)


@pytest.mark.parametrize("output", OUTPUTS)
def test_squared_error_is_half_of_scikit_learns_summed_over_outputs(output):
    logits, targets = random_logits(), np.random.default_rng(1).random((40, 3))
    losses, _ = HEAD_FUNCTIONS[output, "squared_error"](logits, targets, xp=XP)
    values = OUTPUT_FUNCTIONS[output](logits, xp=XP)
    np.testing.assert_allclose(losses.mean(), mean_squared_error(targets, values) * 3 / 2)


def test_poisson_is_half_of_scikit_learns_deviance_zero_counts_included():
    logits, counts = random_logits(n_outputs=1), np.random.default_rng(1).integers(0, 5, (40, 1)) / 2
    assert (counts == 0).any()
    losses, _ = reference.exp_poisson(logits, counts, xp=XP)
    np.testing.assert_allclose(losses.mean(), mean_poisson_deviance(counts[:, 0], np.exp(logits[:, 0])) / 2)


def test_gamma_is_half_of_scikit_learns_deviance_summed_over_outputs():
    logits, amounts = random_logits(), np.random.default_rng(1).gamma(2.0, size=(40, 3))
    losses, _ = reference.exp_gamma(logits, amounts, xp=XP)
    expected = sum(mean_gamma_deviance(amounts[:, output], np.exp(logits[:, output])) / 2 for output in range(3))
    np.testing.assert_allclose(losses.mean(), expected)


def test_gamma_of_large_logits_is_finite_and_right():
    """Where their exponential is not."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        losses, d_logits = reference.exp_gamma(np.array([[1e4, 800.0]]), np.array([[2.0, 3.0]]), xp=XP)
    np.testing.assert_allclose(losses, 1e4 + 800 - np.log(6) - 2, rtol=1e-15)
    assert d_logits.tolist() == [[1, 1]]


def test_absolute_error_is_scikit_learns_summed_over_outputs():
    logits, targets = random_logits(), np.random.default_rng(1).normal(size=(40, 3))
    losses, _ = reference.identity_absolute_error(logits, targets, xp=XP)
    np.testing.assert_allclose(losses.mean(), 3 * mean_absolute_error(targets, logits))


def test_slope_of_the_absolute_error_is_a_sign_and_keeps_nan():
    logits, targets = np.array([[-2.5, 0.5, 0.5, np.nan]]), np.array([[0.5, 0.5, 0.4, 0.0]])
    _, d_logits = reference.identity_absolute_error(logits, targets, xp=XP)
    np.testing.assert_array_equal(d_logits, [[-1, 0, 1, np.nan]])


def test_every_head_of_the_specification_exists_and_no_other():
    assert set(HEAD_FUNCTIONS) == set(ALL_HEADS)
    assert set(OUTPUT_FUNCTIONS) == set(OUTPUTS)
    assert set(ACTIVATION_PAIRS) == set(ACTIVATIONS)
    assert {loss for _, loss in HEAD_FUNCTIONS} == set(LOSSES)


def test_cross_entropies_of_large_logits_are_finite_and_right():
    logits = np.array([[1e4, 0.0], [1e4, 0.0]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        losses, d_logits = reference.softmax_cross_entropy(logits, np.array([0, 1]), xp=XP)
        binary, d_binary = reference.sigmoid_cross_entropy(logits[:, :1], np.array([[1.0], [0.0]]), xp=XP)
    assert losses.tolist() == [0, 1e4]
    assert d_logits.tolist() == [[0, 0], [1, -1]]
    assert binary.tolist() == [0, 1e4]
    assert d_binary.tolist() == [[0], [1]]


def test_count_correct_of_classes_takes_the_first_of_equal_logits():
    logits = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert count_correct("multiclass", "softmax", logits, np.array([0, 1, 2]), xp=XP) == 2
    assert count_correct("multiclass", "sigmoid", logits, np.eye(3)[[1, 1, 0]], xp=XP) == 2


def test_count_correct_of_labels_wants_all_of_a_sample_right():
    logits = np.array([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0]])
    assert count_correct("multilabel", "sigmoid", logits, np.array([[1, 0], [1, 1], [0, 0]]), xp=XP) == 1


def test_nothing_is_counted_for_regression():
    assert count_correct("regression", "identity", np.ones((3, 1)), np.ones((3, 1)), xp=XP) == 0


def test_a_batch_whose_weights_are_all_zero_has_no_loss_and_no_gradient():
    d_logits = np.ones((2, 3))
    loss, d_logits = reference.reduce_samples("mean", np.array([1.0, 2.0]), d_logits, np.zeros(2), xp=XP)
    assert loss == 0
    assert not d_logits.any()
