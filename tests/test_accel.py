"""The accelerator within one process: what is replaced, what stays as it was, and what is told."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import inspect
import logging
import os
import pickle
import sys
import warnings

import joblib
import numpy as np
import pytest
import sklearn
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import _multilayer_perceptron
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastnet.sklearn
import fastnet_accel
from fastnet import accel
from fastnet.accel import report
from fastnet.accel.report import Told
from fastnet.accel.summary import print_summary
from fastnet.errors import MissingPackageError, UnsupportedSpecError
from fastnet.sklearn import journal

NAMES = ("MLPClassifier", "MLPRegressor")
ORIGINALS = {name: getattr(neural_network, name) for name in NAMES}
SETTINGS = {"hidden_layer_sizes": (5,), "max_iter": 3, "tol": 0.0, "random_state": 0}

X, y = load_iris(return_X_y=True)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """No test leaves the accelerator on."""
    for name in ("FASTNET_ACCEL", "FASTNET_ACCEL_STRICT", report.REPORT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(report, "_reasons_told", set())
    yield
    accel.uninstall()
    assert {name: getattr(neural_network, name) for name in NAMES} == ORIGINALS


@pytest.fixture
def installed():
    accel.install()


def fitted(name, **settings):
    return getattr(neural_network, name)(**SETTINGS | settings).fit(X, y)


class Overriding:
    """Of an estimator that has code of its own called in training."""

    n_calls = 0

    def _backprop(self, *arguments):
        self.n_calls += 1
        return super()._backprop(*arguments)


def make_overriding(**settings):
    return type("Overriding", (Overriding, neural_network.MLPClassifier), {})(**SETTINGS | settings)


# Turning it on and off


@pytest.mark.parametrize("name", NAMES)
def test_both_names_are_replaced_and_put_back(name):
    accel.install()
    ours = getattr(neural_network, name)
    assert ours is not ORIGINALS[name]
    assert issubclass(ours, ORIGINALS[name])
    assert getattr(_multilayer_perceptron, name) is ours
    accel.uninstall()
    assert getattr(neural_network, name) is ORIGINALS[name]
    assert getattr(_multilayer_perceptron, name) is ORIGINALS[name]


@pytest.mark.parametrize("before", [None, "0", "yes"])
def test_uninstall_leaves_nothing_behind(before, monkeypatch):
    if before is not None:
        monkeypatch.setenv("FASTNET_ACCEL", before)
    finders, listeners = list(sys.meta_path), list(journal.listeners)
    accel.install()
    assert accel.is_installed()
    assert os.environ["FASTNET_ACCEL"] == "1"
    accel.uninstall()
    assert not accel.is_installed()
    assert os.environ.get("FASTNET_ACCEL") == before
    assert sys.meta_path == finders
    assert journal.listeners == listeners
    assert not set(ORIGINALS.values()) & set(copyreg.dispatch_table)


def test_once_is_as_good_as_twice():
    accel.uninstall()
    accel.install()
    ours = neural_network.MLPClassifier
    accel.install()
    assert neural_network.MLPClassifier is ours
    assert len([each for each in journal.listeners if each is report.tell]) == 1
    accel.uninstall()
    assert neural_network.MLPClassifier is ORIGINALS["MLPClassifier"]
    accel.install()
    assert neural_network.MLPClassifier is ours, "or estimators of the first time would be of another class"


def test_names_that_were_imported_before_are_told(caplog):
    accel.install()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("fastnet", logging.WARNING)
    assert "not replaced" in record.message


def test_ipython_extension():
    accel.load_ipython_extension(object())
    assert accel.is_installed()
    accel.unload_ipython_extension(object())
    assert not accel.is_installed()


def test_too_old_scikit_learn_is_refused(monkeypatch):
    monkeypatch.setattr(sklearn, "__version__", "1.5.2")
    with pytest.raises(MissingPackageError, match=r"1\.5\.2 is too old"):
        accel.install()
    assert not accel.is_installed()


def test_newer_scikit_learn_is_told_and_accelerated(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="fastnet")
    monkeypatch.setattr(sklearn, "__version__", "1.10.dev0")
    accel.install()
    assert [record.levelno for record in caplog.records if "1.10.dev0" in record.message] == [logging.INFO]
    assert neural_network.MLPClassifier is not ORIGINALS["MLPClassifier"]


# Scikit-learn's face


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("installed")
def test_the_class_looks_like_the_original(name):
    ours, original = getattr(neural_network, name), ORIGINALS[name]
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(ours, attribute) == getattr(original, attribute)
    assert inspect.signature(ours) == inspect.signature(original)
    for method in ("fit", "partial_fit", "score", "set_score_request"):
        ours_takes, original_takes = (inspect.signature(getattr(cls, method)).parameters for cls in (ours, original))
        assert list(ours_takes) == list(original_takes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("installed")
def test_estimators_look_like_the_original(name):
    ours, original = (cls(**SETTINGS, alpha=0.5) for cls in (getattr(neural_network, name), ORIGINALS[name]))
    assert repr(ours) == repr(original)
    assert ours.get_params() == original.get_params()
    assert ours._repr_html_().count(name) == original._repr_html_().count(name)
    copied = clone(ours)
    assert type(copied) is type(ours)
    assert copied.get_params() == ours.get_params()
    messages = []
    for estimator in (ours, original):
        with pytest.raises(NotFittedError) as unfitted:
            estimator.predict(X)
        with pytest.raises(ValueError, match="alpha") as bad:
            estimator.set_params(alpha=-1.0).fit(X, y)
        messages.append((str(unfitted.value), str(bad.value)))
    assert messages[0] == messages[1]


def test_instances_of_both_classes_are_instances_of_the_name():
    older = neural_network.MLPClassifier()
    own = fastnet.sklearn.MLPClassifier()
    accel.install()
    newer = neural_network.MLPClassifier()
    for each in (older, own, newer, make_overriding()):
        assert isinstance(each, neural_network.MLPClassifier)
        assert isinstance(each, ORIGINALS["MLPClassifier"])
    for other in (GaussianNB(), neural_network.MLPRegressor(), None):
        assert not isinstance(other, neural_network.MLPClassifier)
    assert not isinstance(older, type(make_overriding())), "a user's subclass is itself alone"
    accel.uninstall()
    assert isinstance(newer, neural_network.MLPClassifier)


# Pickles


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickles_change_class_with_the_accelerator(name, protocol):
    plain = fitted(name)
    accel.install()
    ours = fitted(name)
    as_ours = [pickle.loads(pickle.dumps(estimator, protocol)) for estimator in (plain, ours)]
    assert [type(each) for each in as_ours] == [getattr(neural_network, name)] * 2
    accel.uninstall()
    as_plain = [pickle.loads(pickle.dumps(estimator, protocol)) for estimator in (plain, ours, *as_ours)]
    assert {type(each) for each in as_plain} == {ORIGINALS[name]}
    for loaded in as_ours + as_plain:
        assert loaded.get_params() == plain.get_params()
        np.testing.assert_allclose(loaded.predict(X), plain.predict(X), rtol=1e-9)
    for loaded, dumped in zip(as_plain, (plain, ours, plain, ours), strict=True):
        assert vars(loaded).keys() == vars(dumped).keys()


def test_estimators_of_the_original_class_are_copied_dumped_and_go_on_training(tmp_path):
    older = fitted("MLPClassifier", warm_start=True)
    expected = copy.deepcopy(older).fit(X, y).coefs_
    accel.install()
    joblib.dump(older, tmp_path / "older")
    for each in (copy.deepcopy(older), joblib.load(tmp_path / "older")):
        for ours, theirs in zip(each.fit(X, y).coefs_, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


# Scikit-learn's machinery


def scores(backend):
    """Scores of a pipeline, in a search and in cross-validation, in threads."""
    pipeline = make_pipeline(StandardScaler(), neural_network.MLPClassifier(**SETTINGS, learning_rate_init=0.1))
    with joblib.parallel_config(backend, n_jobs=2):
        search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 10.0]}, cv=3).fit(X, y)
        folds = cross_val_score(search.best_estimator_, X, y, cv=3)
    return [*search.cv_results_["mean_test_score"], *folds]


def test_search_and_cross_validation_in_threads():
    plain, entries = scores("threading"), []
    accel.install()
    journal.listeners.append(entries.append)
    try:
        np.testing.assert_allclose(scores("threading"), plain, rtol=0, atol=1e-6)
    finally:
        journal.listeners.remove(entries.append)
    assert len(entries) == 2 * 3 + 1 + 3


# What is told


@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"batch_size": 1000}], ids=str)
@pytest.mark.usefixtures("installed")
def test_filters_of_scikit_learns_warnings_still_match(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="sklearn")
        for name in NAMES:
            fitted(name, **settings)


@pytest.mark.usefixtures("installed")
def test_a_fit_logs_one_line(caplog):
    caplog.set_level(logging.INFO, logger="fastnet")
    fitted("MLPRegressor")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.message.startswith("MLPRegressor.fit: ran on ")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.usefixtures("installed")
def test_a_fallback_runs_scikit_learns_code_with_the_users(solver):
    plain = ORIGINALS["MLPClassifier"](**SETTINGS, solver=solver).fit(X, y)
    fallen_back = make_overriding(solver=solver).fit(X, y)
    assert fallen_back.n_calls >= SETTINGS["max_iter"]
    for ours, theirs in zip(fallen_back.coefs_, plain.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("installed")
def test_a_fallback_is_warned_of_once_for_each_reason(caplog):
    caplog.clear()
    make_overriding().fit(X, y)
    make_overriding().fit(X, y)
    make_overriding().partial_fit(X, y, classes=[0, 1, 2])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Overriding overrides _backprop" in record.message
    own_draw = ORIGINALS["MLPClassifier"]._init_coef
    drawing = type("Drawing", (neural_network.MLPClassifier,), {"_init_coef": own_draw})
    drawing(**SETTINGS).fit(X, y)
    assert "Drawing overrides _init_coef" in caplog.records[-1].message
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("installed")
def test_strict_refuses_to_fall_back(monkeypatch):
    monkeypatch.setenv("FASTNET_ACCEL_STRICT", "1")
    estimator = make_overriding()
    with pytest.raises(UnsupportedSpecError, match=r"Overriding\.fit cannot be accelerated: .*_backprop"):
        estimator.fit(X, y)
    assert not hasattr(estimator, "coefs_")
    fitted("MLPClassifier")


def test_everything_is_told_where_it_is_asked_for(monkeypatch, tmp_path, capfd, caplog):
    path = tmp_path / "report"
    path.touch()
    monkeypatch.setenv(report.REPORT, str(path))
    accel.install()
    caplog.clear()
    fitted("MLPClassifier")
    make_overriding().fit(X, y)
    printed = capfd.readouterr().err.splitlines()
    assert len(printed) == 2
    assert all(line.startswith("[fastnet.accel] ") for line in printed)
    assert not caplog.records, "told in print already"
    told = report.read(path)
    assert [each.process for each in told] == [os.getpid()] * 2
    assert [str(each.entry) for each in told] == [line.removeprefix("[fastnet.accel] ") for line in printed]


@pytest.mark.usefixtures("installed")
def test_a_report_that_is_gone_does_not_stop_training(monkeypatch, tmp_path):
    monkeypatch.setenv(report.REPORT, str(tmp_path / "gone"))
    assert fitted("MLPClassifier").n_iter_ == SETTINGS["max_iter"]
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_wrong_with_fastnet_is_told_and_under_strict_an_error(monkeypatch, caplog, strict):
    monkeypatch.setenv("FASTNET_ACCEL_STRICT", str(int(strict)))
    monkeypatch.setitem(sys.modules, "fastnet.accel.replacement", None)  # its import fails
    with pytest.raises(ImportError) if strict else contextlib.nullcontext():
        fastnet_accel._replace()
    assert [record.levelno for record in caplog.records] == ([] if strict else [logging.WARNING])


def test_summary(capfd):
    def told(process, method, ran_on, reason, seconds):
        return Told(journal.Entry("MLPClassifier", method, ran_on, reason, "", seconds), process)

    print_summary(
        [
            told(1, "fit", "numba", "", 1.25),
            told(2, "fit", "numba", "", 0.5),
            told(2, "fit", "numpy", "", 0.125),
            told(2, "partial_fit", "scikit-learn", "it overrides [_backprop]", 0.375),
        ]
    )
    lines = [line.split() for line in capfd.readouterr().err.splitlines()]
    assert lines[1:4] == [
        ["MLPClassifier.fit", "numba", "2", "1.75"],
        ["MLPClassifier.fit", "numpy", "1", "0.12"],
        ["MLPClassifier.partial_fit", "scikit-learn", "1", "0.38"],
    ]
    text = " ".join(" ".join(line) for line in lines[4:])
    assert "MLPClassifier.partial_fit fell back" in text
    assert "(1 call): it overrides [_backprop]" in text
    assert "over 2 processes" in text
