"""A first layer divided by panels of its weight: it must not make any difference but to the time that a step takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.numba_backend import NumbaBackend, plan
from fastnet.data import Dataset
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.testing import assert_close, make_problem, oracle

# Three and a half panels of float32, or six and a half of float64.
WIDE = (70, 52, 3)


def small_batches(layer_sizes=WIDE, n_samples=90, batch_size=40, **options):
    options = {"storage": "pixels", "optimizer": Adam(), "activation": "relu", "input_scale": 1 / 255} | options
    return make_problem(layer_sizes, n_samples, batch_size=batch_size, **options)


def run(problem, order, n_threads=2, rate=0.01):
    """Figures, parameters and state after a run over `order`; and whether the first layer was divided."""
    trained = problem.plan(NumbaBackend(n_threads=n_threads))
    n_steps = -(-len(order) // problem.spec.batch_size)
    metrics = trained.run(np.full(n_steps, rate), order)
    arrays = {"parameters": trained.read_parameters().flat, "loss": metrics.loss, "n_correct": metrics.n_correct}
    return arrays | trained.read_state(), trained._workspace.scratch.by_panels


def order_of(problem, seed=0):
    return np.random.default_rng(seed).permutation(problem.dataset.n_samples)


VARIANTS = {
    "float32": {},
    "float64": {"dtype": "float64"},
    "sgd": {"optimizer": SGD(momentum=0.9, nesterov=True)},
    "adamw": {"optimizer": AdamW(weight_decay=0.1), "dtype": "float64"},
    "l2": {"l2": 0.1, "l2_averaged": True, "dtype": "float64"},
    "no-bias": {"bias": False, "dtype": "float64"},
    "weighted": {"weighted": True, "dtype": "float64"},
    "csr": {"storage": "csr", "input_scale": 1.0},
    "dense": {"storage": "dense", "input_scale": 0.5},
    "dense-float64": {"storage": "dense", "input_scale": 1.0, "dtype": "float64", "l2": 0.1, "weighted": True},
    "dense-deep": {"storage": "dense", "input_scale": 1.0, "layer_sizes": (60, 45, 37, 50, 4), "activation": "tanh"},
    "dense-single": {"storage": "dense", "input_scale": 1.0, "layer_sizes": (70, 52), "dtype": "float64"},
    "dense-no-bias": {"storage": "dense", "input_scale": 1.0, "bias": False},
    "bytes": {"storage": "uint8"},
    "bytes-small-batches": {"storage": "uint8", "batch_size": 7, "n_samples": 24},
    "deep": {"layer_sizes": (60, 45, 37, 50, 4), "activation": "tanh", "dtype": "float64"},
    "single": {"layer_sizes": (70, 52), "dtype": "float64"},
    "whole-panels": {"layer_sizes": (60, 64, 3)},
    "small-batches": {"batch_size": 7, "n_samples": 24},
    "one-sample": {"batch_size": 1, "n_samples": 9},
    "one-batch": {"batch_size": 60, "n_samples": 50},
    "sigmoid": {"activation": "sigmoid", "dtype": "float64"},
    "silu": {"activation": "silu", "dtype": "float64"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rows_of_group", [12, 500], ids=["groups", "one-group"])
def test_divided_steps_give_what_the_reference_gives(monkeypatch, variant, rows_of_group):
    """Every optimizer, penalty and shape, batches of several groups, and a last one that is shorter."""
    monkeypatch.setattr(plan, "count_groups", lambda n_rows, *_: max(1, min(n_rows // rows_of_group, 4)))
    monkeypatch.setattr(plan, "is_worth_dividing_by_panels", lambda *_, packed: True)
    problem = small_batches(**VARIANTS[variant])
    order = order_of(problem)
    actual, divided = run(problem, order)
    assert divided
    n_steps = -(-len(order) // problem.spec.batch_size)
    expected = oracle(problem).plan(NumpyBackend())
    exact = expected.run(np.full(n_steps, 0.01), order)
    options = {"dtype": problem.spec.network.dtype, "longest_reduction": problem.longest_reduction * n_steps**2}
    assert_close(actual["loss"], exact.loss, **options)
    assert_close(actual["parameters"], expected.read_parameters().flat, **options)
    for name, array in expected.read_state().items():
        assert_close(actual[name], array, name=name, **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_divided_steps_are_those_of_undivided_ones(monkeypatch, variant):
    """Bit for bit, whatever the number of threads. Only penalties are added up in another order."""
    monkeypatch.setattr(plan, "count_groups", lambda n_rows, *_: max(1, min(n_rows // 12, 4)))
    problem = small_batches(**VARIANTS[variant])
    order = order_of(problem)
    monkeypatch.setattr(plan, "is_worth_dividing_by_panels", lambda *_, packed: False)
    expected, divided = run(problem, order)
    assert not divided
    monkeypatch.setattr(plan, "is_worth_dividing_by_panels", lambda *_, packed: True)
    for n_threads in (1, 2, 5):
        actual, divided = run(problem, order, n_threads)
        assert divided
        for name, array in expected.items():
            if name == "loss" and problem.spec.network.l2:
                np.testing.assert_allclose(actual[name], array, rtol=1e-14)
            else:
                np.testing.assert_array_equal(actual[name], array, err_msg=name)


def test_a_last_batch_whose_rows_would_be_one_group_too_large_for_a_tile():
    """Two groups of 100 rows have tiles of 128; 150 rows would be one group."""
    problem = small_batches((784, 40, 3), 350, 200, storage="csr", input_scale=1.0)
    order = order_of(problem)
    actual, divided = run(problem, order)
    assert divided
    expected = oracle(problem).plan(NumpyBackend())
    exact = expected.run([0.01, 0.01], order)
    assert_close(actual["loss"], exact.loss, dtype="float32", longest_reduction=784)


def test_gradients_of_all_samples_between_divided_runs():
    """They need more groups than a batch has, of more tiles each, and leave the plan's state alone."""
    problem = small_batches((784, 40, 3), 700, 64, storage="csr", input_scale=1.0, dtype="float64")
    order = order_of(problem)[:128]
    whole, halves = (problem.plan(NumbaBackend(n_threads=2)) for _ in range(2))
    assert whole._workspace.scratch.by_panels
    whole.run([0.01, 0.01], order)
    halves.run([0.01], order[:64])
    loss, gradients = halves.loss_and_gradients()
    expected = replace(oracle(problem), parameters=halves.read_parameters()).plan(NumpyBackend()).loss_and_gradients()
    assert_close(loss, expected[0], dtype="float64", longest_reduction=700)
    assert_close(gradients.flat, expected[1].flat, dtype="float64", longest_reduction=700)
    halves.run([0.01], order[64:])
    np.testing.assert_array_equal(whole.read_parameters().flat, halves.read_parameters().flat)


def test_one_long_row_may_come_again_and_again(monkeypatch):
    """It has more non-zeros than any batch of different samples, in every group."""
    monkeypatch.setattr(plan, "count_groups", lambda *_: 2)
    x = np.zeros((300, 3000), np.float32)
    x[:, 0], x[7, :2000] = 1, np.random.default_rng(0).normal(size=2000)
    problem = small_batches((3000, 40, 3), 300, 40, input_scale=1.0)
    problem = replace(problem, dataset=Dataset(csr_array(x), problem.dataset.targets))
    often = np.full(80, 7)
    actual, divided = run(problem, often)
    assert divided
    exact = oracle(problem).plan(NumpyBackend()).run([0.01, 0.01], often)
    assert_close(actual["loss"], exact.loss, dtype="float32", longest_reduction=3000)
