"""What is done with scikit-learn's estimators and with fastnet's: the cases, by name."""

# Legend: N samples, D features.

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_friedman1
from sklearn_sides import (
    ROWS_PER_BATCH,
    ROWS_TO_LEARN_PREDICTING_FROM,
    Fit,
    GridSearch,
    Prediction,
    Process,
    RowPrediction,
    Side,
    Stream,
)

from fastnet.benchmarking.peers import AbsentError
from fastnet.workloads.samples import DataPath, read_mnist, read_tabular

# Library -> the module that a script imports its estimators from.
LIBRARIES = {"fastnet": "fastnet.sklearn", "scikit-learn": "sklearn.neural_network"}

DEFAULT_MAX_ITER = 200

# Number of samples, folder of MNIST's files -> X (N, D), y (N,).
Read = Callable[[int, DataPath | None], tuple[NDArray, NDArray]]


def read_digits(n_samples: int, _: DataPath | None) -> tuple[NDArray, NDArray]:
    """scikit-learn's bundled digits, 8 by 8 pixels."""
    x, y = load_digits(return_X_y=True)
    return x[:n_samples], y[:n_samples]


def read_images(n_samples: int, data: DataPath | None) -> tuple[NDArray, NDArray]:
    """The first training images of MNIST, as users pass them: floats between 0 and 1."""
    if data is None and not os.environ.get("FASTNET_DATA"):
        raise AbsentError("MNIST is missing: name the folder of its files with --data or FASTNET_DATA")
    x, y, _ = read_mnist(n_samples, data)
    return x / 255.0, y


def read_table(n_samples: int, data: DataPath | None) -> tuple[NDArray, NDArray]:
    """The table of the workload tabular-adam; which of its two values is larger is to be told."""
    x, values, _ = read_tabular(n_samples, data)
    return x, values.argmax(axis=1)


def read_friedman(n_samples: int, _: DataPath | None) -> tuple[NDArray, NDArray]:
    """Friedman's first regression problem, with noise, and three features that tell nothing."""
    return make_friedman1(n_samples, n_features=8, noise=1.0, random_state=0)


@dataclass(frozen=True)
class Case:
    """Something to do with both libraries' estimators, by their defaults and one ``random_state``.

    Attributes
    ----------
    name, task : str
        What to call it on the command line, and in a table.
    side : type of Side
    read : callable
    n_samples : int
    rounds : int
    max_iter : int
        Where scikit-learn would take minutes with its default, it is less.
    estimator : str
    dtype : str
        Of X.
    """

    name: str
    task: str
    side: type[Side]
    read: Read
    n_samples: int
    rounds: int = 5
    max_iter: int = DEFAULT_MAX_ITER
    estimator: str = "MLPClassifier"
    dtype: str = "float64"

    @property
    def parameters(self) -> dict[str, Any]:
        """What is passed to the constructor."""
        capped = {} if self.max_iter == DEFAULT_MAX_ITER else {"max_iter": self.max_iter}
        return {"random_state": 0} | capped

    @property
    def title(self) -> str:
        """The task, and the parameters that have been changed for it to end sooner."""
        return self.task if self.max_iter == DEFAULT_MAX_ITER else f"{self.task}, max_iter={self.max_iter}"

    def scaled(self, scale: float) -> Case:
        """The same with `scale` times the samples, epochs and rounds, each at least as many as still make sense."""
        return replace(
            self,
            n_samples=max(round(scale * self.n_samples), min(ROWS_TO_LEARN_PREDICTING_FROM, self.n_samples)),
            max_iter=max(round(scale * self.max_iter), 2),
            rounds=max(round(scale * self.rounds), 1),
        )

    def open(self, data: DataPath | None) -> dict[str, Side]:
        """Each library's side, on the same samples; `data` is the folder of MNIST's files.

        Raises
        ------
        AbsentError
            The samples are not at hand.
        """
        x, y = self.read(self.n_samples, data)
        x = x.astype(self.dtype, copy=False)
        return {library: self.side(self, module, x, y) for library, module in LIBRARIES.items()}


def _in_float32(case: Case) -> Case:
    return replace(case, name=f"{case.name}-float32", dtype="float32")


_MNIST = Case("mnist", "`MLPClassifier` on MNIST", Fit, read_images, 42_000, max_iter=25)
_TABULAR = Case("tabular", "`MLPClassifier` on a table", Fit, read_table, 100_000, max_iter=80)

CASES = [
    Case("digits", "`MLPClassifier` on digits", Fit, read_digits, 1_797, rounds=20),
    _MNIST,
    _in_float32(_MNIST),
    _TABULAR,
    _in_float32(_TABULAR),
    Case("regressor", "`MLPRegressor`", Fit, read_friedman, 20_000, estimator="MLPRegressor"),
    Case("search", "`GridSearchCV`, 12 settings, 3 folds", GridSearch, read_digits, 1_797, rounds=10, max_iter=20),
    Case("stream", f"`partial_fit` by {ROWS_PER_BATCH:,} rows", Stream, read_table, 300_000, rounds=10),
    Case("predict-many", "`predict_proba`", Prediction, read_table, 1_000_000, rounds=10, max_iter=5),
    Case("predict-one", "`predict_proba` of one row", RowPrediction, read_table, 2_000, rounds=50, max_iter=5),
    Case("process", "a whole process: imports, digits, first fit", Process, read_digits, 1_797),
]
