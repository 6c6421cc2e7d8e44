"""The estimators end where scikit-learn's own end: the same draws, batches, weights, losses and stops."""

import warnings
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

import fastnet.sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BACKENDS = ("numpy", "numba")
N_SAMPLES, N_FEATURES = 90, 7

_random = np.random.RandomState(0)
X = _random.randn(N_SAMPLES, N_FEATURES)
WEIGHTS = _random.rand(N_SAMPLES)
HAS_WEIGHTS = hasattr(neural_network.MLPRegressor(), "loss") and "loss" in neural_network.MLPRegressor().get_params()
needs_weights = pytest.mark.skipif(not HAS_WEIGHTS, reason="scikit-learn takes sample weights since 1.7")
# Before 1.9, scikit-learn's own early stopping failed on strings.
CLASSES = ["a", "b", "c"] if find_spec("sklearn.callback") else [0, 1, 2]
TARGETS = {
    "binary": _random.randint(0, 2, N_SAMPLES),
    "multiclass": _random.choice(CLASSES, N_SAMPLES),
    "multilabel": _random.randint(0, 2, (N_SAMPLES, 3)),
    "one-output": _random.randn(N_SAMPLES),
    "two-outputs": _random.randn(N_SAMPLES, 2),
}
CLASSIFIERS = ("binary", "multiclass", "multilabel")

# Relative to the largest coefficient, after five epochs.
TOLERANCES = {("numpy", "float64"): 1e-12, ("numba", "float64"): 1e-9, ("numba", "float32"): 1e-4}

SOLVERS = {
    "adam": {"solver": "adam"},
    "adam-whole": {"solver": "adam", "batch_size": N_SAMPLES, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6},
    "adam-in-order": {"solver": "adam", "batch_size": 32, "shuffle": False},
    "nesterov": {"solver": "sgd", "batch_size": 32, "learning_rate_init": 0.05},
    "momentum": {"solver": "sgd", "batch_size": 20, "momentum": 0.7, "nesterovs_momentum": False},
    "never-forgets": {"solver": "sgd", "batch_size": 20, "momentum": 1.0, "learning_rate_init": 0.001},
    "plain": {"solver": "sgd", "batch_size": 1, "momentum": 0.0, "learning_rate_init": 0.01},
    "invscaling": {"solver": "sgd", "batch_size": 20, "learning_rate": "invscaling", "power_t": 0.3},
    "early-stopping": {"solver": "adam", "batch_size": 32, "early_stopping": True, "validation_fraction": 0.3},
    "lbfgs": {"solver": "lbfgs"},
}


def pair(kind, backend, **parameters):
    """Scikit-learn's estimator and ours."""
    parameters = {"hidden_layer_sizes": (9, 5), "random_state": 3, "max_iter": 5, "alpha": 0.01} | parameters
    name = "MLPClassifier" if kind in CLASSIFIERS else "MLPRegressor"
    return (
        getattr(neural_network, name)(**parameters),
        getattr(fastnet.sklearn, name)(**parameters, backend=backend),
    )


def largest_difference(ours, theirs):
    return max(
        np.abs(a - r).max() / np.abs(r).max()
        for a, r in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True)
    )


def assert_alike(ours, theirs, tolerance, x=X):
    assert largest_difference(ours, theirs) <= tolerance
    assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=max(tolerance, 1e-10))
    for name in ("loss_curve_", "validation_scores_", "best_validation_score_", "best_loss_"):
        if getattr(theirs, name, None) is not None:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=max(tolerance, 1e-10))
    predict = "predict_proba" if hasattr(theirs, "predict_proba") else "predict"
    actual, expected = getattr(ours, predict)(x), getattr(theirs, predict)(x)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=100 * tolerance * np.abs(expected).max())
    assert type(ours.predict(x)) is type(theirs.predict(x))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ends_where_scikit_learn_ends(backend, solver, kind):
    theirs, ours = pair(kind, backend, **SOLVERS[solver])
    assert_alike(ours.fit(X, TARGETS[kind]), theirs.fit(X, TARGETS[kind]), TOLERANCES[backend, "float64"])


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("kind", ["multiclass", "two-outputs"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_activations(backend, kind, activation):
    theirs, ours = pair(kind, backend, activation=activation, solver="lbfgs")
    assert_alike(ours.fit(X, TARGETS[kind]), theirs.fit(X, TARGETS[kind]), TOLERANCES[backend, "float64"])


@pytest.mark.parametrize("hidden", [(), 4, [3, 2, 3], np.array([3, 2], dtype=np.uint8)], ids=str)
def test_hidden_layers(hidden):
    theirs, ours = pair("binary", "numba", hidden_layer_sizes=hidden)
    assert_alike(ours.fit(X, TARGETS["binary"]), theirs.fit(X, TARGETS["binary"]), 1e-9)


@needs_weights
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("solver", ["adam-in-order", "nesterov", "early-stopping", "lbfgs"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sample_weights(backend, solver, kind):
    theirs, ours = pair(kind, backend, **SOLVERS[solver])
    for estimator in (theirs, ours):
        estimator.fit(X, TARGETS[kind], sample_weight=WEIGHTS)
    assert_alike(ours, theirs, TOLERANCES[backend, "float64"])


@pytest.mark.skipif(not HAS_WEIGHTS, reason="scikit-learn has the Poisson loss since 1.7")
@pytest.mark.parametrize("solver", ["adam", "nesterov", "early-stopping", "lbfgs"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_poisson(backend, solver):
    counts = np.random.RandomState(1).poisson(2, (N_SAMPLES, 2)).astype(float)
    theirs, ours = pair("two-outputs", backend, loss="poisson", **SOLVERS[solver])
    assert_alike(ours.fit(X, counts), theirs.fit(X, counts), TOLERANCES[backend, "float64"])


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "lbfgs"])
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "two-outputs"])
def test_float32_stays_float32(kind, solver):
    """L-BFGS is left out: scikit-learn's own, in float32, is further from float64 than this tolerance."""
    x, y = X.astype("float32"), TARGETS[kind]
    y = y.astype("float32") if kind == "two-outputs" else y
    theirs, ours = pair(kind, "numba", **SOLVERS[solver])
    assert_alike(ours.fit(x, y), theirs.fit(x, y), TOLERANCES["numba", "float32"], x)
    assert {array.dtype for array in ours.coefs_ + ours.intercepts_} == {np.dtype("float32")}


def test_lbfgs_in_float32_reaches_the_same_loss():
    x, y = X.astype("float32"), TARGETS["multiclass"]
    theirs, ours = pair("multiclass", "numba", solver="lbfgs")
    ours.fit(x, y), theirs.fit(x, y)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-4)
    assert [coef.dtype for coef in ours.coefs_] == [coef.dtype for coef in theirs.coefs_]


@pytest.mark.parametrize("convert", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("solver", ["adam-in-order", "nesterov", "early-stopping", "lbfgs"])
def test_sparse_samples(solver, convert):
    x = convert(np.where(np.abs(X) > 1, X, 0))
    for backend in BACKENDS:
        theirs, ours = pair("multiclass", backend, **SOLVERS[solver])
        y = TARGETS["multiclass"]
        assert_alike(ours.fit(x, y), theirs.fit(x, y), TOLERANCES[backend, "float64"], x)


@pytest.mark.parametrize("order", ["F", "reversed", "read-only"])
def test_samples_as_they_lie_in_memory(order):
    x = {"F": np.asfortranarray(X), "reversed": X[::-1][::-1], "read-only": X.copy()}[order]
    x.flags.writeable = False
    theirs, ours = pair("binary", "numba")
    assert_alike(ours.fit(x, TARGETS["binary"]), theirs.fit(X, TARGETS["binary"]), 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["adam", "nesterov", "invscaling"])
@pytest.mark.parametrize("kind", ["multiclass", "two-outputs"])
def test_partial_fit_goes_on_from_the_optimizers_state(kind, solver, backend):
    theirs, ours = pair(kind, backend, **SOLVERS[solver])
    options = {"classes": CLASSES} if kind == "multiclass" else {}
    for _ in range(4):
        for half in (slice(0, 50), slice(50, None)):
            ours.partial_fit(X[half], TARGETS[kind][half], **options)
            theirs.partial_fit(X[half], TARGETS[kind][half], **options)
    assert_alike(ours, theirs, TOLERANCES[backend, "float64"])
    assert ours._optimizer.learning_rate == pytest.approx(theirs._optimizer.learning_rate, rel=1e-15)


def test_partial_fit_keeps_the_optimizer_that_it_has():
    """Like scikit-learn's: parameters that are changed after the first call count in the next fit."""
    theirs, ours = pair("binary", "numpy")
    for estimator in (theirs, ours):
        estimator.fit(X, TARGETS["binary"])
        estimator.set_params(solver="sgd", learning_rate_init=0.5).partial_fit(X, TARGETS["binary"])
    assert_alike(ours, theirs, 1e-12)


@pytest.mark.parametrize("solver", ["adam", "nesterov", "lbfgs"])
def test_warm_start(solver):
    theirs, ours = pair("multiclass", "numba", warm_start=True, **SOLVERS[solver])
    for _ in range(3):
        ours.fit(X, TARGETS["multiclass"]), theirs.fit(X, TARGETS["multiclass"])
    assert_alike(ours, theirs, 1e-9)


def test_warm_start_with_early_stopping_keeps_the_best_weights():
    """scikit-learn's own goes on training the very arrays in which it keeps the best weights, and so loses them."""
    y = X[:, 0] > 0
    ours = pair("binary", "numpy", warm_start=True, early_stopping=True, learning_rate_init=0.05, max_iter=40)[1]
    ours.fit(X, y)
    best, coefs = ours.best_validation_score_, [coef.copy() for coef in ours.coefs_]
    ours.set_params(learning_rate_init=10.0, max_iter=3).fit(X, y)
    assert ours.best_validation_score_ == best
    for kept, reached in zip(ours.coefs_, coefs, strict=True):
        np.testing.assert_array_equal(kept, reached)


def test_a_generator_of_random_numbers_is_used_up_alike():
    states = [np.random.RandomState(5) for _ in range(2)]
    theirs, ours = pair("binary", "numba", early_stopping=True)
    for estimator, state in zip((theirs, ours), states, strict=True):
        estimator.set_params(random_state=state).fit(X, TARGETS["binary"])
        estimator.fit(X, TARGETS["binary"])
    assert_alike(ours, theirs, 1e-9)
    assert states[0].randint(10**6) == states[1].randint(10**6)


@pytest.mark.parametrize(
    "options",
    [
        {"tol": 1e-2, "n_iter_no_change": 3},
        {"tol": 1e-2, "n_iter_no_change": 2, "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.2},
        {"early_stopping": True, "n_iter_no_change": 2, "tol": 1e-3},
        {"tol": 0.5, "n_iter_no_change": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_stops_at_the_same_epoch(backend, options):
    x, y = load_digits(return_X_y=True)
    theirs, ours = pair("multiclass", backend, max_iter=200, **options)
    ours.fit(x[:600] / 16, y[:600]), theirs.fit(x[:600] / 16, y[:600])
    assert ours.n_iter_ == theirs.n_iter_ < 200
    assert_alike(ours, theirs, 1e-7, x[:600] / 16)  # rounding grows with the number of epochs


def shapes(value):
    return [each.shape for each in value] if isinstance(value, list) and np.ndim(value[0]) else np.shape(value)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize("kind", TARGETS)
def test_attributes_are_those_of_scikit_learn(kind, options):
    theirs, ours = pair(kind, "numpy", **options)
    frame = pd.DataFrame(X, columns=list("abcdefg"))
    ours.fit(frame, TARGETS[kind]), theirs.fit(frame, TARGETS[kind])
    public = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
    ours_alone = {name for name in vars(ours) if name.endswith("_") and not name.startswith("_")} - public
    assert ours_alone <= {"backend_", "validation_loss_curve_", "loss_curve_"}
    for name in public:
        assert shapes(getattr(ours, name)) == shapes(getattr(theirs, name)), name
    assert isinstance(ours, type(theirs))
    np.testing.assert_array_equal(ours.feature_names_in_, theirs.feature_names_in_)


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({"max_iter": 2}, "fit"),
        ({"max_iter": 2, "solver": "lbfgs"}, "fit"),
        ({"batch_size": 1000}, "fit"),
        ({"batch_size": 1000}, "partial_fit"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
def test_warnings_are_those_of_scikit_learn(options, method):
    told = []
    for estimator in pair("one-output", "numpy", **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(estimator, method)(X, TARGETS["one-output"])
        told.append([(each.category, str(each.message).split("\n")[0], each.filename) for each in caught])
    assert told[0] == told[1] != []


@pytest.mark.parametrize("weighted", [False, pytest.param(True, marks=needs_weights)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_class_is_always_right(backend, weighted):
    """scikit-learn predicts it whatever the output, which would be on the other side for some epochs."""
    options = {"sample_weight": WEIGHTS} if weighted else {}
    theirs, ours = pair("binary", backend, early_stopping=True, n_iter_no_change=3, max_iter=30)
    for estimator in (theirs, ours):
        estimator.fit(X, np.zeros(N_SAMPLES, int), **options)
    assert set(theirs.validation_scores_) == {1.0}
    assert_alike(ours, theirs, TOLERANCES[backend, "float64"])


@pytest.mark.parametrize("sizes", [[3.7], [4, 3.0], np.array([4.0])], ids=str)
def test_parts_of_units_are_refused(sizes):
    for estimator in pair("binary", "numpy", hidden_layer_sizes=sizes):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            estimator.fit(X, TARGETS["binary"])


BAD = {
    "no hidden units": ({"hidden_layer_sizes": (3, 0)}, X, TARGETS["binary"]),
    "unknown solver": ({"solver": "newton"}, X, TARGETS["binary"]),
    "negative alpha": ({"alpha": -1}, X, TARGETS["binary"]),
    "lengths": ({}, X[:50], TARGETS["binary"]),
    "infinite": ({}, np.full_like(X, np.inf), TARGETS["binary"]),
    "no samples": ({}, X[:0], TARGETS["binary"][:0]),
    "values for labels": ({}, X, TARGETS["one-output"]),
    "too few held out": ({"early_stopping": True, "validation_fraction": 0.1}, X[:10], TARGETS["binary"][:10]),
    "diverges": ({"solver": "sgd", "learning_rate_init": 1e300, "max_iter": 3}, X * 1e3, TARGETS["multiclass"]),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", BAD)
def test_errors_are_those_of_scikit_learn(name):
    options, x, y = BAD[name]
    told = []
    for estimator in pair("binary", "numpy", **options):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the messages are compared)
            estimator.fit(x, y)
        told.append((type(caught.value), str(caught.value).replace("MLPClassifier", "")))
    assert told[0][0] == told[1][0]
    assert told[0][1] == told[1][1]


def test_verbose_prints_what_scikit_learn_prints(capsys):
    printed = []
    for estimator in pair("multiclass", "numpy", verbose=True, early_stopping=True, n_iter_no_change=1, tol=1.0):
        estimator.fit(X, TARGETS["multiclass"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def test_labels_of_any_kind():
    for labels in (np.array([-3, 10, 77]), np.array([0.0, 1.0, 7.0]), np.array(["x", "yy", "z"], dtype=object)):
        y = labels[np.random.RandomState(0).randint(0, 3, N_SAMPLES)]
        theirs, ours = pair("multiclass", "numba")
        ours.fit(X, y), theirs.fit(X, y)
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        assert ours.predict(X).dtype == theirs.predict(X).dtype


def test_convergence_warning_is_scikit_learns_class():
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        pair("binary", "numpy")[1].fit(X, TARGETS["binary"])
