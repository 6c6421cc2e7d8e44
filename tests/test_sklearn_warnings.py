"""Warnings come from scikit-learn's module, as its own do, and are shown as often as Python's rules say."""

import linecache
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import _multilayer_perceptron

from fastnet.sklearn import MLPClassifier, MLPRegressor
from fastnet.sklearn.stochastic import _EpochLoop
from fastnet.sklearn.warning import check_optimize_result, warn

X = np.random.RandomState(0).randn(60, 3)
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0, "backend": "numpy"}
NOT_CONVERGED = SimpleNamespace(status=1, message="limit", nit=7)


def interrupt(self):
    raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"batch_size": 100, "tol": 1e9}, None], ids=str)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_filters_by_module_match(kind, options, monkeypatch):
    if options is None:
        monkeypatch.setattr(_EpochLoop, "run_epoch", interrupt)
    net = kind(**SMALL | (options or {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"sklearn\.neural_network\._multilayer_perceptron$")
        net.fit(X, X[:, 0] > 0)
    with pytest.warns((ConvergenceWarning, UserWarning)) as told:
        net.fit(X, X[:, 0] > 0)
    assert {each.filename for each in told} == {_multilayer_perceptron.__file__}


@pytest.mark.parametrize("action", ["default", "module"])
@pytest.mark.parametrize(
    ("cause", "place"),
    [
        (lambda: warn("Stop."), "def _fit_stochastic("),
        (lambda: check_optimize_result(NOT_CONVERGED, 9), "def _fit_lbfgs("),
    ],
    ids=["epochs", "lbfgs"],
)
def test_the_same_warning_is_shown_once(cause, place, action):
    """A fit shows it again, as scikit-learn's own does: checking data makes Python forget what it has shown."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter(action)
        cause()
        cause()
    (shown,) = told
    assert place in linecache.getline(shown.filename, shown.lineno), "with the code in whose place it stands"


@pytest.mark.parametrize(("n_iter", "limit"), [(3, 9), (9, 9), (10, 9)])
def test_iterations_of_lbfgs(n_iter, limit):
    assert check_optimize_result(SimpleNamespace(status=0, message="", nit=n_iter), limit) == min(n_iter, limit)
