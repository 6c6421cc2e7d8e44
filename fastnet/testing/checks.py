"""The checks of the conformance kit, one function each; a check raises AssertionError where a backend fails it."""

# Legend: S steps, P parameters.

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.interface import Backend
from fastnet.errors import PlanClosedError
from fastnet.optimizers import Adam, Optimizer
from fastnet.parameters import Parameters
from fastnet.testing.problems import Problem, assert_close, make_problem, oracle

__all__ = [
    "check_gradients",
    "check_large_logits",
    "check_manners",
    "check_nan_is_told",
    "check_prediction",
    "check_recovery",
    "check_repeatable",
    "check_state",
    "check_trajectory",
]


def _assert_parameters_close(actual: Parameters, expected: Parameters, longest_reduction: int, what: str) -> None:
    for kind in ("weights", "biases"):
        for layer, (a, r) in enumerate(zip(getattr(actual, kind), getattr(expected, kind), strict=True)):
            name = f"{what}, {kind}[{layer}]"
            assert_close(a, r, dtype=actual.flat.dtype, longest_reduction=longest_reduction, name=name)


def _assert_same_bits(actual: NDArray, expected: NDArray, what: str) -> None:
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert np.array_equal(actual, expected), f"{what}: not the same bits"


def check_gradients(backend: Backend, **options: Any) -> None:
    """Objective and gradients against the reference; and that nothing was updated."""
    problem = make_problem(**options)
    backend.check_support(problem.spec)
    plan, exact = problem.plan(backend), oracle(problem).plan(NumpyBackend())
    loss, gradients = plan.loss_and_gradients()
    expected_loss, expected_gradients = exact.loss_and_gradients()
    depth, dtype = problem.longest_reduction, problem.spec.network.dtype
    assert_close(loss, expected_loss, dtype=dtype, longest_reduction=depth, name="loss")
    assert gradients.flat.dtype == np.dtype(dtype), f"gradients are {gradients.flat.dtype}, expected {dtype}"
    _assert_parameters_close(gradients, expected_gradients, depth, "gradient")
    _assert_same_bits(plan.read_parameters().flat, problem.parameters.flat, "parameters after loss_and_gradients")
    plan.close()


def check_trajectory(backend: Backend, n_steps: int = 12, **options: Any) -> None:
    """Loss, penalty and correct predictions of every step, and the parameters at the end, against the reference."""
    problem = make_problem(**options)
    plan, exact = problem.plan(backend), oracle(problem).plan(NumpyBackend())
    rates = np.linspace(0.1, 0.02, n_steps) * (0.1 if isinstance(problem.spec.optimizer, Adam) else 1.0)
    losses, expected_losses, penalties, expected_penalties = [], [], [], []
    for part, order in _runs(problem, rates):
        metrics, expected = plan.run(part, order), exact.run(part, order)
        losses.append(metrics.loss)
        expected_losses.append(expected.loss)
        penalties.append(metrics.penalty)
        expected_penalties.append(expected.penalty)
        assert np.array_equal(metrics.n_correct, expected.n_correct), (
            f"correct predictions {metrics.n_correct}, expected {expected.n_correct}"
        )
    # An error made in one step is carried into all that follow, hence one more factor than for a single gradient.
    depth, dtype = problem.longest_reduction * n_steps**2, problem.spec.network.dtype
    for actual, reference, name in (
        (losses, expected_losses, "losses"),
        (penalties, expected_penalties, "penalties"),
    ):
        assert_close(np.concatenate(actual), np.concatenate(reference), dtype=dtype, longest_reduction=depth, name=name)
    _assert_parameters_close(plan.read_parameters(), exact.read_parameters(), depth, "trajectory")
    state, expected_state = plan.read_state(), exact.read_state()
    assert state.keys() == expected_state.keys(), f"state {sorted(state)}, expected {sorted(expected_state)}"
    assert state["n_updates"] == expected_state["n_updates"] == n_steps
    plan.close()


def _runs(problem: Problem, rates: NDArray) -> list[tuple[NDArray, NDArray[np.int64] | None]]:
    """Arguments of the calls of ``run`` that make ``len(rates)`` steps: one call per epoch of mini-batches."""
    if problem.spec.batch_size is None:
        return [(rates, None)]
    per_epoch = problem.spec.n_steps(problem.dataset.n_samples)
    assert len(rates) % per_epoch == 0, "choose whole epochs"
    random = np.random.default_rng(0)
    return [
        (rates[start : start + per_epoch], random.permutation(problem.dataset.n_samples))
        for start in range(0, len(rates), per_epoch)
    ]


def check_repeatable(backend: Backend, **options: Any) -> None:
    """The same bits when run again, and when the steps are cut into runs another way."""
    problem = make_problem(**options)
    rates, size = np.full(6, 0.05), problem.spec.batch_size
    orders = np.random.default_rng(0).integers(0, problem.dataset.n_samples, 6 * size) if size else None
    results = []
    for cuts in ((0, 6), (0, 6), (0, 1, 4, 6)):
        plan = problem.plan(backend)
        losses = []
        for start, end in pairwise(cuts):
            order = None if orders is None or size is None else orders[start * size : end * size]
            losses.append(plan.run(rates[start:end], order).loss)
        results.append((np.concatenate(losses), plan.read_parameters().flat))
        plan.close()
    for losses_again, flat_again in results[1:]:
        _assert_same_bits(losses_again, results[0][0], "losses of a repeated run")
        _assert_same_bits(flat_again, results[0][1], "parameters of a repeated run")


def check_state(backend: Backend, optimizer: Optimizer) -> None:
    """A plan given another's parameters and state goes on with the same bits; reading gives copies."""
    problem = make_problem(optimizer=optimizer)
    first, second = problem.plan(backend), problem.plan(backend)
    first.run(np.full(5, 0.05))
    second.write_parameters(first.read_parameters())
    second.write_state(first.read_state())
    _assert_same_bits(second.read_parameters().flat, first.read_parameters().flat, "parameters written and read")
    first.read_parameters().flat[:] = 0
    for array in first.read_state().values():
        array[...] = 0
    for plan in (first, second):
        plan.run(np.full(5, 0.05))
    _assert_same_bits(second.read_parameters().flat, first.read_parameters().flat, "parameters of the resumed plan")


def check_prediction(backend: Backend, **options: Any) -> None:
    """Outputs against the reference."""
    problem = make_problem(**options)
    exact = oracle(problem)
    actual = backend.predict(problem.spec.network, problem.parameters, problem.dataset.x)
    expected = NumpyBackend().predict(exact.spec.network, exact.parameters, exact.dataset.x)
    dtype = problem.spec.network.dtype
    assert actual.dtype == np.dtype(dtype), f"outputs are {actual.dtype}, expected {dtype}"
    assert_close(actual, expected, dtype=dtype, longest_reduction=problem.longest_reduction, name="outputs")


def check_large_logits(backend: Backend, output: str, dtype: str) -> None:
    """Logits of some ten thousand give a finite loss, the right one: softmax and sigmoid must not overflow."""
    problem = make_problem((4, 3), output=output, dtype=dtype)
    problem.parameters.flat[:] *= 1e4
    plan, exact = problem.plan(backend), oracle(problem).plan(NumpyBackend())
    (loss, gradients), (expected_loss, expected) = plan.loss_and_gradients(), exact.loss_and_gradients()
    assert_close(loss, expected_loss, dtype=dtype, longest_reduction=problem.longest_reduction, name="loss")
    _assert_parameters_close(gradients, expected, problem.longest_reduction, "gradient at large logits")


def check_nan_is_told(backend: Backend, activation: str) -> None:
    """A NaN among the weights of the first layer makes the loss NaN: no activation may swallow it."""
    problem = make_problem(activation=activation)
    problem.parameters.weights[0][0, 0] = np.nan
    loss = problem.plan(backend).run([0.1]).loss
    assert np.isnan(loss).all(), f"the loss is {loss} although a weight is NaN"


def check_recovery(backend: Backend, **options: Any) -> None:
    """After steps that were not finite, parameters and state written back give the bits that they gave before."""
    problem = make_problem(**options)
    size = problem.spec.batch_size
    order = None if size is None else np.arange(2 * size) % problem.dataset.n_samples
    plan = problem.plan(backend)
    state = plan.read_state()
    expected = plan.run(np.full(2, 0.05), order).loss, plan.read_parameters().flat
    with np.errstate(all="ignore"):
        lost = Parameters(problem.parameters.layout, np.full_like(problem.parameters.flat, np.inf))
        plan.write_parameters(lost)
        assert not np.isfinite(plan.run(np.full(2, 0.05), order).loss[-1]), "infinite weights gave a finite loss"
    plan.write_parameters(problem.parameters)
    plan.write_state(state)
    _assert_same_bits(plan.run(np.full(2, 0.05), order).loss, expected[0], "losses after a divergence")
    _assert_same_bits(plan.read_parameters().flat, expected[1], "parameters after a divergence")
    plan.close()


def check_manners(backend: Backend) -> None:
    """Read-only input is left as it is, parameters are copied, a plan says how it computes, and when it is closed."""
    problem = make_problem()
    before = problem.parameters.flat.copy()
    for array in (problem.dataset.x, problem.dataset.targets, problem.parameters.flat):
        array.flags.writeable = False
    plan = problem.plan(backend)
    detail = plan.detail
    assert isinstance(detail, str), f"the plan's detail is {detail!r}, expected a str"
    assert [detail.strip()] == detail.splitlines() != [""], f"the plan's detail is {detail!r}, expected one line"
    plan.run(np.full(3, 0.5))
    plan.synchronize()
    assert plan.detail == detail, f"the plan's detail was {detail!r}, and is {plan.detail!r} after a run"
    _assert_same_bits(problem.parameters.flat, before, "the caller's parameters")
    assert not np.array_equal(plan.read_parameters().flat, before), "three steps changed nothing"
    plan.close()
    plan.close()
    try:
        plan.read_parameters()
    except PlanClosedError:
        return
    raise AssertionError("a closed plan did not raise PlanClosedError")
