"""User data, validated once: here, with ``targets.py`` and ``arrays.py``, and nowhere else.

What leaves this module crosses the seam as it is; backends check nothing again.
"""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.arrays import is_sparse, numeric, on_host, require_finite
from fastnet.errors import DataError, SpecError
from fastnet.spec import NetworkSpec
from fastnet.targets import TargetCoding, as_targets

__all__ = ["Dataset", "is_sparse", "make_dataset", "split_validation", "validate_samples"]


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
    x = on_host(name, x)
    samples = _if_plain(x, network.numpy_dtype)
    if samples is None:
        samples = _checked(name, x, network.numpy_dtype)
    if samples.shape[1] != network.n_features:
        hint = f"; samples go in rows: pass {name}.T" if samples.shape[0] == network.n_features else ""
        raise DataError(
            f"{name} has {samples.shape[1]} features, the network has {network.n_features} (layer_sizes[0]){hint}"
        )
    require_finite(name, samples, "feature")
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


def _validate_weights(network: NetworkSpec, sample_weight: ArrayLike | None, n_samples: int) -> NDArray | None:
    if sample_weight is None:
        return None
    weights = numeric("sample_weight", sample_weight, network.numpy_dtype)
    if weights.shape != (n_samples,):
        raise DataError(f"sample_weight must have shape ({n_samples},), got {weights.shape}")
    if weights.min() < 0:
        raise DataError(f"sample_weight must not be negative, got {weights.min()} at sample {weights.argmin()}")
    if not weights.any():
        raise DataError("sample_weight is zero for every sample: nothing can be learned")
    return weights


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
    labels = as_targets(y)
    if stratify and labels.ndim == 1:
        n_test = math.ceil(fraction * len(labels))
        counts = np.unique(labels, return_counts=True)[1]
        stratify = counts.min() >= 2 and len(counts) <= min(n_test, len(labels) - n_test)
    columns = [on_host("X", x), labels, *([] if sample_weight is None else [np.asarray(sample_weight)])]
    options: dict[str, Any] = {"test_size": fraction, "random_state": seed % 2**32}
    try:
        parts = train_test_split(*columns, **options, stratify=labels if stratify and labels.ndim == 1 else None)
    except ValueError as error:
        raise DataError(f"validation_fraction={fraction} cannot split {len(labels)} samples: {error}") from error
    return parts[0], parts[2], parts[4] if sample_weight is not None else None, parts[1], parts[3]
