"""From estimators to networks and to scikit-learn's own, and back: the same predictions, and training goes on."""

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.exceptions import NotFittedError
from sklearn.neural_network._base import ACTIVATIONS as SCIKIT_LEARN_ACTIVATIONS

from fastnet import SGD, Network
from fastnet.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

_random = np.random.RandomState(0)
X = _random.randn(80, 4)
TARGETS = {
    "two-classes": np.where(X[:, 0] > 0, 7, -7),
    "three-classes": np.choose(np.arange(80) % 3, ["a", "b", "c"]),
    "multilabel": (X[:, :3] > 0).astype(int),
    "value": X[:, 0],
    "values": X[:, :2] ** 2,
}
SMALL = {"hidden_layer_sizes": (6, 5), "random_state": 0, "max_iter": 10, "backend": "numpy"}


needs_exp = pytest.mark.skipif(
    "exp" not in SCIKIT_LEARN_ACTIVATIONS, reason="scikit-learn has exponential outputs since 1.7"
)


def fitted(kind, **options):
    estimator = MLPRegressor if kind.startswith("value") else MLPClassifier
    return estimator(**SMALL | options).fit(X, TARGETS[kind])


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("activation", ["relu", ("tanh", "gelu")], ids=str)
def test_to_a_network_and_back(kind, activation, tmp_path):
    estimator = fitted(kind, activation=activation)
    network = estimator.to_network()
    network.save(tmp_path / "net.safetensors")
    for net in (network, Network.load(tmp_path / "net.safetensors", backend="numpy")):
        np.testing.assert_array_equal(net.predict(X), estimator.predict(X))
        if not kind.startswith("value"):
            np.testing.assert_allclose(net.predict_proba(X), estimator.predict_proba(X), rtol=1e-12)
    back = type(estimator).from_network(network, backend="numpy")
    np.testing.assert_array_equal(back.predict(X), estimator.predict(X))
    assert back.hidden_layer_sizes == (6, 5)
    assert back.alpha == estimator.alpha
    assert back.activation == (activation if isinstance(activation, str) else list(activation))
    back.set_params(warm_start=True, max_iter=3).fit(X, TARGETS[kind])
    assert back.n_iter_ == 3


@pytest.mark.parametrize("kind", TARGETS)
def test_a_network_is_trained_on_alike(kind):
    """One full batch of plain gradient descent, by the estimator and by the network it becomes."""
    estimator = fitted(kind, solver="sgd", momentum=0.0, batch_size=80, learning_rate_init=0.1, alpha=0.5)
    network = estimator.to_network()
    network.fit(X, TARGETS[kind], optimizer=SGD(0.1), n_steps=1)
    estimator.partial_fit(X, TARGETS[kind])
    for ours, theirs in zip(network.weights, estimator.coefs_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_network_of_pixels_and_without_biases():
    """The scale of inputs goes into the first weights; two softmax outputs become one logistic one."""
    x = (np.abs(X) * 60).clip(0, 255).astype("uint8")
    y = TARGETS["three-classes"][:80]
    two = np.where(y == "a", "a", "b")
    options = {"input_scale": 1 / 255, "bias": False, "backend": "numpy", "seed": 0, "dtype": "float64"}
    for labels, n_outputs in ((y, 3), (two, 2)):
        network = Network([4, 5, n_outputs], **options)
        network.fit(x, labels, n_steps=5)
        estimator = MLPClassifier.from_network(network)
        np.testing.assert_allclose(estimator.predict_proba(x), network.predict_proba(x), rtol=1e-10)
        np.testing.assert_array_equal(estimator.predict(x), network.predict(x))
        assert estimator.n_outputs_ == (1 if n_outputs == 2 else 3)


@pytest.mark.parametrize(
    ("estimator", "network", "message"),
    [
        (MLPRegressor, Network([4, 3]), "MLPRegressor has no equivalent of a network for multiclass"),
        (MLPClassifier, Network([4, 1], output="identity"), "MLPClassifier has no equivalent"),
        (MLPRegressor, Network([4, 1], output="exp", loss="squared_error"), "no equivalent .* loss 'squared_error'"),
        (MLPClassifier, Network([4, 3], l2=0.1), "pass alpha, which is l2 times batch size"),
    ],
    ids=str,
)
def test_networks_that_are_none_of_ours_are_refused(estimator, network, message):
    with pytest.raises(ValueError, match=message):
        estimator.from_network(network)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_to_scikit_learn_and_back(kind, solver):
    estimator = fitted(kind, solver=solver)
    theirs = estimator.to_sklearn()
    assert type(theirs).__module__ == "sklearn.neural_network._multilayer_perceptron"
    np.testing.assert_allclose(theirs.predict(X), estimator.predict(X), rtol=1e-12) if kind.startswith(
        "value"
    ) else np.testing.assert_array_equal(theirs.predict(X), estimator.predict(X))
    back = type(estimator).from_sklearn(theirs, backend="numpy")
    assert back.backend == "numpy"
    if solver != "lbfgs":  # both go on from the optimizer's state
        back.partial_fit(X, TARGETS[kind]), theirs.partial_fit(X, TARGETS[kind])
        for ours, expected in zip(back.coefs_, theirs.coefs_, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        ("squared_error", "squared_error"),
        ("absolute_error", "squared_error"),
        pytest.param("poisson", "poisson", marks=needs_exp),
        pytest.param("gamma", "poisson", marks=needs_exp),
    ],
)
def test_losses_of_a_regressor(loss, theirs):
    """A network has them all; scikit-learn has one with the same outputs."""
    y = np.exp(TARGETS["values"])
    estimator = MLPRegressor(loss=loss, **SMALL).fit(X, y)
    network = estimator.to_network()
    assert network.spec.loss == loss
    np.testing.assert_array_equal(network.predict(X), estimator.predict(X))
    back = MLPRegressor.from_network(network, backend="numpy")
    assert back.loss == loss
    np.testing.assert_array_equal(back.predict(X), estimator.predict(X))
    converted = estimator.to_sklearn()
    assert converted.loss == theirs
    np.testing.assert_allclose(converted.predict(X), estimator.predict(X), rtol=1e-12)
    converted.partial_fit(X, y)  # and training goes on


def test_a_network_knows_the_columns_of_a_frame():
    """And `fastnet predict` finds them by their names."""
    pandas = pytest.importorskip("pandas")
    estimator = MLPRegressor(**SMALL).fit(pandas.DataFrame(X, columns=list("abcd")), TARGETS["value"])
    assert estimator.to_network().feature_names == ("a", "b", "c", "d")
    assert fitted("value").to_network().feature_names == ()


def test_parameters_survive_without_weights():
    theirs = MLPClassifier(alpha=0.5, solver="sgd", backend="numba").to_sklearn()
    assert theirs.get_params() == neural_network.MLPClassifier(alpha=0.5, solver="sgd").get_params()
    assert MLPClassifier.from_sklearn(theirs).get_params()["alpha"] == 0.5
    with pytest.raises(NotFittedError):
        MLPClassifier().to_network()


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_exponential_outputs_do_without_those_of_scikit_learn(loss, monkeypatch):
    """Which has none before 1.7."""
    monkeypatch.delitem(SCIKIT_LEARN_ACTIVATIONS, "exp", raising=False)
    y = np.exp(TARGETS["value"])
    estimator = MLPRegressor(loss=loss, **SMALL | {"backend": "auto"}).fit(X, y)
    assert (estimator.predict(X) > 0).all()
    with pytest.raises(ValueError, match=f"loss='{loss}' needs exponential outputs"):
        estimator.to_sklearn()


def test_what_scikit_learn_has_not_is_refused():
    with pytest.raises(ValueError, match="no activation 'gelu'"):
        MLPClassifier(activation="gelu").to_sklearn()
    with pytest.raises(ValueError, match="MLPClassifier cannot be made from a MLPRegressor"):
        MLPClassifier.from_sklearn(neural_network.MLPRegressor())
