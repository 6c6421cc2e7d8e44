"""Where the Numba backend keeps parameters and activations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastnet.backends.numba_backend import NumbaBackend
from fastnet.backends.numba_backend.layout import LOSS_ROWS, lanes_of_dtype, lay_out
from fastnet.optimizers import Adam
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import ACTIVATIONS, NetworkSpec
from fastnet.testing import make_problem

SHAPES = [(3, 2), (40, 17), (5, 7, 6, 3), (16, 16, 16), (17, 9, 4), (70, 40, 33, 5), (8, 1, 1, 2), (300, 16, 10)]

# Activations that keep z besides h, and that do not, and one that is not zero at zero.
MIXED = ("sigmoid", "gelu")


def describe(layer_sizes, **options):
    activations = [MIXED[i % 2] for i in range(len(layer_sizes) - 2)]
    return NetworkSpec(layer_sizes, tuple(activations), **options)


def every_network():
    return [
        (describe(layer_sizes, bias=bias, dtype=dtype), sparse)
        for layer_sizes in SHAPES
        for bias in (False, True)
        for dtype in ("float32", "float64")
        for sparse in (False, True)
    ]


@pytest.mark.parametrize(("network", "sparse"), every_network())
def test_every_parameter_has_a_place_of_its_own(network, sparse):
    layout, n_parameters = lay_out(network, sparse=sparse), ParameterLayout.of(network).size
    assert layout.positions.shape == np.unique(layout.positions).shape == (n_parameters,)
    assert layout.positions.min() >= 0
    assert layout.positions.max() < layout.n_parameters
    n_weights = ParameterLayout.of(network).n_weights
    first_weight = network.layer_sizes[0] * network.layer_sizes[1]
    assert layout.positions[:first_weight].max() < layout.first_weight_size
    assert (layout.positions[first_weight:] >= layout.first_weight_size).all()
    assert layout.positions[:n_weights].max() < layout.n_weights
    assert (layout.positions[n_weights:] >= layout.n_weights).all()


@pytest.mark.parametrize(("network", "sparse"), every_network())
def test_no_two_arrays_of_a_tile_overlap(network, sparse):
    layout, n_outputs = lay_out(network, sparse=sparse), network.n_outputs
    spans = {(0, 0 if sparse else network.n_features), (layout.loss_rows, n_outputs + LOSS_ROWS)}
    spans |= {(start, n_outputs) for start in (layout.logits, layout.outputs, layout.d_logits)}
    has_own = network.n_layers if layout.across or network.n_layers == 1 else network.n_layers - 1
    for i, layer in enumerate(layout.layers[:has_own]):
        assert layer["width"] >= network.layer_sizes[i + 1]
        assert layout.across or layer["width"] % layout.lanes == 0
        keeps_z = i < network.n_layers - 1 and network.activations[i] == "gelu"
        assert (layer["kept"] != layer["h"]) == keeps_z
        spans |= {(int(layer[name]), int(layer["width"])) for name in ("h", "d", "kept")}
    ends = [0]
    for start, size in sorted(spans):
        assert start >= ends[-1]
        ends.append(start + size)
    assert ends[-1] <= layout.n_columns


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_networks_that_fit_into_a_vector_lie_across(dtype):
    lanes = lanes_of_dtype(np.dtype(dtype))
    for widths in ((lanes, lanes, 2), (2, lanes), (lanes, 1, lanes)):
        assert lay_out(describe(widths, dtype=dtype), sparse=False).across
        assert not lay_out(describe(widths, dtype=dtype), sparse=True).across
    for widths in ((lanes + 1, 2), (2, lanes + 1, 2), (2, 2, lanes + 1)):
        assert not lay_out(describe(widths, dtype=dtype), sparse=False).across


@pytest.mark.parametrize("storage", ["dense", "csr"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer_sizes", SHAPES)
def test_what_is_written_is_read(layer_sizes, bias, storage):
    """Parameters and what the optimizer remembers, each number a different one."""
    problem = make_problem(layer_sizes, 4, storage=storage, bias=bias, optimizer=Adam())
    trained, layout = problem.plan(NumbaBackend()), problem.parameters.layout
    np.testing.assert_array_equal(trained.read_parameters().flat, problem.parameters.flat)
    numbers = np.arange(1, layout.size + 1, dtype=np.float32)
    trained.write_parameters(Parameters(layout, numbers))
    trained.write_state({"first_moment": -numbers, "second_moment": 2 * numbers, "n_updates": np.array(7)})
    np.testing.assert_array_equal(trained.read_parameters().flat, numbers)
    state = trained.read_state()
    np.testing.assert_array_equal(state["first_moment"], -numbers)
    np.testing.assert_array_equal(state["second_moment"], 2 * numbers)
    assert state["n_updates"] == 7


def assert_filling_is_zero(plan):
    filling = np.ones(plan._layout.n_parameters, bool)
    filling[plan._layout.positions] = False
    assert filling.any()
    for name in ("flat", "gradient", "first", "second"):
        array = getattr(plan._state, name)
        assert array[plan._layout.positions].any(), name
        assert not array[: plan._layout.n_parameters][filling].any(), name


@pytest.mark.parametrize("storage", ["dense", "csr"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_fills_up_vectors_stays_zero(activation, storage):
    """Also where the activation of zero is not zero: units that are not there would otherwise get weights."""
    problem = make_problem((21, 18, 33, 3), 50, activation=activation, storage=storage, optimizer=Adam())
    trained = problem.plan(NumbaBackend())
    trained.run(np.full(5, 0.1))
    assert_filling_is_zero(trained)


@pytest.mark.parametrize("layer_sizes", [(40, 17), (5, 7, 6, 3)])
def test_what_fills_up_vectors_stays_zero_in_batches(layer_sizes):
    problem = make_problem(layer_sizes, 50, activation="sigmoid", batch_size=20, optimizer=Adam())
    trained = problem.plan(NumbaBackend())
    trained.run(np.full(3, 0.1), np.random.default_rng(0).permutation(50))
    assert_filling_is_zero(trained)


def test_biases_that_are_not_there_stay_zero():
    problem = make_problem((21, 18, 3), bias=False, optimizer=Adam())
    trained, layout = problem.plan(NumbaBackend()), lay_out(problem.spec.network, sparse=False)
    trained.run(np.full(5, 0.1))
    biases = trained._state.flat[layout.n_weights :]
    assert biases.size > 0
    assert not biases.any()
    with_biases = replace(problem.spec.network, bias=True)
    assert lay_out(with_biases, sparse=False).n_parameters == layout.n_parameters
