"""Plans of many kinds in one process: what is remembered for one kind is of no other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.numba_backend import NumbaBackend
from fastnet.optimizers import SGD, Adam, AdamW
from fastnet.spec import HEADS
from fastnet.testing import assert_close, make_problem, oracle

N_SAMPLES, N_STEPS = 23, 3

# Larger than rounding errors, which Adam would divide by themselves where the gradient of an absolute error is zero.
EPSILON = 1e-4

# Whatever a specification or the data may differ in, and so what might be mixed up.
CHOICES = {
    "layer_sizes": [(21, 18, 3), (21, 18, 17, 3), (21, 3), (5, 4, 3), (5, 3), (21, 16, 3)],
    "activation": ["tanh", "sigmoid", "gelu"],
    "head": [(output, loss) for output, losses in HEADS.items() for loss in losses],
    "is_regression": [False, True],
    "dtype": ["float32", "float64"],
    "storage": ["dense", "uint8", "pixels", "csr"],
    "weighted": [False, True],
    "batch_size": [None, 8],
    "optimizer": [
        SGD(),
        SGD(momentum=0.9),
        SGD(momentum=0.9, nesterov=True),
        Adam(epsilon=EPSILON),
        AdamW(weight_decay=0.1, epsilon=EPSILON),
    ],
    "bias": [True, False],
    "l2": [0.0, 0.1],
    "reduction": ["mean", "sum"],
}

each_choice = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})


def make(choice):
    options = dict(choice)
    output, loss = options.pop("head")
    task = "regression" if options.pop("is_regression") else None
    return make_problem(n_samples=N_SAMPLES, output=output, loss=loss, task=task, input_scale=0.01, **options)


def results_of(problem, backend):
    """Losses, right predictions, parameters, gradients and predictions, all in one."""
    plan, batch_size = problem.plan(backend), problem.spec.batch_size
    loss, gradients = plan.loss_and_gradients()
    order = None if batch_size is None else np.random.default_rng(0).permutation(N_SAMPLES)
    metrics = plan.run(np.full(N_STEPS, 0.001), order)
    outputs = backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
    return {
        "loss": np.array([loss]),
        "gradients": gradients.flat,
        "losses": metrics.loss,
        "right": metrics.n_correct,
        "parameters": plan.read_parameters().flat,
        "outputs": outputs,
    }


def assert_right(actual, problem):
    expected, options = results_of(oracle(problem), NumpyBackend()), {"dtype": problem.spec.network.dtype}
    for name, values in actual.items():
        assert_close(values, expected[name], name=name, longest_reduction=N_SAMPLES * 36, **options)


@pytest.mark.parametrize("name", CHOICES)
@settings(max_examples=6)
@given(choice=each_choice, data=st.data())
def test_two_plans_that_differ_in_one_thing_each_get_what_they_need(name, choice, data):
    """One after the other, and the first one again, as if nothing had been in between."""
    others = [value for value in CHOICES[name] if value != choice[name]]
    one, other = make(choice), make(choice | {name: data.draw(st.sampled_from(others))})
    first = results_of(one, NumbaBackend())
    assert_right(first, one)
    assert_right(results_of(other, NumbaBackend()), other)
    for part, values in results_of(one, NumbaBackend()).items():
        np.testing.assert_array_equal(values, first[part])
