"""User data, validated once: the only place that complains about samples, targets and weights.

What leaves this module crosses the seam as it is; backends check nothing again.
"""

# Legend: N samples, D features, C outputs, K classes.

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.errors import DataError, SpecError
from fastnet.spec import NetworkSpec, Task

__all__ = ["Dataset", "TargetCoding", "is_sparse", "make_dataset", "split_validation", "validate_samples"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples, targets and weights as backends take them: C-contiguous, finite, of the network's dtype.

    Attributes
    ----------
    x : ndarray (N, D) or scipy.sparse.csr_array (N, D)
        Of the network's dtype, or uint8. It may be read-only or memory-mapped, and must not be written to.
    targets : ndarray
        Class indices (N,) int32 where ``network.takes_labels``, else (N, C) of the network's dtype.
    sample_weight : ndarray (N,) or None
        Of the network's dtype, not negative, not all zero.
    """

    x: Any
    targets: NDArray
    sample_weight: NDArray | None = None

    @property
    def n_samples(self) -> int:
        """N."""
        return int(self.x.shape[0])


def is_sparse(x: object) -> bool:
    """Whether `x` is a scipy.sparse matrix or array, without importing SciPy."""
    return hasattr(x, "tocsr")


def make_dataset(
    network: NetworkSpec,
    coding: TargetCoding,
    x: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    names: tuple[str, str] = ("X", "y"),
) -> Dataset:
    """Validate what a user passes to ``fit``.

    Parameters
    ----------
    network : NetworkSpec
    coding : TargetCoding
    x : array-like, DataFrame, sparse matrix or DLPack array (N, D)
    y : array-like (N,) or (N, C)
    sample_weight : array-like (N,), optional
    names : tuple of str
        What the user calls `x` and `y`.

    Raises
    ------
    DataError
        Something cannot be used; the message says what, where, and what to do.
    """
    x_name, y_name = names
    samples = validate_samples(network, x, x_name)
    targets = coding.encode(network, y, y_name)
    if len(targets) != samples.shape[0]:
        raise DataError(f"{x_name} has {samples.shape[0]} samples and {y_name} has {len(targets)}")
    return Dataset(samples, targets, _validate_weights(network, sample_weight, samples.shape[0]))


def validate_samples(network: NetworkSpec, x: Any, name: str = "X") -> Any:
    """Samples as (N, D), dense C-contiguous or CSR; uint8 and the network's dtype are kept without a copy.

    Parameters
    ----------
    network : NetworkSpec
    x : array-like, DataFrame, sparse matrix or DLPack array (N, D)
    name : str
        What the user calls `x`.

    Raises
    ------
    DataError
        `x` is not two-dimensional and numeric, is empty or not finite, or has the wrong number of features.
    """
    x = _on_host(name, x)
    samples = _if_plain(x, network.numpy_dtype)
    if samples is None:
        samples = _checked(name, x, network.numpy_dtype)
    if samples.shape[1] != network.n_features:
        raise DataError(
            f"{name} has {samples.shape[1]} features, the network has {network.n_features} (layer_sizes[0])"
        )
    _require_finite(name, samples, "feature")
    if is_sparse(samples):
        from scipy.sparse import csr_array

        return csr_array(samples)
    return np.asarray(samples)


def _if_plain(x: Any, dtype: np.dtype) -> NDArray | None:
    """What scikit-learn would make of a usual array; None for what it shall judge.

    Importing it takes half a second, which is more than many a fit.
    """
    if type(x) is not np.ndarray or x.ndim != 2 or x.size == 0 or x.dtype.kind not in "fiu":
        return None
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told as that
        return np.ascontiguousarray(x, x.dtype if x.dtype == np.uint8 else dtype)


def _checked(name: str, x: Any, dtype: np.dtype) -> Any:
    from sklearn.utils import check_array

    # Indices and values of a sparse matrix are read by compiled code of one dtype each, so uint8 is for dense X alone.
    dtypes: list[Any] = [dtype] if is_sparse(x) else [dtype, np.uint8]
    try:
        with np.errstate(over="ignore"):  # as above
            samples = check_array(x, accept_sparse="csr", dtype=dtypes, order="C", ensure_all_finite=False)
        if is_sparse(samples):
            samples.check_format(full_check=True)  # compiled code would follow a wrong index wherever it leads
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{name}: {error}") from error
    return samples


def _on_host(name: str, x: Any) -> Any:
    """A NumPy view or copy of what lies on a device or in another array library; anything else as it is."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack_device__"):
        return x
    device_type, device_index = x.__dlpack_device__()
    if int(device_type) == 1:  # kDLCPU of the DLPack header
        try:
            return np.from_dlpack(x)
        except (BufferError, RuntimeError) as error:  # PyTorch: a gradient is attached, or NumPy lacks the dtype
            raise DataError(f"{name} cannot be read through DLPack: {error}") from error
    if hasattr(x, "get"):  # CuPy's copy to the host
        return x.get()
    try:
        return np.asarray(x.to("cpu"))  # PyTorch
    except (AttributeError, RuntimeError, TypeError) as error:
        raise DataError(
            f"{name} lies on a device (DLPack {device_type}:{device_index}) and {type(x).__name__} offers no way to "
            "copy it from there: pass a NumPy array, a CuPy array or a PyTorch tensor"
        ) from error


def _validate_weights(network: NetworkSpec, sample_weight: ArrayLike | None, n_samples: int) -> NDArray | None:
    if sample_weight is None:
        return None
    weights = _numeric("sample_weight", sample_weight, network.numpy_dtype)
    if weights.shape != (n_samples,):
        raise DataError(f"sample_weight must have shape ({n_samples},), got {weights.shape}")
    if weights.min() < 0:
        raise DataError(f"sample_weight must not be negative, got {weights.min()} at sample {weights.argmin()}")
    if not weights.any():
        raise DataError("sample_weight is zero for every sample: nothing can be learned")
    return weights


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
        values = _as_targets(y)
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
        values = _as_targets(y, name)
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
        _require_finite(name, values)
        bad = (values < 0) | (values >= len(self.classes)) | (values != np.floor(values))
        if bad.any():
            sample = int(np.argmax(bad))
            raise DataError(
                f"{name}: labels must be whole numbers in [0, {len(self.classes)}), got {values[sample]} "
                f"at sample {sample}; number the classes from 0, or pass strings to have them numbered"
            )
        return values.astype(np.int32)

    def _matrix(self, network: NetworkSpec, values: NDArray, name: str) -> NDArray:
        matrix = _numeric(name, values, network.numpy_dtype)
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


def split_validation(
    x: Any, y: ArrayLike, sample_weight: ArrayLike | None, fraction: float, seed: int, *, stratify: bool
) -> tuple[Any, Any, Any, Any, Any]:
    """Set a share of the data aside: (x, y, sample_weight, x_validation, y_validation), split by scikit-learn.

    Parameters
    ----------
    fraction : float
        In (0, 1): the share that is set aside.
    seed : int
    stratify : bool
        Keep the share of each label equal in both parts, where there are enough samples of each.

    Raises
    ------
    SpecError
        `fraction` is not a number in range.
    DataError
        It leaves one of the parts empty.
    """
    from sklearn.model_selection import train_test_split

    if not (isinstance(fraction, Real) and 0 < fraction < 1):
        raise SpecError(f"validation_fraction must be a number between 0 and 1, got {fraction!r}")
    labels = _as_targets(y)
    if stratify and labels.ndim == 1:
        n_test = math.ceil(fraction * len(labels))
        counts = np.unique(labels, return_counts=True)[1]
        stratify = counts.min() >= 2 and len(counts) <= min(n_test, len(labels) - n_test)
    columns = [_on_host("X", x), labels, *([] if sample_weight is None else [np.asarray(sample_weight)])]
    options: dict[str, Any] = {"test_size": fraction, "random_state": seed % 2**32}
    try:
        parts = train_test_split(*columns, **options, stratify=labels if stratify and labels.ndim == 1 else None)
    except ValueError as error:
        raise DataError(f"validation_fraction={fraction} cannot split {len(labels)} samples: {error}") from error
    return parts[0], parts[2], parts[4] if sample_weight is not None else None, parts[1], parts[3]


def _outside(network: NetworkSpec, task: Task, targets: NDArray) -> tuple[NDArray[np.bool_], str]:
    """Which targets (N, C) make no sense for the loss and the task, and in words which would."""
    if network.loss == "cross_entropy" or task != "regression":
        return (targets < 0) | (targets > 1), "in [0, 1]"
    if network.loss == "poisson":
        return targets < 0, "of zero or more"
    if network.loss == "gamma":
        return targets <= 0, "above zero"
    return np.zeros(targets.shape, bool), "of any size"


def _as_targets(y: ArrayLike, name: str = "y") -> NDArray:
    """Targets as an array (N,) or (N, C) of numbers, or of strings (dtype kind U or O)."""
    try:
        values = np.asarray(_on_host(name, y))
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


def _numeric(name: str, values: ArrayLike, dtype: np.dtype) -> NDArray:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            array: NDArray = np.ascontiguousarray(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} must hold numbers: {error}") from error
    _require_finite(name, array)
    return array


def _require_finite(name: str, array: Any, column_kind: str = "output") -> None:
    """Raise `DataError` at the first value that is not finite of an array (N,) or (N, columns) or a CSR matrix."""
    values = array.data if is_sparse(array) else array
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype.kind != "f" or np.isfinite(values.sum()):  # needs no memory, and nearly always suffices
            return
    finite = np.isfinite(values)
    if finite.all():
        return
    index = int(np.argmin(finite))
    if is_sparse(array):
        sample, column = np.searchsorted(array.indptr, index, side="right") - 1, array.indices[index]
    else:
        sample, column = divmod(index, math.prod(array.shape[1:]))
    place = f"sample {sample}" if array.ndim < 2 else f"sample {sample}, {column_kind} {column}"
    value, remedy = values.flat[index], "remove or replace it"
    if np.isinf(value) and values.dtype == np.float32:
        remedy += "; if it is a finite number, too large for float32, use dtype='float64'"
    raise DataError(f"{name} holds {value} at {place}: {remedy}")
