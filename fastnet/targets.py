"""Targets as users have them, and as losses take them."""

# Legend: N samples, C outputs, K classes.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.arrays import numeric, on_host, require_finite
from fastnet.errors import DataError
from fastnet.spec import NetworkSpec, Task

__all__ = ["TargetCoding", "as_targets"]


@dataclass(frozen=True, slots=True, eq=False)
class TargetCoding:
    """How a user's targets become numbers, and numbers become predictions again.

    Attributes
    ----------
    task : {"multiclass", "multilabel", "regression"}
    classes : ndarray (K,) or None
        Labels in the order of the outputs; two of them for a binary problem with one output. None for regression and
        for multilabel indicators.
    """

    task: Task
    classes: NDArray | None = None

    @classmethod
    def infer(cls, network: NetworkSpec, y: ArrayLike) -> TargetCoding:
        """Coding for the targets `y`, seen for the first time.

        Integer labels must already be the indices of the outputs; strings are sorted and numbered. A sigmoid with
        squared error takes integers, booleans and strings for labels, floats for values.

        Raises
        ------
        DataError
            `y` holds more classes than the network has outputs.
        """
        values = as_targets(y)
        if network.output in ("identity", "exp"):
            return cls("regression")
        if (network.output, network.loss) == ("sigmoid", "squared_error") and values.dtype.kind == "f":
            return cls("regression")
        one_column = values.ndim == 1 or values.shape[1] == 1
        if not one_column:
            multiclass = network.output == "softmax"
            return cls("multiclass", np.arange(network.n_outputs)) if multiclass else cls("multilabel")
        n_classes = max(network.n_outputs, 2)
        classes = np.unique(values) if values.dtype.kind == "U" else np.arange(n_classes)
        if len(classes) != n_classes:
            raise DataError(
                f"y holds {len(classes)} classes and the network tells {n_classes} apart: set the last of layer_sizes "
                "to the number of classes, or number the labels yourself where y does not hold all of them"
            )
        return cls("multiclass" if network.n_outputs > 1 else "multilabel", classes)

    @classmethod
    def default(cls, network: NetworkSpec) -> TargetCoding:
        """Coding of a network that has seen no targets yet: classes are numbered."""
        if network.output == "softmax":
            return cls("multiclass", np.arange(network.n_outputs))
        if (network.output, network.loss) == ("sigmoid", "cross_entropy"):
            return cls("multilabel", np.arange(2) if network.n_outputs == 1 else None)
        return cls("regression")

    def encode(self, network: NetworkSpec, y: ArrayLike, name: str = "y") -> NDArray:
        """Targets as they cross the seam: see `Dataset.targets`. `name` is what the user calls them.

        Raises
        ------
        DataError
            Wrong shape, unknown or out-of-range labels, values that are not finite or do not fit the loss.
        """
        values = as_targets(y, name)
        if self.classes is not None and (values.ndim == 1 or values.shape[1] == 1):
            indices = self._indices(values.ravel(), name)
            if network.takes_labels:
                return indices
            if network.n_outputs == 1:
                return indices[:, None].astype(network.numpy_dtype)
            return np.eye(network.n_outputs, dtype=network.numpy_dtype)[indices]
        matrix = self._matrix(network, values, name)
        if not network.takes_labels:
            return matrix
        one_hot = (matrix.sum(axis=1) == 1) & (matrix.max(axis=1) == 1)
        if not one_hot.all():
            raise DataError(
                f"{name} has {network.n_outputs} columns, and sample {np.argmin(one_hot)} is not one-hot: pass class "
                "labels (n_samples,) or one-hot rows; for targets that are probabilities use loss='squared_error'"
            )
        return matrix.argmax(axis=1).astype(np.int32)

    def _indices(self, values: NDArray, name: str) -> NDArray[np.int32]:
        assert self.classes is not None
        is_numbered = self.classes.dtype.kind != "U" and np.array_equal(self.classes, np.arange(len(self.classes)))
        if values.dtype.kind == "U" or not is_numbered:
            both = (values.dtype.kind == "U") == (self.classes.dtype.kind == "U")
            known = np.isin(values, self.classes) & both
            if not known.all():
                sample = int(np.argmin(known))
                raise DataError(
                    f"{name}: unknown label {values[sample].item()!r} at sample {sample}; "
                    f"known are {self.classes.tolist()}"
                )
            return np.searchsorted(self.classes, values).astype(np.int32)
        require_finite(name, values)
        bad = (values < 0) | (values >= len(self.classes)) | (values != np.floor(values))
        if bad.any():
            sample = int(np.argmax(bad))
            raise DataError(
                f"{name}: labels must be whole numbers in [0, {len(self.classes)}), got {values[sample]} "
                f"at sample {sample}; number the classes from 0, or pass strings to have them numbered"
            )
        return values.astype(np.int32)

    def _matrix(self, network: NetworkSpec, values: NDArray, name: str) -> NDArray:
        matrix = numeric(name, values, network.numpy_dtype)
        if matrix.ndim == 1 and network.n_outputs == 1:
            matrix = matrix[:, None]
        if matrix.ndim != 2 or matrix.shape[1] != network.n_outputs:
            raise DataError(f"{name} must have shape (n_samples, {network.n_outputs}), got {values.shape}")
        outside, allowed = _outside(network, self.task, matrix)
        if outside.any():
            sample, output = np.unravel_index(int(np.argmax(outside)), matrix.shape)
            raise DataError(
                f"{name}: {network.loss} with output {network.output} takes targets {allowed}, "
                f"got {matrix[sample, output]} at sample {sample}, output {output}"
            )
        return np.ascontiguousarray(matrix)

    def decode(self, outputs: NDArray) -> NDArray:
        """Labels or values for a network's outputs (N, C): (N,) where one number tells all, else (N, C)."""
        if self.task == "multiclass":
            indices = outputs.argmax(axis=1)
            return indices if self.classes is None else self.classes[indices]
        if self.task == "multilabel":
            positive = (outputs > 0.5).astype(np.int64)
            return positive if self.classes is None else self.classes[positive[:, 0]]
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


def _outside(network: NetworkSpec, task: Task, targets: NDArray) -> tuple[NDArray[np.bool_], str]:
    """Which targets (N, C) make no sense for the loss and the task, and in words which would."""
    if network.loss == "cross_entropy" or task != "regression":
        return (targets < 0) | (targets > 1), "in [0, 1]"
    if network.loss == "poisson":
        return targets < 0, "of zero or more"
    if network.loss == "gamma":
        return targets <= 0, "above zero"
    return np.zeros(targets.shape, bool), "of any size"


def as_targets(y: ArrayLike, name: str = "y") -> NDArray:
    """Targets as an array (N,) or (N, C) of numbers, or of strings (dtype kind U or O)."""
    try:
        values = np.asarray(on_host(name, y))
    except ValueError as error:
        raise DataError(f"{name} is ragged: {error}") from error
    if values.dtype.kind == "O":
        values = _strings_or_numbers(values, name)
    if values.dtype.kind not in "biufU":
        raise DataError(f"{name} must hold numbers or strings, got dtype {values.dtype}")
    if values.ndim not in (1, 2):
        raise DataError(f"{name} must be one- or two-dimensional, got shape {values.shape}")
    if values.size == 0:
        raise DataError(f"{name} is empty: shape {values.shape}")
    return values


def _strings_or_numbers(values: NDArray, name: str) -> NDArray:
    if all(isinstance(value, str) for value in values.ravel()):
        return values.astype(str)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{name} mixes strings and other values, or holds neither numbers nor strings: {error}"
        ) from error
