"""scikit-learn's callbacks, which its own multilayer perceptrons do not call yet."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastnet.sklearn import MLPClassifier, MLPRegressor
from fastnet.sklearn.drop_in import DropInClassifier

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks since 1.9")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.RandomState(0).randn(60, 4)
LABELS = (X[:, 0] > 0).astype(int)
SMALL = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 6, "backend": "numpy"}


class Recorder:
    """Writes down what it is told; asks to stop at the end of one epoch."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.told, self.scores = [], []

    def setup(self, estimator, context):
        self.told.append("setup")

    def teardown(self, estimator, context):
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.told.append(f"end {context.task_name} {context.task_id}")
        self.scores.append(fitted_estimator.score(X, y))
        return context.task_name == "epoch" and context.task_id == self.stop_at


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_epochs_are_told_in_order(solver):
    recorder = Recorder()
    net = MLPClassifier(solver=solver, **SMALL).set_callbacks(recorder).fit(X, LABELS)
    epochs = [f"{what} epoch {i}" for i in range(net.n_iter_) for what in ("begin", "end")]
    assert recorder.told[:2] == ["setup", "begin fit 0"]
    assert recorder.told[2 : 2 + len(epochs)] == epochs
    assert recorder.told[-2:] == ["end fit 0", "teardown"]
    assert recorder.told.count("begin epoch 6") == recorder.told.count("end epoch 6")
    assert recorder.scores[-1] == net.score(X, LABELS)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_estimators_that_callbacks_see_are_those_of_the_epoch(kind):
    """Scores in passing are those of fits that end there."""
    recorder = Recorder()
    kind(**SMALL).set_callbacks(recorder).fit(X, LABELS)
    ends = [kind(**SMALL | {"max_iter": n}).fit(X, LABELS).score(X, LABELS) for n in range(1, 7)]
    np.testing.assert_array_equal(recorder.scores[:6], ends)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_a_callback_can_stop_training(solver):
    net = MLPClassifier(solver=solver, **SMALL).set_callbacks(Recorder(stop_at=2)).fit(X, LABELS)
    assert net.n_iter_ == 3
    expected = MLPClassifier(solver=solver, **SMALL | {"max_iter": 3}).fit(X, LABELS)
    np.testing.assert_array_equal(net.coefs_[0], expected.coefs_[0])


def test_callbacks_are_torn_down_after_an_error():
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier(**SMALL).set_callbacks(recorder).fit(X * np.nan, LABELS)
    assert recorder.told[-1] == "teardown"


def test_drop_in_classes_have_callbacks_too():
    recorder = Recorder()
    DropInClassifier(max_iter=2, random_state=0).set_callbacks(recorder).fit(X, LABELS)
    assert recorder.told[-1] == "teardown"
    assert "end epoch 1" in recorder.told


def test_partial_fit_tells_nobody():
    recorder = Recorder()
    MLPClassifier(**SMALL).set_callbacks(recorder).partial_fit(X, LABELS, classes=[0, 1])
    assert recorder.told == []


def test_progress_bars_of_nested_estimators(capsys):
    nets = [MLPClassifier(**SMALL) for _ in range(3)]
    search, pipeline = GridSearchCV(nets[1], {"alpha": [0.1]}, cv=2), make_pipeline(StandardScaler(), nets[2])
    for estimator in (nets[0], search, pipeline):
        estimator.set_callbacks(callback.ProgressBar()).fit(X, LABELS)
        printed = capsys.readouterr().out
        assert "MLPClassifier - fit" in printed
        assert printed.count("100%") == len(printed.strip().splitlines())


def test_scores_are_monitored():
    monitor = callback.ScoringMonitor(scoring="accuracy")
    net = MLPClassifier(**SMALL).set_callbacks(monitor).fit(X, LABELS)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == net.n_iter_
    assert scores[-1] == net.score(X, LABELS)
