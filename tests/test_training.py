"""The training loop: what it minimizes, what it records, in which order it sees samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnet import SGD, Adam, CosineDecay, Network, StepDecay, training
from fastnet.backends.array_plan import ArrayPlan
from fastnet.data import split_validation
from fastnet.run_settings import RunSettings
from fastnet.testing import assert_close, make_problem

random = np.random.default_rng(0)
X = random.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
STANDS_STILL = SGD(1e-30)


def classifier(**options):
    return Network([4, 6, 3], **{"backend": "numpy", "seed": 0} | options)


def flat(net):
    return np.concatenate([array.ravel() for array in [*net.weights, *net.biases]])


# --- the objective, as every backend computes it


def weighted_gradients(backend, problem, rows, weight):
    dataset = problem.dataset
    changed = type(dataset)(dataset.x[rows], dataset.targets[rows], np.asarray(weight, dataset.x.dtype))
    plan = backend.plan_training(problem.spec, problem.parameters, changed)
    loss, gradients = plan.loss_and_gradients()
    plan.close()
    return loss, gradients.flat


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=st.lists(st.integers(0, 4), min_size=9, max_size=9).filter(any))
def test_a_weight_is_so_many_copies_and_zero_is_absence(backend, reduction, weights):
    problem = make_problem((5, 4, 3), 9, reduction=reduction)
    loss, gradient = weighted_gradients(backend, problem, np.arange(9), weights)
    copies = np.repeat(np.arange(9), weights)
    expected_loss, expected = weighted_gradients(backend, problem, copies, np.ones(len(copies)))
    assert_close(loss, expected_loss, dtype="float32", longest_reduction=len(copies))
    assert_close(gradient, expected, dtype="float32", longest_reduction=len(copies))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(19)))
def test_the_full_gradient_does_not_depend_on_the_order_of_rows(backend, order):
    problem = make_problem(weighted=True)
    dataset = problem.dataset
    loss, gradient = weighted_gradients(backend, problem, np.arange(19), dataset.sample_weight)
    again, expected = weighted_gradients(backend, problem, np.array(order), dataset.sample_weight[order])
    assert_close(loss, again, dtype="float32", longest_reduction=19)
    assert_close(gradient, expected, dtype="float32", longest_reduction=19)


def test_the_sum_at_a_rate_is_the_mean_at_that_rate_times_the_samples(backend_name):
    mean, total = (classifier(reduction=reduction, backend=backend_name) for reduction in ("mean", "sum"))
    of_mean = mean.fit(X, LABELS, n_steps=10, optimizer=SGD(0.5))
    of_total = total.fit(X, LABELS, n_steps=10, optimizer=SGD(0.5 / 50))
    np.testing.assert_allclose(of_total.loss, 50 * np.array(of_mean.loss), rtol=1e-5)
    np.testing.assert_allclose(flat(total), flat(mean), rtol=1e-4, atol=1e-6)


# --- what is recorded


def test_a_full_batch_records_each_step_before_its_update(backend_name):
    net, l2 = classifier(l2=0.1, backend=backend_name), 0.1
    figures, penalties = [], []
    for _ in range(4):
        figures.append(net.evaluate(X, LABELS))
        penalties.append(l2 / 2 * sum((weight.astype(float) ** 2).sum() for weight in net.weights))
        history = net.fit(X, LABELS, n_steps=1, optimizer=SGD(0.3))
        assert history.loss == pytest.approx([figures[-1]["loss"] + penalties[-1]], rel=1e-5)
        assert history.accuracy == pytest.approx([figures[-1]["accuracy"]])
    whole = classifier(l2=0.1, backend=backend_name).fit(X, LABELS, n_steps=4, optimizer=SGD(0.3))
    np.testing.assert_allclose(whole.loss, [f["loss"] + p for f, p in zip(figures, penalties, strict=True)], rtol=1e-5)
    assert whole.accuracy == pytest.approx([f["accuracy"] for f in figures])
    assert (whole.n_steps, whole.steps_per_entry, whole.stop_reason) == (4, 1, "completed")


@pytest.mark.parametrize("batch_size", [1, 7, 25, 49, 50, 1000])
@pytest.mark.parametrize(
    "options",
    [{}, {"weighted": True}, {"reduction": "sum"}, {"weighted": True, "reduction": "sum"}],
    ids=["mean", "weighted", "sum", "weighted-sum"],
)
def test_an_epochs_figures_are_those_of_its_samples(batch_size, options):
    """At a rate too small to move the weights; a mean of batch means would be wrong for the shorter last batch."""
    weight = np.random.default_rng(1).integers(0, 3, 50).astype(float) if "weighted" in options else None
    net = classifier(reduction=options.get("reduction", "mean"))
    history = net.fit(X, LABELS, n_epochs=3, batch_size=batch_size, sample_weight=weight, optimizer=STANDS_STILL)
    figures = net.evaluate(X, LABELS, weight)
    assert history.loss == pytest.approx([figures["loss"]] * 3, rel=1e-5)
    assert history.accuracy == pytest.approx([figures["accuracy"]] * 3)
    steps_per_epoch = -(-50 // batch_size)
    assert (history.steps_per_entry, history.n_steps) == (steps_per_epoch, 3 * steps_per_epoch)


def test_a_fit_that_ends_within_an_epoch_records_the_part_it_saw():
    net = classifier()
    history = net.fit(X, LABELS, n_steps=6, batch_size=15, shuffle=False, optimizer=STANDS_STILL)  # four in an epoch
    figures = [net.evaluate(X, LABELS), net.evaluate(X[:30], LABELS[:30])]
    assert history.loss == pytest.approx([each["loss"] for each in figures], rel=1e-5)
    assert history.accuracy == pytest.approx([each["accuracy"] for each in figures])


def test_regression_records_no_accuracy():
    net = Network([4, 1], output="identity", backend="numpy", seed=0)
    history = net.fit(X, X[:, 0], n_steps=3, X_val=X, y_val=X[:, 0])
    assert history.accuracy == history.validation_accuracy == []
    assert len(history.loss) == 3


def test_learning_rates_follow_their_schedule_step_by_step():
    net = classifier()
    history = net.fit(X, LABELS, n_steps=10, optimizer=SGD(StepDecay(0.8, factor=0.5, every=4)))
    assert history.learning_rate == [0.8] * 4 + [0.4] * 4 + [0.2] * 2
    history = net.fit(X, LABELS, n_epochs=3, batch_size=20, optimizer=SGD(CosineDecay(1.0)))  # 3 steps each, 9 in all
    np.testing.assert_allclose(history.learning_rate, [(1 + np.cos(np.pi * t / 9)) / 2 for t in (2, 5, 8)])


def test_a_schedule_is_what_training_in_parts_with_its_rates_would_be(backend_name):
    whole, parts = classifier(backend=backend_name), classifier(backend=backend_name)
    whole.fit(X, LABELS, n_steps=9, optimizer=SGD(StepDecay(0.8, factor=0.5, every=3)))
    for rate in (0.8, 0.4, 0.2):
        parts.fit(X, LABELS, n_steps=3, optimizer=SGD(rate))
    np.testing.assert_array_equal(flat(whole), flat(parts))


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"weighted": True}, {"reduction": "sum"}, {"output": "identity"}],
    ids=["mean", "weighted", "sum", "values"],
)
def test_results_do_not_depend_on_how_steps_are_cut_into_calls(batch_size, options, monkeypatch):
    """Down to the last bit; in float64 and with 39 steps an epoch, as sums of few short numbers are exact."""
    x = np.random.default_rng(1).normal(size=(310, 4))
    weight = np.random.default_rng(2).random(310) if options.get("weighted") else None
    options = {name: value for name, value in options.items() if name != "weighted"}
    y = x[:, :3] if "output" in options else (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    results = []
    for seconds in (0.0, 1e-4, 100.0):
        monkeypatch.setattr(training, "SECONDS_PER_CALL", seconds)
        net = classifier(dtype="float64", **options)
        history = net.fit(x, y, n_epochs=20, batch_size=batch_size, sample_weight=weight, optimizer=Adam(0.01))
        results.append((flat(net), history.loss, history.accuracy, history.learning_rate))
    for result in results[1:]:
        np.testing.assert_array_equal(result[0], results[0][0])
        assert result[1:] == results[0][1:]


# --- validation


def test_validation_is_the_evaluation_at_its_steps():
    net, seen = classifier(), []
    history = net.fit(
        X[:30], LABELS[:30], n_epochs=7, batch_size=10, X_val=X[30:], y_val=LABELS[30:], validate_every=3,
        callbacks=[lambda run: seen.append(run.parameters.flat.copy())], optimizer=SGD(0.5),
    )  # fmt: skip
    assert history.validation_steps == [9, 18, 21]
    for parameters, loss, accuracy in zip(seen, history.validation_loss, history.validation_accuracy, strict=True):
        net.weights[0].base[:] = parameters
        assert net.evaluate(X[30:], LABELS[30:]) == {"loss": loss, "accuracy": accuracy}


def test_a_full_batch_is_validated_a_hundred_times_unless_told_otherwise():
    history = classifier().fit(X, LABELS, n_steps=450, validation_fraction=0.2)
    assert history.validation_steps == [*range(4, 450, 4), 450]
    history = classifier().fit(X, LABELS, n_steps=5, validation_fraction=0.2)
    assert history.validation_steps == [1, 2, 3, 4, 5]


def test_a_fraction_is_split_off_as_if_it_had_been_given():
    weight = np.random.default_rng(1).random(50)
    ours, theirs = classifier(), classifier()
    x, y, w, x_val, y_val = split_validation(X, LABELS, weight, 0.3, 0, stratify=True)
    split = ours.fit(X, LABELS, sample_weight=weight, n_epochs=3, batch_size=8, validation_fraction=0.3)
    given_ = theirs.fit(x, y, sample_weight=w, n_epochs=3, batch_size=8, X_val=x_val, y_val=y_val)
    np.testing.assert_array_equal(flat(ours), flat(theirs))
    assert split.validation_loss == given_.validation_loss
    assert len(x_val) == 15


def test_a_label_that_only_the_validation_part_holds_is_known():
    words = np.array(["common"] * 25 + ["other"] * 24 + ["single"])
    fractions = classifier().fit(X, words, n_steps=2, validation_fraction=0.9)
    assert len(fractions.validation_loss) == 2


# --- orders


@pytest.fixture
def orders(monkeypatch):
    """Sample indices of each epoch, as a plan sees them."""
    seen = []
    run = ArrayPlan.run
    monkeypatch.setattr(ArrayPlan, "run", lambda plan, rates, order=None: seen.append(order) or run(plan, rates, order))
    return lambda: [tuple(map(int, epoch)) for epoch in np.concatenate(seen).reshape(-1, 50)]


def test_the_order_of_an_epoch_is_drawn_while_a_device_may_be_at_work_on_the_one_before(monkeypatch):
    """After the steps are under way, and before their results are waited for; none is drawn that no step needs."""
    log = []
    run, read, draw = ArrayPlan.run, ArrayPlan.read_parameters, RunSettings.epoch_order
    monkeypatch.setattr(ArrayPlan, "run", lambda plan, *args: log.append("run") or run(plan, *args))
    monkeypatch.setattr(ArrayPlan, "read_parameters", lambda plan: log.append("read") or read(plan))
    monkeypatch.setattr(
        RunSettings, "epoch_order", lambda settings, epoch, n: log.append(f"draw {epoch}") or draw(settings, epoch, n)
    )
    monkeypatch.setattr(training, "SECONDS_PER_CALL", 1e9)
    classifier().fit(X, LABELS, optimizer=SGD(0.1), batch_size=50, n_epochs=3)
    assert log == ["read", "draw 0", "run", "draw 1", "read", "run", "draw 2", "read", "run", "read"]


def test_each_epoch_of_each_fit_sees_every_sample_once_in_an_order_of_its_own(orders):
    net = classifier()
    net.fit(X, LABELS, n_epochs=5, batch_size=12)
    net.fit(X, LABELS, n_epochs=5, batch_size=12)
    seen = orders()
    assert len(seen) == len(set(seen)) == 10
    assert {tuple(sorted(epoch)) for epoch in seen} == {tuple(range(50))}


def test_orders_come_again_with_the_seed_and_only_then(orders):
    for seed in (3, 3, 4):
        classifier(seed=seed).fit(X, LABELS, n_epochs=2, batch_size=12)
    seen = orders()
    assert seen[:2] == seen[2:4]
    assert not set(seen[:2]) & set(seen[4:])


def test_without_shuffling_samples_come_as_they_are(orders):
    classifier().fit(X, LABELS, n_epochs=2, batch_size=12, shuffle=False)
    assert orders() == [tuple(range(50))] * 2


@given(st.integers(0, 2**70), st.integers(0, 100), st.integers(1, 40))
def test_an_epochs_order_depends_on_the_seed_and_its_number_alone(seed, epoch, n_samples):
    def order(first_epoch, epoch):
        return RunSettings(1, 1, shuffle=True, seed=seed, first_epoch=first_epoch).epoch_order(epoch, n_samples)

    np.testing.assert_array_equal(order(0, epoch), order(epoch, 0))
    np.testing.assert_array_equal(np.sort(order(0, epoch)), np.arange(n_samples))
