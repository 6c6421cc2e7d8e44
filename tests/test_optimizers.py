from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastnet import SGD, Adam, AdamW, CosineDecay, ExponentialDecay, InverseScaling, SpecError, StepDecay
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.optimizers import learning_rates, optimizer_from_dict, optimizer_to_dict
from fastnet.reference import Operations, initial_state
from fastnet.spec import NetworkSpec, TrainingSpec

# 3 * 2 weights, then 2 biases.
NETWORK = NetworkSpec((3, 2), (), "identity", "squared_error", dtype="float64")
N_STEPS, N_WEIGHTS, N_PARAMETERS = 25, 6, 8


@pytest.fixture
def gradients():
    return np.random.default_rng(0).normal(size=(N_STEPS, N_PARAMETERS))


def trajectory(optimizer, gradients, start=None):
    """Parameters after each update, for given gradients."""
    operations, spec = Operations(NumpyNamespace()), TrainingSpec(NETWORK, optimizer)
    flat = np.ones(N_PARAMETERS) if start is None else start.copy()
    state = initial_state(optimizer, flat, xp=np)
    rates = learning_rates(optimizer.learning_rate, np.arange(len(gradients)), len(gradients))
    visited = []
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        operations.update(spec, flat, gradient, state, float(rate), step + 1)
        visited.append(flat.copy())
    return np.array(visited)


def scikit_learns_trajectory(make_optimizer, gradients):
    flat = np.ones(N_PARAMETERS)
    optimizer, visited = make_optimizer([flat]), []
    for gradient in gradients:
        optimizer.update_params([flat], [gradient])
        visited.append(flat.copy())
    return np.array(visited)


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        (SGD(0.1), lambda p: SGDOptimizer(p, 0.1, momentum=0.0, nesterov=False)),
        (SGD(0.1, momentum=0.9), lambda p: SGDOptimizer(p, 0.1, momentum=0.9, nesterov=False)),
        (SGD(0.1, momentum=0.8, nesterov=True), lambda p: SGDOptimizer(p, 0.1, momentum=0.8, nesterov=True)),
        (Adam(0.01), lambda p: AdamOptimizer(p, 0.01)),
        (
            Adam(0.01, beta_1=0.5, beta_2=0.9, epsilon=0.1),
            lambda p: AdamOptimizer(p, 0.01, beta_1=0.5, beta_2=0.9, epsilon=0.1),
        ),
        (AdamW(0.01, weight_decay=0.0), lambda p: AdamOptimizer(p, 0.01)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam-other-constants", "adamw-without-decay"],
)
def test_trajectories_are_scikit_learns(optimizer, theirs, gradients):
    ours = trajectory(optimizer, gradients)
    np.testing.assert_allclose(ours, scikit_learns_trajectory(theirs, gradients), rtol=1e-12)


def test_adamw_takes_decay_off_weights_alone(gradients):
    """Loshchilov and Hutter's algorithm 2, written out number by number."""
    rate, decay = CosineDecay(0.05), 0.3
    visited = trajectory(AdamW(rate, weight_decay=decay), gradients)
    for index in range(N_PARAMETERS):
        value, m, v = 1.0, 0.0, 0.0
        for t, gradient in enumerate(gradients[:, index], start=1):
            alpha = 0.05 * (1 + np.cos(np.pi * (t - 1) / N_STEPS)) / 2
            if index < N_WEIGHTS:
                value -= alpha * decay * value
            m = 0.9 * m + 0.1 * gradient
            v = 0.999 * v + 0.001 * gradient**2
            # epsilon beside the uncorrected moment: scikit-learn's form of Adam
            value -= alpha * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
            np.testing.assert_allclose(visited[t - 1, index], value, rtol=1e-10)


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        (StepDecay(0.8, factor=0.5, every=3), lambda t: 0.8 * 0.5 ** (t // 3)),
        (ExponentialDecay(0.8, factor=0.9), lambda t: 0.8 * 0.9**t),
        (InverseScaling(0.8, power=0.5), lambda t: 0.8 / (t + 1) ** 0.5),
        (CosineDecay(0.8, final=0.2), lambda t: 0.2 + 0.6 * (1 + np.cos(np.pi * t / 10)) / 2),
        (0.8, lambda t: 0.8),
        (1, lambda t: 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_schedules_have_their_closed_forms(schedule, closed_form):
    rates = learning_rates(schedule, np.arange(10), 10)
    assert rates.dtype == np.float64
    np.testing.assert_allclose(rates, [closed_form(step) for step in range(10)], rtol=1e-14)
    np.testing.assert_array_equal(learning_rates(schedule, np.arange(4, 7), 10), rates[4:7])


positive = st.floats(1e-6, 1e6)
fractions = st.floats(0, 0.999)
schedules = st.one_of(
    positive,
    st.builds(StepDecay, positive, positive, st.integers(1, 1000)),
    st.builds(ExponentialDecay, positive, positive),
    st.builds(CosineDecay, positive, st.floats(0, 1e6)),
    st.builds(InverseScaling, positive, positive),
)
optimizers = st.one_of(
    st.builds(SGD, schedules, fractions),
    st.builds(SGD, schedules, st.floats(0.01, 0.99), st.just(True)),
    st.builds(Adam, schedules, fractions, fractions, positive),
    st.builds(AdamW, schedules, fractions, fractions, positive, st.floats(0, 10)),
)


@given(optimizers)
def test_optimizers_survive_being_written_down(optimizer):
    described = json.loads(json.dumps(optimizer_to_dict(optimizer)))
    again = optimizer_from_dict(described)
    assert type(again) is type(optimizer)
    assert again == optimizer
    assert hash(again) == hash(optimizer)


def test_a_description_says_only_what_is_not_the_default():
    assert optimizer_from_dict({}) == SGD()
    assert optimizer_from_dict({"name": "adam", "beta_1": 0.5}) == Adam(beta_1=0.5)
    cosine = {"name": "adamw", "learning_rate": {"schedule": "cosine", "initial": 0.1}}
    assert optimizer_from_dict(cosine) == AdamW(CosineDecay(0.1))
    assert cosine["learning_rate"] == {"schedule": "cosine", "initial": 0.1}, "the description was changed"


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"name": "adm"}, "unknown optimizer 'adm': did you mean 'adam'"),
        ({"name": ["adam"]}, "unknown optimizer"),
        ({"name": "sgd", "momentun": 0.9}, "unknown option of SGD 'momentun': did you mean 'momentum'"),
        ({"learning_rate": {"schedule": "cosin", "initial": 1.0}}, "unknown schedule 'cosin': did you mean 'cosine'"),
        ({"learning_rate": {"initial": 1.0}}, "unknown schedule None"),
        ({"learning_rate": {"schedule": "step", "initial": 1.0, "evry": 3}}, "did you mean 'every'"),
    ],
    ids=str,
)
def test_unknown_names_in_a_description_are_told(described, message):
    with pytest.raises(SpecError, match=message):
        optimizer_from_dict(described)


@pytest.mark.parametrize("schedule", ["step", "exponential", "cosine", "inverse_scaling"])
def test_a_schedule_without_its_first_rate_is_told_what_is_missing(schedule):
    name = type(optimizer_from_dict({"learning_rate": {"schedule": schedule, "initial": 1}}).learning_rate).__name__
    with pytest.raises(SpecError, match=f"{name} needs initial: for example initial = 0.1"):
        optimizer_from_dict({"learning_rate": {"schedule": schedule}})


@pytest.mark.parametrize("bad", [0.0, -0.1, float("nan"), float("inf"), "fast", None, True, [0.1]], ids=repr)
@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW])
def test_learning_rates_that_are_none_are_refused(optimizer, bad):
    with pytest.raises(SpecError, match="learning_rate must be"):
        optimizer(learning_rate=bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda bad: SGD(momentum=bad), r"momentum must be in \[0, 1\]"),
        (lambda bad: Adam(beta_1=bad), r"beta_1 must be in \[0, 1\)"),
        (lambda bad: Adam(beta_2=bad), r"beta_2 must be in \[0, 1\)"),
        (lambda bad: Adam(epsilon=bad), "epsilon must be positive"),
        (lambda bad: AdamW(beta_1=bad), r"beta_1 must be in \[0, 1\)"),
        (lambda bad: AdamW(weight_decay=bad), "weight_decay must be finite and not negative"),
        (lambda bad: CosineDecay(0.1, final=bad), "final must be finite and not negative"),
        (lambda bad: StepDecay(0.1, factor=bad), "factor must be positive"),
        (lambda bad: StepDecay(0.1, every=bad), "every must be a whole number of at least 1"),
        (lambda bad: InverseScaling(0.1, power=bad), "power must be positive"),
        (ExponentialDecay, "initial must be positive"),
    ],
)
@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "much", None, True], ids=repr)
def test_options_out_of_range_are_refused(make, message, bad):
    with pytest.raises(SpecError, match=message):
        make(bad)


@pytest.mark.parametrize("every", [0, 0.5, 1000.0], ids=repr)
def test_steps_between_two_rates_are_counted(every):
    with pytest.raises(SpecError, match=f"StepDecay: every must be a whole number of at least 1, got {every}"):
        StepDecay(0.1, every=every)


def test_whole_numbers_beyond_every_float_are_refused():
    for make in (SGD, Adam, StepDecay, lambda huge: Adam(epsilon=huge), lambda huge: AdamW(weight_decay=huge)):
        with pytest.raises(SpecError, match="finite"):
            make(10**400)


@pytest.mark.parametrize("nesterov", ["no", "false", 0, None], ids=repr)
def test_nesterov_is_a_switch(nesterov):
    """A word that means no must not switch it on."""
    with pytest.raises(SpecError, match=f"SGD: nesterov must be True or False, got {nesterov!r}"):
        SGD(momentum=0.9, nesterov=nesterov)


def test_nesterov_needs_momentum():
    with pytest.raises(SpecError, match="needs momentum > 0"):
        SGD(nesterov=True)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.float16], ids=lambda number: number.__name__)
def test_numbers_of_numpy_are_as_good_as_pythons(number):
    half, eight, yes = number(0.5), np.int64(8), np.True_
    for optimizer, expected in (
        (SGD(half, momentum=half, nesterov=yes), SGD(0.5, momentum=0.5, nesterov=True)),
        (SGD(eight), SGD(8)),
        (SGD(StepDecay(half, factor=half, every=eight)), SGD(StepDecay(0.5, factor=0.5, every=8))),
        (SGD(CosineDecay(half, final=half)), SGD(CosineDecay(0.5, final=0.5))),
        (Adam(half, beta_1=half, beta_2=half, epsilon=half), Adam(0.5, beta_1=0.5, beta_2=0.5, epsilon=0.5)),
        (AdamW(weight_decay=half), AdamW(weight_decay=0.5)),
    ):
        assert optimizer == expected
        assert json.dumps(optimizer_to_dict(optimizer)) == json.dumps(optimizer_to_dict(expected))


def test_a_schedule_of_ones_own_can_be_used_but_not_written_down():
    @dataclasses.dataclass(frozen=True)
    class Triangle:
        def rates(self, steps, n_steps):
            return 0.1 * (1 - steps / n_steps)

    optimizer = SGD(Triangle())
    np.testing.assert_allclose(learning_rates(optimizer.learning_rate, np.arange(2), 4), [0.1, 0.075])
    with pytest.raises(SpecError, match="cannot be written down"):
        optimizer_to_dict(optimizer)
