"""Every way to get it wrong that we could think of: who made the mistake is told what, where, and what to do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from fastnet import SGD, Checkpoint, DataError, FastnetError, Network, SpecError

N_SAMPLES, N_FEATURES, N_CLASSES = 12, 4, 3
X = np.random.default_rng(0).normal(size=(N_SAMPLES, N_FEATURES)).astype(np.float32)
LABELS = np.arange(N_SAMPLES) % N_CLASSES
VALUES = np.linspace(-1, 1, N_SAMPLES)
HUGE = X.astype(np.float64) * 1e300


def classifier(**options):
    return Network([N_FEATURES, 5, N_CLASSES], backend="numpy", seed=0, **options)


def regressor(**options):
    return Network([N_FEATURES, 5, 1], output="identity", backend="numpy", seed=0, **options)


def labeler(n_outputs=1):
    return Network([N_FEATURES, n_outputs], output="sigmoid", backend="numpy", seed=0)


def counter(**options):
    return Network([N_FEATURES, 1], output="exp", backend="numpy", seed=0, **options)


def meter():
    return counter(loss="gamma")


def with_one(array, value, where=(5, 2)):
    changed = np.array(array, np.float64)
    changed[where[: changed.ndim]] = value
    return changed


def wrong_csr():
    """A matrix whose last column index lies beyond its columns, as nobody but a broken file makes it."""
    matrix = sparse.csr_array(X)
    matrix.indices[-1] = 1000
    return matrix


BAD_X = {
    "column-beyond-the-last-in-csr": (wrong_csr(), "indices|column index"),
    "empty": (np.empty((0, N_FEATURES)), r"0 sample\(s\)"),
    "empty-list": ([], "Expected 2D array, got 1D array"),
    "no-features": (np.empty((N_SAMPLES, 0)), r"0 feature\(s\)"),
    "nan": (with_one(X, np.nan), "X holds nan at sample 5, feature 2: remove or replace it$"),
    "nan-in-float64": (with_one(X, np.nan).tolist(), "X holds nan at sample 5, feature 2: remove or replace it$"),
    "nan-in-another-order": (np.asfortranarray(with_one(X, np.nan)), "X holds nan at sample 5, feature 2"),
    "inf": (with_one(X, np.inf), "X holds inf at sample 5, feature 2: remove or replace it"),
    "minus-inf": (with_one(X, -np.inf), "X holds -inf at sample 5, feature 2"),
    "too-large-for-float32": (with_one(X, 1e300), "inf at sample 5.* too large for float32, use dtype='float64'"),
    "far-too-large": (HUGE, "X holds inf at sample 0, feature 0.* too large for float32"),
    "far-too-large-in-lists": (HUGE.tolist(), "X holds inf at sample 0, feature 0.* too large for float32"),
    "far-too-large-in-csc": (sparse.csc_array(HUGE), "X holds inf at sample 0, feature 0.* too large for float32"),
    "larger-than-any-float": ([[10**400] * N_FEATURES] * N_SAMPLES, "X: int too large to convert to float"),
    "nan-in-csr": (sparse.csr_array(with_one(np.zeros_like(X), np.nan)), "X holds nan at sample 5, feature 2"),
    "nan-in-full-csr": (sparse.csr_array(with_one(X, np.nan)), "X holds nan at sample 5, feature 2: remove"),
    "nan-in-csc": (sparse.csc_array(with_one(X, np.nan)), "X holds nan at sample 5, feature 2"),
    "missing-in-DataFrame": (pd.DataFrame(with_one(X, np.nan)).astype(object).replace(np.nan, None), "nan at sample 5"),
    "missing-whole-number": (pd.DataFrame(1, range(N_SAMPLES), list("abcd"), "Int64").replace(1, pd.NA), "X holds nan"),
    "one-dimension": (X[0], "Expected 2D array, got 1D array.*reshape"),
    "three-dimensions": (X[None], "Found array with dim 3"),
    "number": (3.0, "Expected 2D array, got scalar"),
    "none": (None, "Expected 2D array"),
    "too-few-features": (X[:, :2], r"X has 2 features, the network has 4 \(layer_sizes\[0\]\)"),
    "too-many-features": (np.hstack([X, X]), r"X has 8 features, the network has 4 \(layer_sizes\[0\]\)$"),
    "transposed": (X.T, r"X has 12 features, .*; samples go in rows: pass X\.T$"),
    "transposed-csr": (sparse.csr_array(X.T), "X has 12 features"),
    "words": (X.astype(str).astype(object) + "px", "could not convert string to float"),
    "complex": (X + 1j, "Complex data not supported"),
    "ragged": ([[1, 2, 3, 4], [1, 2]], "inhomogeneous"),
}


@pytest.mark.parametrize("use", ["fit", "predict", "predict_proba", "evaluate"])
@pytest.mark.parametrize("case", BAD_X)
def test_bad_samples(case, use):
    x, message = BAD_X[case]
    net = classifier()
    before = [weight.copy() for weight in net.weights]
    arguments = {"fit": (LABELS,), "evaluate": (LABELS,)}.get(use, ())
    options = {"n_steps": 1} if use == "fit" else {}
    with pytest.raises(DataError, match=f"(?s){message}"):
        getattr(net, use)(x, *arguments, **options)
    for weight, old in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


BAD_TARGETS = {
    "empty": (classifier, [], "y is empty"),
    "too-few": (classifier, LABELS[:5], "X has 12 samples and y has 5"),
    "one-number": (classifier, 1, "one- or two-dimensional"),
    "three-dimensions": (classifier, LABELS[:, None, None], r"one- or two-dimensional, got shape \(12, 1, 1\)"),
    "none": (classifier, None, "one- or two-dimensional"),
    "label-too-large": (classifier, LABELS + 1, r"in \[0, 3\), got 3 at sample 2; number the classes from 0"),
    "label-too-large-uint8": (classifier, np.uint8([0] * 11 + [255]), r"in \[0, 3\), got 255 at sample 11"),
    "label-negative": (classifier, LABELS - 1, r"in \[0, 3\), got -1 at sample 0"),
    "label-fraction": (classifier, LABELS + 0.5, "got 0.5 at sample 0"),
    "label-nan": (classifier, with_one(LABELS, np.nan), "y holds nan at sample 5"),
    "labels-minus-one-and-one": (labeler, 2 * (LABELS > 0) - 1, r"in \[0, 2\), got -1"),
    "words-too-many": (classifier, list("abcdabcdabcd"), "y holds 4 classes and the network tells 3 apart"),
    "words-and-numbers": (classifier, np.array(["a"] * 11 + [1], object), "y mixes strings and other values"),
    "words-and-none": (classifier, np.array(["a"] * 11 + [None]), "y mixes strings and other values"),
    "one-hot-with-two": (classifier, np.eye(3)[LABELS] + np.eye(3)[::-1][LABELS], "takes targets in|not one-hot"),
    "one-hot-with-none": (classifier, np.zeros((12, 3)), "y has 3 columns, and sample 0 is not one-hot"),
    "probabilities": (classifier, np.full((12, 3), 1 / 3), "sample 0 is not one-hot.*use loss='squared_error'"),
    "columns-too-many": (classifier, np.eye(4)[LABELS], r"y must have shape \(n_samples, 3\), got \(12, 4\)"),
    "indicator-above-one": (lambda: labeler(2), np.full((12, 2), 2), r"in \[0, 1\], got 2.* at sample 0"),
    "complex": (classifier, LABELS + 1j, "must hold numbers or strings, got dtype complex"),
    "dates": (classifier, LABELS.astype("M8[s]"), "got dtype datetime64"),
    "ragged": (classifier, [[0, 1], [2]], "y is ragged"),
    "sparse": (classifier, sparse.csr_array(np.eye(3)[LABELS]), "neither numbers nor strings"),
    "value-nan": (regressor, with_one(VALUES, np.nan), "y holds nan at sample 5"),
    "value-inf": (regressor, with_one(VALUES, np.inf), "y holds inf at sample 5"),
    "value-too-large": (regressor, with_one(VALUES, 1e300), "y holds inf at sample 5"),
    "value-word": (regressor, ["1.5"] * 11 + ["high"], "y must hold numbers"),
    "values-two-columns": (regressor, np.ones((12, 2)), r"y must have shape \(n_samples, 1\), got \(12, 2\)"),
    "count-negative": (counter, VALUES, "poisson with output exp takes targets of zero or more, got -1.0 at sample 0"),
    "amount-negative": (meter, VALUES, "gamma with output exp takes targets above zero, got -1.0 at sample 0"),
    "amount-zero": (meter, with_one(VALUES + 2, 0), "takes targets above zero, got 0.0 at sample 5, output 0"),
    "amount-zero-in-float32": (meter, with_one(VALUES + 2, 1e-50), "takes targets above zero, got 0.0 at sample 5"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(case):
    make, y, message = BAD_TARGETS[case]
    for use, options in (("fit", {"n_steps": 1}), ("evaluate", {})):
        with pytest.raises(DataError, match=message):
            getattr(make(), use)(X, y, **options)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(5), r"sample_weight must have shape \(12,\), got \(5,\)"),
        (np.ones((12, 1)), r"must have shape \(12,\), got \(12, 1\)"),
        (2.0, "must have shape"),
        (with_one(np.ones(12), -0.5), "must not be negative, got -0.5 at sample 5"),
        (with_one(np.ones(12), np.nan), "sample_weight holds nan at sample 5"),
        (with_one(np.ones(12), np.inf), "sample_weight holds inf at sample 5"),
        (np.zeros(12), "zero for every sample"),
        (["heavy"] * 12, "sample_weight must hold numbers"),
    ],
    ids=str,
)
def test_bad_weights(weight, message):
    with pytest.raises(DataError, match=message):
        classifier().fit(X, LABELS, n_steps=1, sample_weight=weight)
    with pytest.raises(DataError, match=message):
        classifier().evaluate(X, LABELS, sample_weight=weight)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, SpecError, "n_steps=... or n_epochs=..., one of the two"),
        ({"n_steps": 1, "n_epochs": 1}, SpecError, "one of the two"),
        ({"n_steps": 0}, SpecError, "n_steps must be a whole number of at least 1, got 0"),
        ({"n_epochs": 2.0}, SpecError, "n_epochs must be a whole number of at least 1, got 2.0"),
        ({"n_steps": True}, SpecError, "n_steps must be"),
        ({"n_steps": "9"}, SpecError, "n_steps must be a whole number of at least 1, got '9'"),
        ({"n_steps": 1, "batch_size": 0}, SpecError, "batch_size must be"),
        ({"n_steps": 1, "batch_size": 2.5}, SpecError, "batch_size must be"),
        ({"n_steps": 1, "validate_every": 0}, SpecError, "validate_every must be"),
        ({"n_steps": 1, "optimizer": "adam"}, SpecError, "must be an SGD, Adam or AdamW object, got 'adam'"),
        ({"n_steps": 1, "optimizer": SGD}, SpecError, "must be an SGD, Adam or AdamW object, got <class"),
        ({"n_steps": 1, "callbacks": ["progress"]}, SpecError, "a callback must be .* got 'progress'"),
        ({"n_steps": 1, "X_val": X}, SpecError, "X_val and y_val belong together"),
        ({"n_steps": 1, "y_val": LABELS}, SpecError, "X_val and y_val belong together"),
        ({"n_steps": 1, "X_val": X, "y_val": LABELS, "validation_fraction": 0.5}, SpecError, "not both"),
        ({"n_steps": 1, "X_val": X[:, :3], "y_val": LABELS}, DataError, "^X_val has 3 features"),
        ({"n_steps": 1, "X_val": X[:4], "y_val": LABELS}, DataError, "^X_val has 4 samples and y_val has 12"),
        ({"n_steps": 1, "X_val": X[0], "y_val": LABELS}, DataError, "^X_val: Expected 2D array, got 1D array"),
        ({"n_steps": 1, "X_val": with_one(X, np.nan), "y_val": LABELS}, DataError, "^X_val holds nan at sample 5, fea"),
        ({"n_steps": 1, "X_val": X, "y_val": LABELS + 1}, DataError, r"^y_val: labels must be whole .* in \[0, 3\)"),
        ({"n_steps": 1, "X_val": X, "y_val": with_one(LABELS, np.nan)}, DataError, "^y_val holds nan at sample 5"),
        ({"n_steps": 1, "X_val": X, "y_val": ["a"] * 12}, DataError, "^y_val: unknown label 'a' at sample 0"),
        ({"n_steps": 1, "X_val": X, "y_val": np.ones((12, 2))}, DataError, "^y_val must have shape"),
        ({"n_steps": 1, "X_val": X, "y_val": []}, DataError, "^y_val is empty"),
        ({"n_steps": 1, "validation_fraction": 0.0}, SpecError, "must be a number between 0 and 1, got 0.0"),
        ({"n_steps": 1, "validation_fraction": 1}, SpecError, "must be a number between 0 and 1, got 1"),
        ({"n_steps": 1, "validation_fraction": "x"}, SpecError, "must be a number between 0 and 1, got 'x'"),
        ({"n_steps": 1, "validation_fraction": [0.5]}, SpecError, r"must be a number between 0 and 1, got \[0.5\]"),
        ({"n_steps": 1, "validation_fraction": 0.99}, DataError, "cannot split 12 samples"),
        ({"n_steps": 1, "resume_from": "/no/such/file"}, FileNotFoundError, "/no/such/file"),
        pytest.param(
            {"n_steps": 1, "callbacks": [Checkpoint("/no/such/directory/file")]},
            FileNotFoundError,
            "/no/such/directory",
            id="checkpoint",  # an object's own name has its address in it
        ),
    ],
    ids=str,
)
def test_bad_options_of_fit(options, error, message):
    with pytest.raises(error, match=message):
        classifier().fit(X, LABELS, **options)


def test_splitting_unusable_targets_says_the_same_as_not_splitting_them():
    for y, message in (
        ([], "y is empty"),
        (["a", None], "y mixes"),
        ([[1, 2], [1]], "y is ragged"),
        (LABELS[:5], "X has 12 samples and y has 5"),
        (with_one(LABELS, np.nan), "y holds nan at sample 5"),
    ):
        with pytest.raises(DataError, match=message):
            classifier().fit(X, y, n_steps=1, validation_fraction=0.5)


def test_infinity_in_float64_is_not_said_to_be_too_large():
    with pytest.raises(DataError, match=r"X holds inf at sample 5, feature 2: remove or replace it$"):
        classifier(dtype="float64").predict(with_one(X, np.inf))
    assert np.isfinite(classifier(dtype="float64", init="zeros").predict_proba(HUGE)).all()


def test_samples_that_are_split_are_counted_as_they_were_given():
    """Each must be found where the user has it, whichever part it would have gone to."""
    for sample in range(N_SAMPLES):
        with pytest.raises(DataError, match=f"^X holds nan at sample {sample}, feature 2"):
            classifier().fit(with_one(X, np.nan, (sample, 2)), LABELS, n_steps=1, validation_fraction=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_sizes": [4]}, "layer_sizes needs at least features and outputs"),
        ({"layer_sizes": []}, "layer_sizes needs at least"),
        ({"layer_sizes": [4, 0, 3]}, "whole numbers of at least 1"),
        ({"layer_sizes": [4, 2.5, 3]}, "whole numbers of at least 1"),
        ({"layer_sizes": [4, 5, 1]}, "use output='sigmoid'"),
        ({"activation": "rulu"}, "unknown activation 'rulu': did you mean 'relu'"),
        ({"activation": ["relu", "tanh"]}, "1 hidden layers need 1 activations, got 2"),
        ({"output": "sotfmax"}, "unknown output 'sotfmax': did you mean 'softmax'"),
        ({"loss": "cross-entropy"}, "unknown loss 'cross-entropy': did you mean 'cross_entropy'"),
        ({"output": "identity", "loss": "cross_entropy"}, "use loss='squared_error'"),
        ({"reduction": "none"}, "unknown reduction"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"dtype": np.int32}, "unknown dtype 'int32'"),
        ({"l2": -1}, "l2 must be finite and not negative"),
        ({"input_scale": 0}, "input_scale must be finite and not zero"),
        ({"layer_sizes": [10**30, 3]}, r"layer_sizes \[10+, 3\] make more weights than memory has addresses"),
        ({"layer_sizes": [4, 10**10, 10**10, 3]}, "more weights than memory has addresses"),
        pytest.param({"l2": 10**400}, "too large", id="l2-beyond-floats"),
        ({"init": None}, "init must be a scheme such as 'he_normal', or one array per layer, got None"),
        ({"init": 3}, "init must be a scheme .* got 3"),
        ({"init": np.array(3)}, "init must be a scheme .* got array"),
        ({"bias_init": None}, "bias_init must be a scheme .* got None"),
        ({"init": [[[1, 2], [3]], np.ones((5, 3))]}, "weight 0 is ragged"),
        ({"init": "he_uniform"}, "unknown init 'he_uniform'"),
        ({"init": [np.ones((4, 5))]}, "2 weight arrays expected"),
        ({"init": [np.ones((5, 4)), np.ones((5, 3))]}, "transposed: pass array.T"),
        ({"bias_init": [np.ones(5), np.full(3, np.nan)]}, "bias 1 holds a value that is not finite"),
        ({"backend": "numby"}, "unknown backend 'numby': did you mean 'num"),
        ({"backend": ["numpy"]}, r"unknown backend \['numpy'\].* Choose from auto"),
        ({"device": "gpu", "backend": "numpy"}, "unknown device 'gpu'"),
        ({"device": None, "backend": "numpy"}, "unknown device None: Choose from auto, cpu, cuda"),
        ({"device": 0, "backend": "numpy"}, "unknown device 0: Choose from auto, cpu, cuda"),
        ({"n_threads": 0, "backend": "numpy"}, "n_threads must be a whole number of at least 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": "seven"}, "seed must be a whole number"),
    ],
    ids=str,
)
def test_bad_networks(arguments, message):
    with pytest.raises(FastnetError, match=message) as caught:
        Network(**{"layer_sizes": [4, 5, 3]} | arguments)
    assert isinstance(caught.value, ValueError), "who catches ValueError catches it"


@pytest.mark.parametrize("device", [None, 0])
def test_a_device_that_is_no_name_is_told_where_the_backend_is_chosen_later(device):
    with pytest.raises(SpecError, match=f"unknown device {device}: Choose from auto"):
        Network([N_FEATURES, N_CLASSES], device=device).fit(X, LABELS, n_steps=1)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X[:1], LABELS[:1]),
        (np.ones_like(X), np.minimum(LABELS, 1)),
        (np.zeros_like(X), np.minimum(LABELS, 1)),
        (sparse.csr_array(X.shape, dtype=np.float32), np.minimum(LABELS, 1)),
        (X.astype(np.float16), LABELS.astype(np.uint8)),
        (X > 0, LABELS.astype(np.float32)),
        (X[::-2, ::-1], LABELS[::-2]),
        (X, np.zeros(N_SAMPLES, int)),
    ],
    ids=["one-sample", "constant", "zero", "empty-csr", "float16", "bool", "strided", "one-class"],
)
@pytest.mark.parametrize("batch_size", [None, 5])
def test_unusual_but_good_input_is_trained_on(x, y, batch_size):
    net = classifier()
    history = net.fit(x, y, n_steps=30, batch_size=batch_size, optimizer=SGD(0.1))
    assert np.isfinite(history.loss).all()
    assert history.loss[-1] < history.loss[0]
    assert net.predict(x).shape == (len(y),)


def test_data_are_never_written_to():
    x, y, weight = np.array(X), np.array(LABELS), np.ones(N_SAMPLES, np.float32)
    for array in (x, y, weight):
        array.flags.writeable = False
    net = classifier()
    net.fit(x, y, sample_weight=weight, n_steps=3)
    net.fit(x, y, sample_weight=weight, n_epochs=2, batch_size=5)
    net.evaluate(x, y, weight)
    np.testing.assert_array_equal(x, X)
