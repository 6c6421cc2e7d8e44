"""What a network computes and promises, against scikit-learn: predictions, figures, training, seeds, copies."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, special
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_gamma_deviance,
    mean_poisson_deviance,
    mean_squared_error,
    r2_score,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor

from fastnet import SGD, Adam, Network, SpecError

random = np.random.default_rng(0)
X = random.normal(size=(60, 4)).astype(np.float32)
LABELS = (X[:, 0] + 0.5 * random.normal(size=60) > 0).astype(int) + (X[:, 1] > 0.5)
VALUES = np.column_stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]])
INDICATORS = (X[:, :2] > 0).astype(int)


def fitted(layer_sizes, y, *, learning_rate=0.2, **options):
    net = Network(layer_sizes, **{"backend": "numpy", "seed": 0} | options)
    net.fit(X, y, n_steps=20, optimizer=SGD(learning_rate))
    return net


def test_classes_and_figures_are_scikit_learns(backend_name):
    net = fitted([4, 6, 3], LABELS, backend=backend_name)
    p = net.predict_proba(X)
    assert p.shape == (60, 3)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(X), p.argmax(axis=1))
    figures = net.evaluate(X, LABELS)
    assert figures.keys() == {"loss", "accuracy"}
    assert figures["loss"] == pytest.approx(log_loss(LABELS, p), rel=1e-5)
    assert figures["accuracy"] == accuracy_score(LABELS, net.predict(X))
    assert 1 / 3 < figures["accuracy"] < 1, "a net that has learned something, and not all, tells most"


def test_binary_words_and_figures_are_scikit_learns():
    words = np.where(LABELS > 0, "yes", "no")
    net = fitted([4, 6, 1], words, output="sigmoid")
    p = net.predict_proba(X)
    assert p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(net.predict(X), np.where(p[:, 1] > 0.5, "yes", "no"))
    assert net.classes.tolist() == ["no", "yes"]
    assert net.evaluate(X, words)["loss"] == pytest.approx(log_loss(words, p), rel=1e-5)
    assert net.evaluate(X, words)["accuracy"] == accuracy_score(words, net.predict(X))


def test_indicators_and_figures_are_scikit_learns():
    net = fitted([4, 6, 2], INDICATORS, output="sigmoid")
    p = net.predict_proba(X)
    np.testing.assert_array_equal(net.predict(X), p > 0.5)
    figures = net.evaluate(X, INDICATORS)
    expected = sum(log_loss(INDICATORS[:, label], p[:, label]) for label in range(2))
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["accuracy"] == accuracy_score(INDICATORS, net.predict(X)) < (net.predict(X) == INDICATORS).mean()


def test_values_and_figures_are_scikit_learns():
    net = fitted([4, 6, 2], VALUES, output="identity", activation="tanh")
    values = net.predict(X)
    figures = net.evaluate(X, VALUES)
    assert figures.keys() == {"loss", "r2"}
    assert figures["loss"] == pytest.approx(
        mean_squared_error(VALUES, values), rel=1e-5
    )  # half of it, times two outputs
    assert figures["r2"] == pytest.approx(r2_score(VALUES, values), rel=1e-5)


def test_counts_and_figures_are_scikit_learns():
    net = fitted([4, 6, 1], LABELS, output="exp")
    values = net.predict(X)
    assert values.shape == (60,)
    figures = net.evaluate(X, LABELS)
    assert figures["loss"] == pytest.approx(mean_poisson_deviance(LABELS, values) / 2, rel=1e-5)
    assert figures["r2"] == pytest.approx(r2_score(LABELS, values), rel=1e-5)


def test_amounts_and_figures_are_scikit_learns(backend_name):
    amounts = np.exp(VALUES[:, 0]).astype(np.float32)
    net = fitted([4, 6, 1], amounts, output="exp", loss="gamma", backend=backend_name)
    figures = net.evaluate(X, amounts)
    assert figures["loss"] == pytest.approx(mean_gamma_deviance(amounts, net.predict(X)) / 2, rel=1e-5)
    assert figures["r2"] == pytest.approx(r2_score(amounts, net.predict(X)), rel=1e-5)


def test_absolute_errors_and_figures_are_scikit_learns(backend_name):
    net = fitted([4, 6, 2], VALUES, output="identity", loss="absolute_error", backend=backend_name)
    figures = net.evaluate(X, VALUES)
    assert figures["loss"] == pytest.approx(2 * mean_absolute_error(VALUES, net.predict(X)), rel=1e-5)  # two outputs
    assert figures["r2"] == pytest.approx(r2_score(VALUES, net.predict(X)), rel=1e-5)


def test_weighted_figures_are_scikit_learns():
    weight = np.random.default_rng(1).random(60)
    net = fitted([4, 6, 3], LABELS)
    loss = net.evaluate(X, LABELS, weight)["loss"]
    assert loss == pytest.approx(log_loss(LABELS, net.predict_proba(X), sample_weight=weight), rel=1e-5)
    net = fitted([4, 6, 2], VALUES, output="identity", reduction="sum", l2=0.5, learning_rate=0.002)
    figures = net.evaluate(X, VALUES, weight)
    expected = mean_squared_error(VALUES, net.predict(X), sample_weight=weight) * weight.sum()
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["r2"] == pytest.approx(r2_score(VALUES, net.predict(X), sample_weight=weight), rel=1e-5)


def test_figures_that_do_not_exist_are_nan():
    net = Network([4, 1], output="exp", init=[np.full((4, 1), 1e3)], backend="numpy")
    assert np.isnan(net.evaluate(X[:1], [1])["r2"])
    overflowed = net.evaluate(np.abs(X), LABELS)
    assert overflowed["loss"] == np.inf
    assert np.isnan(overflowed["r2"])


def test_probabilities_are_for_outputs_that_are_some():
    with pytest.raises(SpecError, match="output 'identity' gives values, not probabilities: use predict"):
        Network([4, 1], output="identity").predict_proba(X)


def test_a_network_that_has_seen_no_targets_predicts_with_numbered_classes():
    net = Network([4, 3], seed=0, backend="numpy")
    assert net.classes is None
    np.testing.assert_array_equal(net.predict(X), (X @ net.weights[0]).argmax(axis=1))
    binary = Network([4, 1], output="sigmoid", seed=0, backend="numpy")
    np.testing.assert_array_equal(binary.predict(X), (X @ binary.weights[0])[:, 0] > 0)


@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "cross_entropy"),
                                              ("identity", "squared_error"), ("exp", "poisson")])  # fmt: skip
def test_the_loss_belongs_to_the_output_unless_it_is_given(output, loss):
    assert Network([4, 2], output=output).spec.loss == loss
    assert Network([4, 2], output=output, loss="squared_error").spec.loss == "squared_error"


def quietly_fit(estimator, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X.astype(np.float64), y)


@pytest.mark.parametrize("batch_size", [60, 25])
@pytest.mark.parametrize(
    ("solver", "optimizer"),
    [
        ({"solver": "sgd", "momentum": 0.0}, SGD(0.05)),
        ({"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": False}, SGD(0.05, momentum=0.9)),
        ({"solver": "sgd", "momentum": 0.9}, SGD(0.05, momentum=0.9, nesterov=True)),
        ({"solver": "adam"}, Adam(0.05)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam"],
)
@pytest.mark.parametrize("kind", ["classes", "binary", "values"])
def test_training_is_that_of_scikit_learns_mlp(kind, solver, optimizer, batch_size):
    """From the same start: theirs draws as ``glorot_uniform`` does, a layer's weight before its bias."""
    alpha = 0.3 if batch_size == 60 else 0.0  # theirs divides the penalty by the size of each batch
    options = {"hidden_layer_sizes": (5, 3), "activation": "tanh", "alpha": alpha, "random_state": 0, "shuffle": False}
    length = {"max_iter": 6, "batch_size": batch_size, "learning_rate_init": 0.05, "tol": 0, "n_iter_no_change": 99}
    y, output = {
        "classes": (LABELS, "softmax"),
        "binary": (LABELS > 0, "sigmoid"),
        "values": (VALUES[:, 0], "identity"),
    }[kind]
    theirs = quietly_fit((MLPRegressor if kind == "values" else MLPClassifier)(**options, **length, **solver), y)
    net = Network(
        [4, 5, 3, theirs.n_outputs_], activation="tanh", output=output, l2=alpha / batch_size, dtype="float64",
        bias_init="glorot_uniform", backend="numpy", seed=np.random.RandomState(0),
    )  # fmt: skip
    history = net.fit(X, y, optimizer=optimizer, n_epochs=6, batch_size=batch_size, shuffle=False)
    for ours, expected in zip([*net.weights, *net.biases], theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(history.loss, theirs.loss_curve_, rtol=1e-8)
    np.testing.assert_allclose(net.predict(X), theirs.predict(X), rtol=1e-8)


def test_iris_is_learned(backend_name):
    x, y = load_iris(return_X_y=True)
    net = Network([4, 16, 3], backend=backend_name, seed=0)
    net.fit(x - x.mean(axis=0), y, optimizer=Adam(0.02), n_epochs=40, batch_size=30)
    assert net.evaluate(x - x.mean(axis=0), y)["accuracy"] > 0.95


@pytest.mark.parametrize("form", ["csr", "unsorted-csr", "duplicates-csr", "uint8", "DataFrame", "memmap"])
def test_every_form_of_the_same_data_trains_the_same_network(form, backend_name, tmp_path):
    pixels = np.random.default_rng(1).integers(-300, 256, (40, 4))
    dense = np.maximum(pixels, 0).astype(np.float32)
    y = LABELS[:40]
    x = {
        "csr": sparse.csr_array,
        "unsorted-csr": lambda x: sparse.csr_array(x[:, ::-1])[:, ::-1],
        "duplicates-csr": halved_twice,
        "uint8": lambda x: x.astype(np.uint8),
        "DataFrame": lambda x: pd.DataFrame(x).astype({0: "int64"}),
        "memmap": lambda x: saved_and_mapped(x, tmp_path),
    }[form](dense)
    nets = [Network([4, 5, 3], input_scale=1 / 255, backend=backend_name, seed=0, dtype="float64") for _ in range(2)]
    for net, samples in zip(nets, (dense, x), strict=True):
        net.fit(samples, y, n_steps=8, optimizer=SGD(0.5))
        net.fit(samples, y, n_epochs=2, batch_size=15, optimizer=SGD(0.5))
    np.testing.assert_allclose(nets[1].predict_proba(x), nets[0].predict_proba(dense), rtol=1e-10)
    for ours, expected in zip(nets[1].weights, nets[0].weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def halved_twice(x):
    """CSR that holds each element as two halves in the same place."""
    half = sparse.coo_array(x / 2)
    row, column = (np.repeat(index, 2) for index in half.coords)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(x)))])
    return sparse.csr_array((np.repeat(half.data, 2), column, starts), shape=x.shape)


def saved_and_mapped(x, directory):
    np.save(directory / "x.npy", x)
    return np.load(directory / "x.npy", mmap_mode="r")


def test_the_seed_decides_everything():
    def weights(seed):
        net = Network([4, 5, 3], backend="numpy", seed=seed)
        net.fit(X, LABELS, n_epochs=2, batch_size=16, validation_fraction=0.2)
        return np.concatenate([weight.ravel() for weight in net.weights])

    np.testing.assert_array_equal(weights(1), weights(1))
    np.testing.assert_array_equal(weights(1), weights(np.int64(1)))
    assert not np.array_equal(weights(1), weights(2))
    assert not np.array_equal(weights(None), weights(None))


def test_a_generator_is_drawn_from_where_it_stands():
    generator = np.random.RandomState(4)
    drawn = generator.uniform(size=(5, 2))
    net = Network([2, 3, 1], output="sigmoid", bias=False, init="normal(0, 1)", dtype="float64", seed=generator)
    again = np.random.RandomState(4)
    np.testing.assert_array_equal(again.uniform(size=(5, 2)), drawn)
    for weight in net.weights:
        np.testing.assert_array_equal(weight, again.normal(size=weight.shape))
    assert net.biases == []


def test_weights_are_views_and_written_weights_are_used():
    net = fitted([4, 3], LABELS)
    net.weights[0][:], net.biases[0][:] = 0, [0, 1, 0]
    np.testing.assert_allclose(net.predict_proba(X), np.tile(special.softmax([0, 1, 0]), (60, 1)), rtol=1e-6)
    net.fit(X, LABELS, n_steps=1, optimizer=SGD(0.1))
    assert net.weights[0].any(), "the views show what training made of them"


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copies_are_whole_and_independent(duplicate):
    words = np.array(["a", "b", "c"])[LABELS]
    net = fitted([4, 6, 3], words)
    before = net.predict_proba(X)
    again = duplicate(net)
    np.testing.assert_array_equal(again.predict_proba(X), before)
    assert again.predict(X).tolist() == net.predict(X).tolist()
    assert again.history == net.history
    again.fit(X, words, n_steps=5)
    np.testing.assert_array_equal(net.predict_proba(X), before)
    rebuilt = Network([4, 6, 3], init=again.weights, bias_init=again.biases, backend="numpy")
    np.testing.assert_array_equal(rebuilt.predict_proba(X), again.predict_proba(X))


def test_repr_tells_what_it_is():
    assert repr(Network([4, 6, 3])) == "Network(4-6-3, softmax, cross_entropy, float32)"


def test_predict_and_evaluate_judge_alike_where_a_probability_is_hardly_above_one_half():
    net = Network([1, 1], output="sigmoid", init=[[[1e-9]]], backend="numpy")
    predicted = net.predict([[1.0]])
    assert net.evaluate([[1.0]], predicted)["accuracy"] == 1.0


def test_more_classes_than_a_validation_part_can_hold_are_split_all_the_same():
    x, labels = np.random.default_rng(0).normal(size=(60, 3)), np.repeat(np.arange(30), 2)
    net = Network([3, 30], backend="numpy", seed=0)
    assert len(net.fit(x, labels, n_steps=2, validation_fraction=0.2).validation_loss) == 2
