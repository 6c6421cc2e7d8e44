from __future__ import annotations

import numpy as np
import pytest

from fastnet import DataError, SpecError
from fastnet.initializers import SCHEMES, draw, initialize
from fastnet.parameters import ParameterLayout

LAYOUT = ParameterLayout((6, 5, 4), bias=True)
SHAPE = (300, 200)


def large(scheme):
    return draw(scheme, SHAPE, np.random.default_rng(0), fan_in=300, fan_out=200)


@pytest.mark.parametrize(
    ("scheme", "low", "high"),
    [
        ("glorot_uniform", -np.sqrt(6 / 500), np.sqrt(6 / 500)),
        ("uniform(-0.5, 0.5)", -0.5, 0.5),
        ("uniform(1,3)", 1, 3),
        (" uniform( -1e-3 , 2e-3 ) ", -1e-3, 2e-3),
    ],
)
def test_uniform_schemes_fill_their_interval(scheme, low, high):
    values = large(scheme)
    width = high - low
    assert low <= values.min() < low + 1e-3 * width
    assert high - 1e-3 * width < values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.01 * width)


@pytest.mark.parametrize(
    ("scheme", "mean", "deviation"),
    [
        ("he_normal", 0, np.sqrt(2 / 300)),
        ("normal", 0, np.sqrt(1 / 300)),
        ("normal(0, 1)", 0, 1),
        ("normal(2.0, 0.5)", 2, 0.5),
    ],
)
def test_normal_schemes_have_their_moments(scheme, mean, deviation):
    values = large(scheme)  # 60,000 of them: moments are known to about half a percent
    assert values.mean() == pytest.approx(mean, abs=0.02 * deviation)
    assert values.std() == pytest.approx(deviation, rel=0.02)
    kurtosis = (((values - values.mean()) / values.std()) ** 4).mean()
    assert kurtosis == pytest.approx(3, abs=0.1)


def test_zeros_are_zero():
    assert not large("zeros").any()


@pytest.mark.parametrize("scheme", [*SCHEMES, "uniform(0, 1)", "normal(0, 1)"])
def test_both_dtypes_start_from_the_same_numbers(scheme):
    single = initialize(LAYOUT, scheme, scheme, np.random.default_rng(3), "float32")
    double = initialize(LAYOUT, scheme, scheme, np.random.default_rng(3), "float64")
    np.testing.assert_array_equal(single.flat, double.flat.astype(np.float32))


@pytest.mark.parametrize("make_random", [np.random.RandomState, np.random.default_rng])
def test_a_layers_weight_is_drawn_before_its_bias_and_layers_in_order(make_random):
    parameters = initialize(LAYOUT, "uniform(-1, 1)", "uniform(-1, 1)", make_random(4), "float64")
    random = make_random(4)
    for weight, bias in zip(parameters.weights, parameters.biases, strict=True):
        np.testing.assert_array_equal(weight, random.uniform(-1, 1, weight.shape))
        np.testing.assert_array_equal(bias, random.uniform(-1, 1, bias.shape))


def test_fans_are_those_of_each_layer_for_biases_too():
    parameters = initialize(
        ParameterLayout((1000, 10, 1000), bias=True), "he_normal", "he_normal", np.random.default_rng(0), "float64"
    )
    assert parameters.weights[0].std() == pytest.approx(np.sqrt(2 / 1000), rel=0.03)
    assert parameters.weights[1].std() == pytest.approx(np.sqrt(2 / 10), rel=0.03)
    assert parameters.biases[1].std() == pytest.approx(np.sqrt(2 / 10), rel=0.1)


def test_nothing_is_drawn_for_what_is_given_or_absent():
    random = np.random.default_rng(0)
    given = [np.ones((6, 5)), np.ones((5, 4))]
    initialize(LAYOUT, given, "zeros", random, "float32")
    initialize(ParameterLayout((6, 5, 4), bias=False), given, "normal", random, "float32")
    assert random.random() == np.random.default_rng(0).random()


def test_explicit_arrays_are_used_as_they_are():
    weights, biases = [np.full((6, 5), 2), np.full((5, 4), 3)], [np.arange(5), np.arange(4)]
    parameters = initialize(LAYOUT, weights, biases, np.random.default_rng(0), "float32")
    for actual, expected in zip([*parameters.weights, *parameters.biases], weights + biases, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("glorot_unifrom", "unknown init 'glorot_unifrom': did you mean 'glorot_uniform'"),
        ("uniform", "unknown init 'uniform'"),
        ("uniform(1)", "unknown init"),
        ("uniform(a, b)", "must be two numbers, as in"),
        ("uniform(1, -1)", r"init 'uniform\(1, -1\)': "),
        ("uniform(0, nan)", r"init 'uniform\(0, nan\)': "),
        ("normal(0, -1)", r"init 'normal\(0, -1\)': "),
    ],
)
def test_unknown_schemes_and_bad_arguments_are_refused(scheme, message):
    with pytest.raises(SpecError, match=message):
        initialize(LAYOUT, scheme, "zeros", np.random.default_rng(0), "float32")


def test_arrays_for_another_network_are_refused():
    with pytest.raises(DataError, match="2 weight arrays expected"):
        initialize(LAYOUT, [np.ones((6, 5))], "zeros", np.random.default_rng(0), "float32")
    with pytest.raises(DataError, match="bias 0 must have shape"):
        initialize(LAYOUT, "normal", [np.ones(4), np.ones(5)], np.random.default_rng(0), "float32")
