"""What the estimators have beyond scikit-learn's: weights of classes, held-out data, activations, backends."""

import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight

import fastnet
from fastnet import reference
from fastnet.errors import BackendUnavailableError, DeviceMemoryError, UnsupportedSpecError
from fastnet.sklearn import MLPClassifier, MLPRegressor, journal
from fastnet.sklearn.drop_in import DropInClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

_random = np.random.RandomState(0)
X = _random.randn(120, 5)
LABELS = np.where(X[:, 0] + X[:, 1] > 0.8, "yes", "no")
VALUES = X[:, 0] - 2 * X[:, 1]
SMALL = {"hidden_layer_sizes": (6,), "random_state": 0, "max_iter": 8, "backend": "numpy"}


@pytest.fixture
def entries():
    heard = []
    journal.listeners.append(heard.append)
    yield heard
    journal.listeners.remove(heard.append)


def coefficients(estimator):
    return np.concatenate([array.ravel() for array in estimator.coefs_ + estimator.intercepts_])


def test_lazily_from_the_package():
    code = "import fastnet, sys; assert 'sklearn' not in sys.modules; from fastnet import MLPClassifier, MLPRegressor"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert fastnet.MLPClassifier is MLPClassifier
    with pytest.raises(AttributeError, match="no attribute 'MLPTransformer'"):
        _ = fastnet.MLPTransformer


@pytest.mark.parametrize("class_weight", ["balanced", {"yes": 5.0, "no": 0.5}], ids=str)
def test_class_weights_are_sample_weights(class_weight):
    own = np.linspace(0.5, 2, len(X))
    by_class = MLPClassifier(class_weight=class_weight, **SMALL).fit(X, LABELS, sample_weight=own)
    weights = own * compute_sample_weight(class_weight, LABELS)
    by_sample = MLPClassifier(**SMALL).fit(X, LABELS, sample_weight=weights)
    np.testing.assert_array_equal(coefficients(by_class), coefficients(by_sample))
    assert not np.array_equal(coefficients(by_class), coefficients(MLPClassifier(**SMALL).fit(X, LABELS)))


def test_balanced_weights_need_all_labels():
    with pytest.raises(ValueError, match="cannot be used with partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, LABELS, classes=["no", "yes"])
    MLPClassifier(class_weight={"yes": 2}, **SMALL).partial_fit(X, LABELS, classes=["no", "yes"])


@pytest.mark.parametrize("early_stopping", [False, True])
def test_held_out_data_are_judged_after_each_epoch(early_stopping):
    net = MLPClassifier(early_stopping=early_stopping, alpha=0, **SMALL)
    net.fit(X[:80], LABELS[:80], X_val=X[80:], y_val=LABELS[80:])
    assert len(net.validation_scores_) == len(net.validation_loss_curve_) == net.n_iter_
    if not early_stopping:
        np.testing.assert_allclose(net.validation_loss_curve_[-1], log_loss(LABELS[80:], net.predict_proba(X[80:])))
        assert net.validation_scores_[-1] == net.score(X[80:], LABELS[80:])
    else:
        assert max(net.validation_scores_) == net.best_validation_score_ == net.score(X[80:], LABELS[80:])


def test_held_out_data_do_not_change_training():
    alone = MLPClassifier(**SMALL).fit(X, LABELS)
    judged = MLPClassifier(**SMALL).fit(X, LABELS, X_val=X[:9], y_val=LABELS[:9], sample_weight_val=np.arange(9.0))
    np.testing.assert_array_equal(coefficients(alone), coefficients(judged))


def test_weights_of_held_out_samples_count():
    options = {"X_val": X[:40], "y_val": LABELS[:40]}
    weight = np.repeat([0.0, 1.0], 20)
    weighted = MLPClassifier(**SMALL).fit(X, LABELS, **options, sample_weight_val=weight)
    second_half = MLPClassifier(**SMALL).fit(X, LABELS, X_val=X[20:40], y_val=LABELS[20:40])
    np.testing.assert_allclose(weighted.validation_loss_curve_, second_half.validation_loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(weighted.validation_scores_, second_half.validation_scores_, rtol=1e-12)


@pytest.mark.parametrize(("kind", "y"), [(MLPClassifier, LABELS), (MLPRegressor, VALUES)], ids=["labels", "values"])
def test_held_out_samples_without_any_weight_are_refused(kind, y):
    """Whether they are the user's, or set aside from samples that have weights."""
    message = "^Sample weights must contain at least one non-zero number"
    with pytest.raises(ValueError, match=message):
        kind(**SMALL).fit(X, y, X_val=X, y_val=y, sample_weight_val=np.zeros(len(X)))
    with pytest.raises(ValueError, match=message):  # the first sample is not among the three that are set aside
        kind(early_stopping=True, validation_fraction=0.02, **SMALL).fit(X, y, sample_weight=np.arange(len(X)) == 0)


def test_losses_of_several_outputs_are_averaged_as_in_training():
    y = np.stack([VALUES, -VALUES, VALUES**2], axis=1)
    net = MLPRegressor(alpha=0, **SMALL).fit(X, y, X_val=X, y_val=y)
    expected = 0.5 * np.mean((net.predict(X) - y) ** 2)
    np.testing.assert_allclose(net.validation_loss_curve_[-1], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({"X_val": X}, "X_val is provided, but y_val was not"),
        ({"y_val": LABELS}, "y_val is provided, but X_val was not"),
        ({"X_val": X[:, :3], "y_val": LABELS}, "3 features"),
        ({"X_val": X[:5], "y_val": LABELS[:6]}, "inconsistent numbers of samples"),
        ({"X_val": X[:2], "y_val": ["no", "maybe"]}, "classes that y has not: .*maybe"),
        ({"X_val": X[:2] * np.nan, "y_val": LABELS[:2]}, "NaN"),
    ],
    ids=str,
)
def test_held_out_data_that_do_not_fit_are_refused(held_out, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SMALL).fit(X, LABELS, **held_out)


def test_one_activation_for_each_layer():
    """Against the reference's forward pass, and a loss that falls."""
    names = ("tanh", "relu", "silu")
    net = MLPRegressor(
        activation=names, **SMALL | {"hidden_layer_sizes": (7, 6, 5), "max_iter": 60, "learning_rate_init": 0.01}
    )
    net.fit(X, VALUES)
    h = X
    for name, coef, intercept in zip(names, net.coefs_, net.intercepts_, strict=False):
        h = reference.ACTIVATION_PAIRS[name][0](h @ coef + intercept, xp=np)
    np.testing.assert_allclose(net.predict(X), (h @ net.coefs_[-1] + net.intercepts_[-1]).ravel(), rtol=1e-10)
    assert net.loss_curve_[-1] < 0.5 * net.loss_curve_[0]


def test_equal_activations_named_one_by_one_are_one_activation():
    for name in ("logistic", "relu"):
        sizes = {"hidden_layer_sizes": (4, 3)}
        one = MLPClassifier(activation=name, **SMALL | sizes).fit(X, LABELS)
        each = MLPClassifier(activation=[name, name], **SMALL | sizes).fit(X, LABELS)
        np.testing.assert_array_equal(coefficients(one), coefficients(each))


@pytest.mark.parametrize(
    ("activation", "message"), [(("relu", "tanh"), "2 activations for 1 hidden"), (["rleu"], "did you mean 'relu'")]
)
def test_activations_that_do_not_fit_are_refused(activation, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(activation=activation, **SMALL).fit(X, LABELS)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_squared_error_of_probabilities(n_classes):
    """The loss that training reports is half the Brier score, at the weights before the last step."""
    y = np.arange(len(X)) % n_classes
    net = MLPClassifier(loss="squared_error", alpha=0, **SMALL | {"max_iter": 1}).fit(X, y)
    start = MLPClassifier(alpha=0, **SMALL | {"max_iter": 1, "learning_rate_init": 1e-300}).fit(X, y)
    p = start.predict_proba(X)
    target = np.eye(n_classes)[y]
    error = (p - target) ** 2
    expected = 0.5 * (error[:, 1] if n_classes == 2 else error.sum(axis=1)).mean()
    assert net.loss_ == pytest.approx(expected, rel=1e-10)


def test_lbfgs_has_a_loss_curve():
    net = MLPRegressor(solver="lbfgs", **SMALL).fit(X, VALUES)
    assert len(net.loss_curve_) == net.n_iter_
    assert net.loss_curve_[-1] == net.loss_
    assert (np.diff(net.loss_curve_) < 0).all()


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_lbfgs_has_no_partial_fit(kind):
    """scikit-learn's own regressor has one, by a condition that is always true."""
    assert not hasattr(kind(solver="lbfgs"), "partial_fit")
    assert hasattr(kind(), "partial_fit")


@pytest.mark.parametrize("dtype", ["float32", np.float32, "float64", None])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_dtype_that_was_asked_for(dtype, solver):
    for x in (X, X.tolist(), (X * 10).astype(int)):
        net = MLPClassifier(dtype=dtype, solver=solver, **SMALL).fit(x, LABELS)
        assert {array.dtype for array in net.coefs_} == {np.dtype(dtype or "float64")}


def test_interrupted_training_keeps_the_weights(monkeypatch):
    def interrupt_in_the_third_epoch(self):
        if self._estimator.n_iter_ == 2:
            raise KeyboardInterrupt
        return original(self)

    from fastnet.sklearn.stochastic import _EpochLoop

    original = _EpochLoop.run_epoch
    expected = coefficients(MLPClassifier(**SMALL | {"max_iter": 2}).fit(X, LABELS))
    monkeypatch.setattr(_EpochLoop, "run_epoch", interrupt_in_the_third_epoch)
    with pytest.warns(UserWarning, match="interrupted by user"):
        net = MLPClassifier(**SMALL).fit(X, LABELS)
    np.testing.assert_array_equal(coefficients(net), expected)


def test_which_backend_ran_is_told(entries):
    assert MLPClassifier(**SMALL).fit(X, LABELS).backend_ == "numpy"
    assert MLPClassifier(**SMALL | {"backend": "numba"}).fit(X, LABELS).backend_ == "numba"
    MLPClassifier(**SMALL).partial_fit(X, LABELS, classes=["no", "yes"])
    assert [(e.estimator, e.method, e.ran_on) for e in entries] == [
        ("MLPClassifier", "fit", "numpy"),
        ("MLPClassifier", "fit", "numba"),
        ("MLPClassifier", "partial_fit", "numpy"),
    ]
    assert all(entry.seconds > 0 and entry.reason and entry.detail for entry in entries)


def test_backend_that_is_not_there():
    with pytest.raises(BackendUnavailableError, match="backend 'cupy' runs on a CUDA device"):
        MLPClassifier(**SMALL | {"backend": "cupy", "device": "cpu"}).fit(X, LABELS)


def test_device_without_memory_for_the_data_is_passed_over(monkeypatch, entries):
    """With backend="auto"; the entry says why."""
    from fastnet.backends.array_backend import NumpyBackend

    class FullBackend(NumpyBackend):
        def plan_training(self, spec, parameters, dataset):
            raise DeviceMemoryError("X needs 5 MB, and there are 4 MB")

    from fastnet.backends.registry import Choice
    from fastnet.sklearn import training

    monkeypatch.setattr(training, "choose", lambda *_: Choice(FullBackend(), "it is there"))
    net = MLPClassifier(**SMALL | {"backend": "auto"}).fit(X, LABELS)
    assert net.backend_ == "numba"
    assert "X needs 5 MB" in entries[0].reason
    with pytest.raises(DeviceMemoryError):
        MLPClassifier(**SMALL | {"backend": "numpy"}).fit(X, LABELS)


class CountsItsBatches(DropInClassifier):
    """Relies on scikit-learn's own training code, as a user's subclass may."""

    n_batches = 0

    def _backprop(self, *arguments):
        self.n_batches += 1
        return super()._backprop(*arguments)


def test_overridden_training_is_left_to_scikit_learn(entries):
    net = CountsItsBatches(random_state=0, max_iter=3, hidden_layer_sizes=(4,)).fit(X, LABELS)
    assert net.n_batches == 3
    assert entries[0].ran_on == "scikit-learn"
    assert "CountsItsBatches overrides _backprop" in entries[0].reason
    theirs = neural_network.MLPClassifier(random_state=0, max_iter=3, hidden_layer_sizes=(4,)).fit(X, LABELS)
    np.testing.assert_array_equal(coefficients(net), coefficients(theirs))


def test_falling_back_can_be_forbidden(monkeypatch):
    monkeypatch.setenv("FASTNET_ACCEL_STRICT", "1")
    with pytest.raises(UnsupportedSpecError, match="overrides _backprop"):
        CountsItsBatches(max_iter=3).fit(X, LABELS)


@pytest.mark.parametrize("dump", [pickle.dumps, None], ids=["pickle", "joblib"])
def test_pickled_in_the_middle_of_partial_fits(dump, tmp_path):
    options = {"classes": ["no", "yes"]}
    whole = MLPClassifier(**SMALL).partial_fit(X, LABELS, **options).partial_fit(X, LABELS)
    half = MLPClassifier(**SMALL).partial_fit(X, LABELS, **options)
    if dump:
        half = pickle.loads(dump(half))
    else:
        joblib.dump(half, tmp_path / "net.joblib")
        half = joblib.load(tmp_path / "net.joblib")
    np.testing.assert_array_equal(coefficients(half.partial_fit(X, LABELS)), coefficients(whole))


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_grid_search(backend, n_jobs):
    x, y = load_digits(return_X_y=True)
    grid = {"mlpclassifier__alpha": [1e-4, 10.0], "mlpclassifier__hidden_layer_sizes": [(8,), (16,)]}
    scores = []
    for kind, options in ((neural_network.MLPClassifier, {}), (MLPClassifier, {"backend": "numba"})):
        pipeline = make_pipeline(StandardScaler(), kind(max_iter=4, random_state=0, **options))
        with joblib.parallel_backend(backend):
            search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(x[:300], y[:300])
        scores.append(search.cv_results_["mean_test_score"])
    np.testing.assert_allclose(scores[0], scores[1])


def test_clones_and_parameters():
    net = MLPClassifier(activation=("relu",), class_weight={"no": 1, "yes": 3}, backend="numba", dtype="float32")
    copy = clone(net)
    assert copy.get_params() == net.get_params()
    assert set(neural_network.MLPClassifier().get_params()) < set(net.get_params())
    assert set(neural_network.MLPRegressor().get_params()) <= set(MLPRegressor().get_params())


@pytest.mark.parametrize(
    "parameters",
    [{"backend": 3}, {"n_threads": 0}, {"dtype": "int8"}, {"class_weight": "heavy"}, {"loss": "hinge"}],
    ids=str,
)
def test_parameters_out_of_range_are_refused_as_scikit_learn_does(parameters):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter of MLPClassifier must be"):
        MLPClassifier(**parameters).fit(X, LABELS)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (X[:, :4], "expecting 5 features"),
        (X[0], "1D array"),
        (np.where(X > 2, np.inf, X), "infinity"),
        (np.where(X > 2, np.nan, X), "NaN"),
        (X[:0], "0 sample"),
        (X + 1j, "Complex data"),
        ([["a"] * 5], "could not convert|dtype='numeric'"),
    ],
    ids=["features", "one-dimensional", "infinite", "nan", "empty", "complex", "text"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_samples_that_cannot_be_predicted(x, error):
    net = MLPClassifier(**SMALL).fit(X, LABELS)
    with pytest.raises(ValueError, match=error):
        net.predict(x)


def test_samples_whose_sum_overflows_are_predicted():
    x = np.full((2, 5), 1e308)
    net = MLPRegressor(**SMALL).fit(X, VALUES)
    net.coefs_[0] *= 1e-300
    assert np.isfinite(net.predict(x)).all()


def test_names_of_features_are_compared():
    import pandas as pd

    net = MLPClassifier(**SMALL).fit(pd.DataFrame(X, columns=list("abcde")), LABELS)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        net.predict(X)


# Weights and data that do not belong together: compiled code would read beyond the end of the smaller ones.

INDICATORS = np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(int)
GOING_ON = [("fit", "adam"), ("fit", "sgd"), ("fit", "lbfgs"), ("partial_fit", "adam"), ("partial_fit", "sgd")]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("n_before", "n_after"), [(1, 3), (3, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize(("method", "solver"), GOING_ON)
def test_other_outputs_than_the_network_has_are_refused(method, solver, n_before, n_after, backend):
    targets = np.stack([VALUES, -VALUES, VALUES**2], axis=1)
    before = targets[:, 0] if n_before == 1 else targets[:, :n_before]
    after = targets[:, 0] if n_after == 1 else targets[:, :n_after]
    net = MLPRegressor(solver=solver, warm_start=method == "fit", **SMALL | {"backend": backend})
    getattr(net, method)(X, before)
    known = joblib.hash(vars(net))
    with pytest.raises(ValueError, match=f"in y is {n_after}, .*further is {n_before}.*: pass y .*warm_start=False"):
        getattr(net, method)(X, after)
    assert joblib.hash(vars(net)) == known, "a refused call changes nothing"
    getattr(net, method)(X, before)
    net.set_params(warm_start=False).fit(X, after)
    assert net.predict(X).shape == after.shape


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_labels_after_indicators_are_refused(method, backend):
    """Two columns of indicators have the classes 0 and 1, as have binary labels, which are a single column."""
    net = MLPClassifier(warm_start=method == "fit", **SMALL | {"backend": backend})
    options = {"classes": [0, 1]} if method == "partial_fit" else {}
    getattr(net, method)(X, INDICATORS, **options)
    known = joblib.hash(vars(net))
    with pytest.raises(ValueError, match=r"in y is 1, .*further is 2"):
        getattr(net, method)(X, INDICATORS[:, 0])
    assert joblib.hash(vars(net)) == known


def without_features(net):
    net.coefs_[0] = net.coefs_[0][:3].copy()


def without_units(net):
    net.coefs_[0] = net.coefs_[0][:, :3].copy()


def without_intercepts(net):
    net.intercepts_[0] = net.intercepts_[0][:3].copy()


def without_a_layer(net):
    del net.coefs_[-1]


def without_columns(net):
    net.coefs_[1] = net.coefs_[1].ravel()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("method", ["predict", "partial_fit", "fit"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_features, r"X has 5 features, and coefs_\[0\] has 3 rows"),
        (without_units, r"intercepts_\[0\] has 6 values, and coefs_\[0\] has 3 columns"),
        (without_intercepts, r"intercepts_\[0\] has 3 values, and coefs_\[0\] has 6 columns"),
        (without_a_layer, "coefs_ has 1 arrays and intercepts_ has 2"),
        (without_columns, r"coefs_\[1\] has shape \(6,\), and 6 values come in"),
    ],
)
def test_weights_whose_shapes_do_not_belong_together_are_refused(change, message, method, backend):
    net = MLPRegressor(warm_start=True, **SMALL | {"backend": backend}).fit(X, VALUES)
    change(net)
    known = joblib.hash(vars(net))
    with pytest.raises(ValueError, match=message):
        getattr(net, method)(*((X,) if method == "predict" else (X, VALUES)))
    assert joblib.hash(vars(net)) == known


def test_fewer_units_where_all_arrays_agree_are_a_network():
    net = MLPRegressor(**SMALL | {"backend": "numba"}).fit(X, VALUES)
    net.coefs_[0], net.intercepts_[0] = net.coefs_[0][:, :3], net.intercepts_[0][:3]
    net.coefs_[1] = net.coefs_[1][:3]
    expected = np.maximum(X @ net.coefs_[0] + net.intercepts_[0], 0) @ net.coefs_[1] + net.intercepts_[1]
    np.testing.assert_allclose(net.predict(X), expected.ravel(), rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_whole_numbers_for_weights_predict_and_are_not_trained_further(backend):
    net = MLPRegressor(**SMALL | {"backend": backend}).fit(X, VALUES)
    net.coefs_[0] = np.round(10 * net.coefs_[0])
    expected = net.predict(X)
    net.coefs_[0] = net.coefs_[0].astype(np.int64)
    np.testing.assert_array_equal(net.predict(X), expected)
    np.testing.assert_allclose(net.to_network().predict(X), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"hold float64, int64, .*convert each array by \.astype\(float\)"):
        net.partial_fit(X, VALUES)
    net.coefs_[0] = net.coefs_[0].astype(float)
    net.partial_fit(X, VALUES)


@pytest.mark.parametrize("backend", ["numpy", "numba", "auto"])
def test_samples_longer_than_float64_are_predicted(backend):
    net = MLPRegressor(**SMALL | {"backend": backend}).fit(X, VALUES)
    x = X.astype(np.longdouble)
    predicted = net.predict(x)
    assert predicted.dtype == net.to_sklearn().predict(x).dtype == np.longdouble
    np.testing.assert_allclose(predicted, net.predict(X), rtol=1e-12)


class Overrides(MLPRegressor):
    def _backprop(self, *arguments):
        return super()._backprop(*arguments)


@pytest.mark.parametrize(
    ("parameters", "held_out", "missing"),
    [
        ({"activation": "gelu"}, {}, "activation='gelu'"),
        ({"activation": ["relu"], "loss": "gamma"}, {}, r"activation=\['relu'\], loss='gamma'"),
        ({}, {"X_val": X, "y_val": VALUES}, "X_val"),
    ],
    ids=str,
)
def test_what_scikit_learns_own_training_has_not(parameters, held_out, missing):
    with pytest.raises(UnsupportedSpecError, match=f"Overrides overrides _backprop.* has no {missing}"):
        Overrides(**SMALL | parameters).fit(X, np.abs(VALUES) + 1, **held_out)
    Overrides(**SMALL).fit(X, VALUES)
