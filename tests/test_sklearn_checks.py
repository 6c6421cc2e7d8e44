"""scikit-learn's checks of estimators: every one passes, with the settings that scikit-learn's own tests use."""

from __future__ import annotations

from functools import partial
from unittest import SkipTest

import pytest
from sklearn import neural_network
from sklearn.base import clone, is_classifier
from sklearn.utils.estimator_checks import estimator_checks_generator

from fastnet.sklearn import MLPClassifier, MLPRegressor, journal
from fastnet.sklearn.drop_in import DropInClassifier, DropInRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Weights and repetitions come to the same where nothing is drawn that depends on how many samples there are.
EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"
CLASSIFIER_EQUIVALENCE = {"solver": "lbfgs"}
REGRESSOR_EQUIVALENCE = {"solver": "sgd", "tol": 1e-2, "random_state": 42}


def with_checks(*estimators):
    """Parametrize by estimators and checks, as ``parametrize_with_checks`` does: pytest 9 warns of that of 1.6."""
    pairs = [pair for estimator in estimators for pair in estimator_checks_generator(estimator, legacy=True)]
    return pytest.mark.parametrize(("estimator", "check"), pairs, ids=name)


def name(estimator_or_check):
    if not isinstance(estimator_or_check, partial):
        return type(estimator_or_check).__name__
    options = [f"{option}={value}" for option, value in estimator_or_check.keywords.items()]
    return "-".join([estimator_or_check.func.__name__, *options])


@with_checks(MLPClassifier(max_iter=100), MLPRegressor(max_iter=100))
def test_estimators_pass(estimator, check, backend_name, monkeypatch):
    run_check(estimator, check, backend_name, monkeypatch)


@with_checks(DropInClassifier(max_iter=100), DropInRegressor(max_iter=100))
def test_drop_ins_pass(estimator, check, monkeypatch):
    run_check(estimator, check, "numpy", monkeypatch)


def run_check(estimator, check, backend_name, monkeypatch):
    """Run a check with all fits on one backend; it may be skipped where scikit-learn's own class skips it, too."""
    ran_on = set()
    monkeypatch.setattr(journal, "listeners", [lambda entry: ran_on.add(entry.ran_on)])
    monkeypatch.setenv("FASTNET_BACKEND", backend_name)
    if check.func.__name__ == EQUIVALENCE:
        settings = CLASSIFIER_EQUIVALENCE if is_classifier(estimator) else REGRESSOR_EQUIVALENCE
        estimator = clone(estimator).set_params(**settings)
    try:
        check(estimator)
    except SkipTest:
        with pytest.raises(SkipTest):
            check(neural_network.MLPClassifier() if is_classifier(estimator) else neural_network.MLPRegressor())
        raise
    assert ran_on <= {backend_name}
