"""One library's side of what is done with scikit-learn's estimators and with fastnet's, and what it reached."""

# Legend: N samples, D features.

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from processes import run_script
from sklearn.model_selection import GridSearchCV

if TYPE_CHECKING:
    from sklearn_cases import Case

# How far two libraries may be from each other that have learnt the same. In float32 rounding errors grow until they are
# seen: with each pixel of MNIST changed in its last bit, scikit-learn's own loss is off by 2e-4 after five epochs, and
# by 2e-2 after thirty.
LOSS_TOLERANCE = 1e-3
SCORE_TOLERANCE = 0.005
COMPARABLE_EPOCHS = {"float64": None, "float32": 5}

ROWS_PER_BATCH = 1_000
ROWS_TO_LEARN_PREDICTING_FROM = 2_000
OTHERS_BEFORE_ONE = 20  # rows that are predicted before the one that is timed, each by itself
GRID = {
    "hidden_layer_sizes": [(50,), (100,), (50, 50)],
    "alpha": [1e-4, 1e-2],
    "learning_rate_init": [1e-3, 1e-2],
}


@dataclass(frozen=True)
class Outcome:
    """What a library reached.

    Attributes
    ----------
    n_iter : int
        Epochs trained.
    loss_curve : list of float
        Of each epoch, or of each batch of a stream.
    scores : array-like
        Accuracy or R², of each setting of a search; of predictions, the probabilities.
    backend : str or None
        The backend that fastnet trained on.
    """

    n_iter: int
    loss_curve: list[float]
    scores: ArrayLike
    backend: str | None = None

    @classmethod
    def of(cls, estimator: Any, scores: ArrayLike) -> Outcome:
        """What a fitted estimator tells of itself, beside its scores."""
        losses = [float(loss) for loss in estimator.loss_curve_]
        return cls(estimator.n_iter_, losses, scores, getattr(estimator, "backend_", None))

    def differences(self, other: Outcome, n_epochs: int | None = None) -> list[str]:
        """In what the two are not the same, up to the tolerances.

        Losses are compared after the last epoch, or after `n_epochs` if there are more.
        """
        found = []
        if self.n_iter != other.n_iter:
            found.append(f"{self.n_iter} epochs, not {other.n_iter}")
        ours, theirs = self.loss_curve[:n_epochs][-1], other.loss_curve[:n_epochs][-1]
        if not abs(ours - theirs) <= LOSS_TOLERANCE * abs(theirs):
            found.append(f"a loss of {ours:.6g}, not {theirs:.6g}")
        distance = np.abs(np.subtract(self.scores, other.scores)).max()
        if not distance <= SCORE_TOLERANCE:
            found.append(f"scores that differ by {distance:.2g}")
        return found


class Side:
    """One library's side of a case: what `fastnet.benchmarking.time_alternately` takes, and what came of it.

    Parameters
    ----------
    case : Case
    module : str
        Where the estimator is imported from.
    x, y : ndarray (N, D), (N,)
    """

    def __init__(self, case: Case, module: str, x: NDArray, y: NDArray) -> None:
        self.case, self.module, self.x, self.y = case, module, x, y

    def make(self, **parameters: Any) -> Any:
        """Return a new estimator."""
        estimator = getattr(import_module(self.module), self.case.estimator)
        return estimator(**self.case.parameters | parameters)

    def warm_up(self) -> None:
        """Do it once, so that no round has to load anything."""
        self.reset()
        self.run()

    def reset(self) -> None:
        """Go back to the start. Not timed."""
        self.estimator = self.make()

    def run(self) -> None:
        """Do it. Timed."""
        raise NotImplementedError

    def outcome(self) -> Outcome:
        """What the latest run reached."""
        return Outcome.of(self.estimator, self.estimator.score(self.x, self.y))


class Fit(Side):
    """``fit``."""

    def run(self) -> None:
        """See :meth:`Side.run`."""
        self.estimator.fit(self.x, self.y)


class Stream(Side):
    """``partial_fit`` of batch after batch, each seen once."""

    def reset(self) -> None:
        """See :meth:`Side.reset`."""
        super().reset()
        self.classes = np.unique(self.y)

    def run(self) -> None:
        """See :meth:`Side.run`."""
        for start in range(0, len(self.x), ROWS_PER_BATCH):
            batch = slice(start, start + ROWS_PER_BATCH)
            self.estimator.partial_fit(self.x[batch], self.y[batch], classes=self.classes)


class GridSearch(Side):
    """A search for the best of some settings by cross-validation; every setting's score counts."""

    def run(self) -> None:
        """See :meth:`Side.run`."""
        self.search = GridSearchCV(self.estimator, GRID, cv=3).fit(self.x, self.y)

    def outcome(self) -> Outcome:
        """See :meth:`Side.outcome`."""
        return Outcome.of(self.search.best_estimator_, self.search.cv_results_["mean_test_score"])


class Prediction(Side):
    """``predict_proba`` of all rows, by an estimator that has been trained on the first ones."""

    rows = slice(None)

    def __init__(self, case: Case, module: str, x: NDArray, y: NDArray) -> None:
        super().__init__(case, module, x[self.rows], y[self.rows])
        seen = slice(ROWS_TO_LEARN_PREDICTING_FROM)
        self.estimator = self.make().fit(x[seen], y[seen])

    def reset(self) -> None:
        """Nothing: the estimator stays as it is."""

    def run(self) -> None:
        """See :meth:`Side.run`."""
        self.probabilities = self.estimator.predict_proba(self.x)

    def outcome(self) -> Outcome:
        """See :meth:`Side.outcome`."""
        return replace(Outcome.of(self.estimator, self.probabilities), backend=None)  # that is the fit's


class RowPrediction(Prediction):
    """``predict_proba`` of a single row, by a program that has just predicted others."""

    rows = slice(1)

    def reset(self) -> None:
        """Predict the others."""
        for _ in range(OTHERS_BEFORE_ONE):
            self.estimator.predict_proba(self.x)


class Process(Side):
    """A whole process: imports, data, fit and score."""

    def reset(self) -> None:
        """Nothing: every process is new."""

    def run(self) -> None:
        """See :meth:`Side.run`."""
        self.printed = run_script("fit_digits.py", self.module, json.dumps(self.case.parameters))

    def outcome(self) -> Outcome:
        """See :meth:`Side.outcome`."""
        return Outcome(**json.loads(self.printed))
