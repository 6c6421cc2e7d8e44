from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet import DataError
from fastnet.parameters import ParameterLayout, Parameters

LAYOUT = ParameterLayout((4, 3, 2), bias=True)

layouts = st.builds(
    ParameterLayout, st.lists(st.integers(1, 7), min_size=2, max_size=5).map(tuple), st.booleans()
)  # fmt: skip


def numbered(layout):
    return Parameters(layout, np.arange(layout.size, dtype=np.float64))


@given(layouts)
def test_weights_then_biases_cover_the_buffer_once_in_layer_order(layout):
    parameters = numbered(layout)
    pieces = [*parameters.weights, *parameters.biases]
    np.testing.assert_array_equal(np.concatenate([piece.ravel() for piece in pieces]), parameters.flat)
    assert sum(weight.size for weight in parameters.weights) == layout.n_weights
    assert sum(bias.size for bias in parameters.biases) == layout.n_biases
    assert layout.size == layout.n_weights + layout.n_biases


@given(layouts)
def test_shapes_and_offsets_are_those_of_the_views(layout):
    parameters = numbered(layout)
    assert tuple(weight.shape for weight in parameters.weights) == layout.weight_shapes
    assert [weight.shape for weight in parameters.weights] == list(pairwise(layout.layer_sizes))
    assert tuple(int(weight[0, 0]) for weight in parameters.weights) == layout.weight_offsets
    assert tuple(int(bias[0]) for bias in parameters.biases) == layout.bias_offsets
    assert [bias.shape for bias in parameters.biases] == ([(n,) for n in layout.layer_sizes[1:]] if layout.bias else [])


def assert_views_follow(parameters):
    parameters.flat[:] = 7
    assert all((view == 7).all() for view in [*parameters.weights, *parameters.biases])
    parameters.weights[1][2, 0] = 5
    parameters.biases[1][1] = 3
    assert (parameters.flat == 5).sum() == (parameters.flat == 3).sum() == 1


@pytest.mark.parametrize(
    "duplicate",
    [
        Parameters.copy,
        copy.copy,
        copy.deepcopy,
        lambda parameters: pickle.loads(pickle.dumps(parameters)),
    ],
    ids=["copy", "copy.copy", "deepcopy", "pickle"],
)
def test_views_follow_the_buffer_however_it_was_made(duplicate):
    original = numbered(LAYOUT)
    again = duplicate(original)
    assert again.layout == LAYOUT
    np.testing.assert_array_equal(again.flat, np.arange(LAYOUT.size))
    assert_views_follow(again)


def test_a_copy_is_independent():
    original = numbered(LAYOUT)
    original.copy().flat[:] = -1
    np.testing.assert_array_equal(original.flat, np.arange(LAYOUT.size))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_explicit_arrays_are_copied_and_cast(dtype):
    weights = [np.full((4, 3), 0.1), np.full((3, 2), 0.2)]
    parameters = Parameters.from_arrays(LAYOUT, weights, [[1, 2, 3], [4, 5]], dtype)
    assert parameters.flat.dtype == dtype
    weights[0][:] = 9
    np.testing.assert_array_equal(parameters.weights[0], np.full((4, 3), 0.1, dtype))
    np.testing.assert_array_equal(np.concatenate(parameters.biases), [1, 2, 3, 4, 5])


def test_biases_default_to_zero():
    parameters = Parameters.from_arrays(LAYOUT, [np.ones((4, 3)), np.ones((3, 2))], None, "float32")
    assert not np.concatenate(parameters.biases).any()


@pytest.mark.parametrize(
    ("weights", "biases", "message"),
    [
        ([np.ones((4, 3))], None, "2 weight arrays expected, one per layer, got 1"),
        ([np.ones((3, 4)), np.ones((3, 2))], None, r"weight 0 must have shape \(4, 3\).*transposed: pass array.T"),
        ([np.ones((4, 3)), np.ones((3, 3))], None, r"weight 1 must have shape \(3, 2\), got \(3, 3\)$"),
        ([np.ones((4, 3)), np.ones(6)], None, "weight 1 must have shape"),
        ([np.ones((4, 3)), np.full((3, 2), np.nan)], None, "weight 1 holds a value that is not finite"),
        ([np.ones((4, 3)), np.full((3, 2), 1e300)], None, "weight 1 holds a value that is not finite"),
        ([np.ones((4, 3)), [["a", "b"]] * 3], None, "weight 1 must hold numbers"),
        ([np.ones((4, 3)), np.ones((3, 2))], [np.ones(3)], "2 bias arrays expected"),
        ([np.ones((4, 3)), np.ones((3, 2))], [np.ones(3), np.ones((2, 1))], r"bias 1 must have shape \(2,\)"),
        ([np.ones((4, 3)), np.ones((3, 2))], [np.ones(3), [0, np.inf]], "bias 1 holds a value that is not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(weights, biases, message):
    with pytest.raises(DataError, match=message):
        Parameters.from_arrays(LAYOUT, weights, biases, "float32")


def test_a_buffer_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"23 parameters expected, got an array of shape \(22,\)"):
        Parameters(LAYOUT, np.zeros(22))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite_finds_a_single_bad_number(bad):
    parameters = numbered(LAYOUT)
    assert parameters.all_finite()
    parameters.biases[-1][-1] = bad
    assert not parameters.all_finite()
