"""The losses of a regressor that scikit-learn's own has not, against closed forms and its linear models."""

import numpy as np
import pytest
from sklearn.linear_model import GammaRegressor
from sklearn.metrics import mean_absolute_error, mean_gamma_deviance

from fastnet.sklearn import MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BACKENDS = ("numpy", "numba")

_random = np.random.RandomState(0)
X = _random.randn(101, 3)
AMOUNTS = _random.gamma(2.0, np.exp(X @ [0.5, -0.3, 0.1] + 1)[:, None], (101, 2))
SMALL = {"hidden_layer_sizes": (6,), "random_state": 0, "max_iter": 8, "backend": "numpy"}
# A single intercept, and an exact minimum: no hidden layer, no penalty, nothing that stops early.
LINEAR = {"hidden_layer_sizes": (), "alpha": 0, "random_state": 0, "tol": 1e-10}


@pytest.mark.parametrize("backend", BACKENDS)
def test_absolute_error_of_a_constant_is_least_at_the_median(backend):
    y = AMOUNTS[:, 0]
    assert abs(np.median(y) - y.mean()) > 0.5, "the two can be told apart"
    descent = {"solver": "sgd", "momentum": 0, "batch_size": 101, "learning_rate_init": 0.1, "max_iter": 2000}
    net = MLPRegressor(loss="absolute_error", **LINEAR | descent, n_iter_no_change=2000, backend=backend)
    net.fit(np.zeros((101, 1)), y)
    assert net.predict([[0.0]]) == pytest.approx(np.median(y), abs=0.1 / 101)  # of one step past it
    assert net.loss_ == pytest.approx(mean_absolute_error(y, np.full(101, np.median(y))), rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gamma_deviance_of_a_constant_is_least_at_the_mean(backend):
    y = AMOUNTS
    net = MLPRegressor(loss="gamma", solver="lbfgs", **LINEAR, backend=backend).fit(np.zeros((101, 1)), y)
    np.testing.assert_allclose(net.predict([[0.0]])[0], y.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("weight", [None, np.arange(101.0)], ids=["alike", "weighted"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gamma_without_hidden_layers_is_scikit_learns_linear_model(backend, weight):
    y = AMOUNTS[:, 0]
    expected = GammaRegressor(alpha=0, solver="newton-cholesky", tol=1e-10).fit(X, y, sample_weight=weight)
    net = MLPRegressor(loss="gamma", solver="lbfgs", **LINEAR, backend=backend).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(net.coefs_[0][:, 0], expected.coef_, rtol=0, atol=1e-4)  # as near as L-BFGS goes
    np.testing.assert_allclose(net.predict(X), expected.predict(X), rtol=1e-4)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("loss", ["absolute_error", "gamma"])
def test_backends_agree(loss, solver):
    options = SMALL | {"loss": loss, "solver": solver, "batch_size": 20, "learning_rate_init": 0.01}
    expected = MLPRegressor(**options).fit(X, AMOUNTS)
    actual = MLPRegressor(**options | {"backend": "numba"}).fit(X, AMOUNTS)
    np.testing.assert_allclose(actual.loss_curve_, expected.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(actual.predict(X), expected.predict(X), rtol=1e-9)


@pytest.mark.parametrize(
    ("loss", "metric"),
    [
        ("absolute_error", mean_absolute_error),
        ("gamma", lambda y, p: mean_gamma_deviance(y, p) / 2),
    ],
    ids=["absolute_error", "gamma"],
)
def test_losses_are_summed_over_outputs(loss, metric):
    """Held-out losses, and that of training, which is of the weights before the last step."""
    net = MLPRegressor(loss=loss, **SMALL | {"alpha": 0}).fit(X, AMOUNTS, X_val=X, y_val=AMOUNTS)
    predicted = net.predict(X)
    expected = sum(metric(AMOUNTS[:, output], predicted[:, output]) for output in range(2))
    np.testing.assert_allclose(net.validation_loss_curve_[-1], expected, rtol=1e-10)
    np.testing.assert_allclose(net.loss_curve_[1:], net.validation_loss_curve_[:-1], rtol=1e-10)


@pytest.mark.parametrize("value", [0.0, -1.5])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_gamma_needs_amounts_above_zero(method, value):
    y = AMOUNTS.copy()
    y[7, 1] = value
    net = MLPRegressor(loss="gamma", **SMALL)
    with pytest.raises(ValueError, match=f"requires strictly positive y, got {value} at sample 7, output 1"):
        getattr(net, method)(X, y)
    with pytest.raises(ValueError, match=f"requires strictly positive y_val, got {value} at sample 7, output 1"):
        net.fit(X, AMOUNTS, X_val=X, y_val=y)
    MLPRegressor(loss="absolute_error", **SMALL).fit(X, y)
