"""The conformance kit must fail on broken plans, and the comparison must fail on wrong numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet.backends.array_backend import NumpyBackend
from fastnet.backends.array_engine import ReferenceEngine
from fastnet.backends.array_plan import ArrayPlan
from fastnet.backends.interface import StepMetrics
from fastnet.parameters import Parameters
from fastnet.testing import assert_close, check_backend, conformance_checks, make_problem, tolerance
from fastnet.testing.problems import KINK_MARGIN


class Sabotaged(NumpyBackend):
    """NumPy's backend with the methods of one mixin put before those of its plans."""

    name = "sabotaged"

    def __init__(self, sabotage):
        super().__init__()
        self._plan_class = type("SabotagedPlan", (sabotage, ArrayPlan), {})

    def plan_training(self, spec, parameters, dataset):
        engine = ReferenceEngine(spec, dataset, self._library, "sabotaged")
        plan = self._plan_class(spec, parameters, engine, self._library)
        plan.spec = spec
        return plan


class TransposedWeight:
    def loss_and_gradients(self):
        loss, gradients = super().loss_and_gradients()
        for weight in gradients.weights:
            weight[...] = weight.T.ravel().reshape(weight.shape)
        return loss, gradients


class StaleLoss:
    """Reports the loss after the update in place of the one before it."""

    def run(self, learning_rates, order=None):
        metrics = super().run(learning_rates, order)
        after, _ = self.loss_and_gradients()
        losses = np.append(metrics.loss[1:], after)
        return StepMetrics(lambda: (losses, metrics.penalty, metrics.n_correct))


class MissingBiasGradient:
    def loss_and_gradients(self):
        loss, gradients = super().loss_and_gradients()
        for bias in gradients.biases:
            bias[...] = 0
        return loss, gradients


class ScalarBiasGradient:
    """The tutorials' mistake: the gradients of all biases of a layer summed into one number."""

    def loss_and_gradients(self):
        loss, gradients = super().loss_and_gradients()
        for bias in gradients.biases:
            bias[...] = bias.sum()
        return loss, gradients


class SkippedLastBatch:
    def run(self, learning_rates, order=None):
        size = self.spec.batch_size
        if order is None or len(order) % size == 0:
            return super().run(learning_rates, order)
        whole = super().run(learning_rates[:-1], order[: -(len(order) % size)])
        figures = whole.loss, whole.penalty, whole.n_correct
        return StepMetrics(lambda: tuple(np.append(figure, figure[-1]) for figure in figures))


class Zeros:
    def loss_and_gradients(self):
        return 0.0, Parameters(self._layout, dtype=self.spec.network.dtype)


class MissingPenalty:
    """Reports no penalty, though the loss has it."""

    def run(self, learning_rates, order=None):
        metrics = super().run(learning_rates, order)
        return StepMetrics(lambda: (metrics.loss, np.zeros_like(metrics.loss), metrics.n_correct))


class OffByOneCount:
    def run(self, learning_rates, order=None):
        metrics = super().run(learning_rates, order)
        return StepMetrics(lambda: (metrics.loss, metrics.penalty, metrics.n_correct + 1))


class UpdatingGradients:
    def loss_and_gradients(self):
        result = super().loss_and_gradients()
        self.run([0.1], None if self.spec.batch_size is None else np.arange(self.spec.batch_size))
        return result


class WeightsIgnored:
    def loss_and_gradients(self):
        self._engine._sample_weight = None
        return super().loss_and_gradients()


class LowPrecision:
    """Gradients rounded to half precision."""

    def loss_and_gradients(self):
        loss, gradients = super().loss_and_gradients()
        gradients.flat[:] = gradients.flat.astype(np.float16)
        return loss, gradients


class ForgottenState:
    def write_state(self, state):
        super().write_state({name: np.zeros_like(array) for name, array in state.items()})


class Random:
    """Correct within the tolerance, and never the same bits."""

    def run(self, learning_rates, order=None):
        metrics = super().run(learning_rates, order)
        self._flat *= 1 + np.random.default_rng().choice([-1, 1]) * np.finfo(self._flat.dtype).eps
        return metrics


class AliasedParameters:
    def read_parameters(self):
        return Parameters(self._layout, self._flat)


class NeverClosed:
    def close(self):
        pass


class SwallowedNan:
    def run(self, learning_rates, order=None):
        metrics = super().run(learning_rates, order)
        return StepMetrics(lambda: (np.nan_to_num(metrics.loss), metrics.penalty, metrics.n_correct))


class NothingToSay:
    detail = ""


class SaysTooMuch:
    detail = "first one thing\nthen another"


class ChangesItsStory:
    @property
    def detail(self):
        return f"after {self._n_updates} updates"


@pytest.mark.parametrize(
    ("sabotage", "caught_by"),
    [
        (TransposedWeight, "gradients-"),
        (StaleLoss, "trajectory-"),
        (MissingBiasGradient, "gradients-"),
        (ScalarBiasGradient, "gradients-"),
        (SkippedLastBatch, "trajectory-last-batch-partial"),
        (Zeros, "gradients-"),
        (MissingPenalty, "trajectory-batches-adam-l2"),
        (OffByOneCount, "trajectory-sgd"),
        (UpdatingGradients, "gradients-"),
        (WeightsIgnored, "gradients-weighted"),
        (LowPrecision, "gradients-"),
        (ForgottenState, "state-"),
        (Random, "repeatable-"),
        (AliasedParameters, "state-"),
        (NeverClosed, "manners"),
        (SwallowedNan, "nan-"),
        (NothingToSay, "manners"),
        (SaysTooMuch, "manners"),
        (ChangesItsStory, "manners"),
    ],
)
def test_the_kit_fails_on_a_sabotaged_plan(sabotage, caught_by):
    with pytest.raises(AssertionError, match=f"(?m)^{caught_by}"):
        check_backend(Sabotaged(sabotage))


def test_the_kit_passes_on_the_plan_that_is_sabotaged_above():
    check_backend(Sabotaged(type("Nothing", (), {})))


def test_every_check_looks_at_the_backend():
    class Absent:
        name = "absent"

        def __getattr__(self, name):
            raise AssertionError(f"asked for {name}")

    for check in conformance_checks().values():
        with pytest.raises(AssertionError, match="asked for"):
            check(Absent())


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([1.0, np.nan], [1.0, 2.0]),
        ([1.0, np.inf], [1.0, 2.0]),
        ([1e-30], [0.0]),
        ([1.0, 2.001], [1.0, 2.0]),
    ],
)
def test_assert_close_fails(actual, expected):
    with pytest.raises(AssertionError):
        assert_close(actual, expected, dtype="float32", longest_reduction=100)


def test_assert_close_admits_rounding_and_no_more():
    allowed = tolerance("float32", 100)
    assert_close([1 + 0.9 * allowed, 0.0], [1.0, 0.0], dtype="float32", longest_reduction=100)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close([1 + 1.1 * allowed, 0.0], [1.0, 0.0], dtype="float32", longest_reduction=100)
    assert tolerance("float64", 1) == pytest.approx(tolerance("float32", 1) * 2.0**-29)


@pytest.mark.parametrize(
    ("n_samples", "options"),
    [(400, {"activation": "relu"}), (2500, {"output": "identity", "loss": "absolute_error"})],
    ids=["relu", "absolute-error"],
)
def test_problems_keep_away_from_kinks(n_samples, options):
    """With so many samples, the first draw would not."""
    problem = make_problem((3, 4, 2), n_samples, **options)
    (w1, w2), (b1, b2) = problem.parameters.weights, problem.parameters.biases
    z = problem.dataset.x @ w1 + b1
    distances = z if "activation" in options else np.tanh(z) @ w2 + b2 - problem.dataset.targets
    assert np.abs(distances).min() > 0.99 * KINK_MARGIN
