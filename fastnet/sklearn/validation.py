"""Held-out samples: set aside as scikit-learn does it, and judged after each epoch."""

# Legend: N samples, C outputs.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import _check_sample_weight, validate_data

from fastnet import reference
from fastnet.backends.array_backend import NumpyNamespace
from fastnet.backends.interface import Backend
from fastnet.data import Dataset
from fastnet.parameters import Parameters
from fastnet.spec import NetworkSpec, Task

__all__ = ["HeldOut", "Samples", "check_targets", "outputs_averaged", "set_aside", "validate_given"]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples, targets and weights as scikit-learn validated them.

    Attributes
    ----------
    x : ndarray or sparse matrix (N, D)
    y : ndarray (N, C)
        One column for each output: booleans of a classifier, numbers of a regressor.
    weight : ndarray (N,) or None
    """

    x: Any
    y: NDArray
    weight: NDArray | None = None

    @property
    def n_samples(self) -> int:
        """N."""
        return int(self.x.shape[0])


def set_aside(estimator: Any, samples: Samples) -> tuple[Samples, Samples]:
    """What to train on, and what early stopping judges by, with the random draws that scikit-learn makes.

    Raises
    ------
    ValueError
        Fewer than two samples would be set aside, or all have weight zero, or there are too few of a class.
    """
    stratifies = is_classifier(estimator) and samples.y.shape[1] == 1
    columns = [samples.x, samples.y, *([] if samples.weight is None else [samples.weight])]
    parts = train_test_split(
        *columns,
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=samples.y if stratifies else None,
    )
    training, held_out = Samples(*parts[0::2]), Samples(*parts[1::2])
    if held_out.n_samples < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    _require_weight(held_out)
    return training, held_out


def validate_given(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Samples:
    """Held-out samples that the user passed, checked against those of training.

    Raises
    ------
    ValueError
        X and y do not belong together, or do not go with what the estimator is trained on; or all weights are zero.
    """
    if X is None or y is None:
        given, missing = ("y_val", "X_val") if X is None else ("X_val", "y_val")
        raise ValueError(f"{given} is provided, but {missing} was not provided.")
    X = validate_data(estimator, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
    y = _encode(estimator, y)
    check_consistent_length(X, y)
    if y.shape[1] != estimator.n_outputs_:
        raise ValueError(f"y_val has {y.shape[1]} outputs, y has {estimator.n_outputs_}")
    held_out = Samples(X, y, None if sample_weight is None else _check_sample_weight(sample_weight, X))
    _require_weight(held_out)
    return held_out


def _require_weight(held_out: Samples) -> None:
    """Raise an error, in words that begin like scikit-learn's, where there is nothing to judge by."""
    if held_out.weight is not None and not held_out.weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number: all held-out samples have none.")


def check_targets(estimator: Any, name: str, y: NDArray) -> None:
    """Check that a loss which scikit-learn has not exists for these targets (N, C); with its own, it checks nothing.

    Raises
    ------
    ValueError
        The loss is "gamma", and a value is not above zero.
    """
    if estimator.loss != "gamma":
        return
    bad = y <= 0
    if bad.any():
        sample, output = np.unravel_index(int(np.argmax(bad)), y.shape)
        raise ValueError(
            f"loss='gamma' requires strictly positive {name}, got {y[sample, output]} at sample {sample}, "
            f"output {output}"
        )


def _encode(estimator: Any, y: Any) -> NDArray:
    """One column for each output."""
    if not is_classifier(estimator):
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y_val")
        y = y.reshape(-1, 1) if y.ndim == 1 else y
        check_targets(estimator, "y_val", y)
        return y
    unknown = np.setdiff1d(unique_labels(y), estimator.classes_)
    if len(unknown):
        raise ValueError(f"y_val has classes that y has not: {unknown}")
    return estimator._label_binarizer.transform(y).astype(bool)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Samples to judge a network by, with the backend that predicts them.

    Attributes
    ----------
    network : NetworkSpec
    task : {"multiclass", "multilabel", "regression"}
    dataset : Dataset
    backend : Backend
    has_one_class : bool
        Whether there is but one label that could be predicted, whatever the output.
    """

    network: NetworkSpec
    task: Task
    dataset: Dataset
    backend: Backend
    has_one_class: bool

    def judge(self, parameters: Parameters) -> tuple[float, float]:
        """Loss in nats without penalty, as scikit-learn averages it, and accuracy or R².

        R² is NaN where a prediction is not finite.
        """
        logits = self.backend.predict(self.network.with_identity_output(), parameters, self.dataset.x)
        xp, targets, weight = NumpyNamespace(), self.dataset.targets, self.dataset.sample_weight
        with np.errstate(all="ignore"):
            head = reference.HEAD_FUNCTIONS[self.network.output, self.network.loss]
            losses, _ = head(logits.astype(np.float64), targets, xp=xp)
            outputs = reference.OUTPUT_FUNCTIONS[self.network.output](logits, xp=xp)
            loss = float(np.average(losses, weights=weight)) / outputs_averaged(self.network, self.task)
        return loss, self._score(outputs)

    def _score(self, outputs: NDArray) -> float:
        targets, weight = self.dataset.targets, self.dataset.sample_weight
        if self.task == "regression":
            return float(r2_score(targets, outputs, sample_weight=weight)) if np.isfinite(outputs).all() else np.nan
        if self.task == "multiclass":
            labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
            return float(np.average(outputs.argmax(axis=1) == labels, weights=weight))
        if self.has_one_class:
            return 1.0
        return float(np.average(((outputs > 0.5) == (targets > 0.5)).all(axis=1), weights=weight))


def outputs_averaged(network: NetworkSpec, task: Task) -> int:
    """By how much scikit-learn divides a sample's loss: it takes the mean of squared errors over the outputs.

    Its gradient is that of their sum, as ours is: https://github.com/scikit-learn/scikit-learn/issues/8349.
    """
    return network.n_outputs if task == "regression" and network.loss == "squared_error" else 1
