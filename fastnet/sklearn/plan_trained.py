"""What both estimators share: scikit-learn's checks, draws and attributes around training by fastnet's plans."""

# Legend: N samples, D features, C outputs, P parameters.

from __future__ import annotations

import operator
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.neural_network._base import ACTIVATIONS, LOSS_FUNCTIONS
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, validate_data

from fastnet.backends.registry import choose_backend
from fastnet.data import is_sparse
from fastnet.errors import UnsupportedSpecError
from fastnet.sklearn import journal, training, translation
from fastnet.sklearn.callbacks import CallbackSupportMixin, Epochs, follow_epochs
from fastnet.sklearn.choice import Work, choose_for_prediction
from fastnet.sklearn.validation import Samples, check_targets, validate_given

__all__ = ["PlanTrained"]

# What scikit-learn's own code calls while it trains. Where a class overrides one of these, it wants it to be called.
_TRAINING_METHODS = (
    "_backprop", "_compute_loss_grad", "_fit_lbfgs", "_fit_stochastic", "_forward_pass", "_init_coef",
    "_loss_grad_lbfgs", "_score", "_score_with_function", "_update_no_improvement_count",
)  # fmt: skip


_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class PlanTrained(CallbackSupportMixin):
    """Mixin in front of scikit-learn's classes: training and predictions are a backend's, all else is scikit-learn's.

    Attributes
    ----------
    backend_ : str
        The backend of the latest fit.
    """

    # Those of estimators whose constructor is scikit-learn's own.
    backend = "auto"
    device = "auto"
    n_threads: int | None = None
    dtype: Any = None

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        incremental: bool = False,
        validation: tuple[Any, Any, Any] = (None, None, None),
    ) -> Any:
        """Train on X (N, D) and y, starting anew unless ``warm_start`` or `incremental` say otherwise.

        `validation` is what the user passed to judge by: X, y and weights.
        """
        start = time.perf_counter()
        method = "partial_fit" if incremental else "fit"
        is_given = any(each is not None for each in validation)
        reason = _overridden(type(self))
        if reason:
            _require_nothing_more(self, reason, is_given)
            options = {} if sample_weight is None else {"sample_weight": sample_weight}
            with journal.falling_back(type(self).__name__, method, reason):
                return super()._fit(X, y, incremental=incremental, **options)
        epochs = Epochs() if incremental else follow_epochs(self, X, y, sample_weight)
        samples = self._prepare(X, y, sample_weight, incremental)
        held_out = validate_given(self, *validation) if is_given else None
        choice, detail = training.train(self, samples, held_out, epochs, incremental=incremental)
        epochs.finish()
        if not all(np.isfinite(array).all() for array in self.coefs_ + self.intercepts_):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        self.backend_ = choice.backend.name
        seconds = time.perf_counter() - start
        journal.record(journal.Entry(type(self).__name__, method, self.backend_, choice.reason, detail, seconds))
        return self

    def _prepare(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Samples:
        """Validate as scikit-learn does, and draw the weights where there are none to go on from."""
        hidden = _hidden_layer_sizes(self)
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._validate_input(_cast(X, self.dtype), y, incremental, reset=first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        y = y.reshape(-1, 1) if y.ndim == 1 else y
        check_targets(self, "y", y)
        if not first:
            _require_matching_weights(self, X, y)
        self.n_outputs_ = y.shape[1]
        self._random_state = check_random_state(self.random_state)
        if first:
            dtype = X.dtype if self.dtype is None else np.dtype(self.dtype)
            self._initialize(y, [X.shape[1], *hidden, self.n_outputs_], dtype)
        return Samples(X, y, sample_weight)

    def _initialize(self, y: NDArray, layer_units: list[int], dtype: np.dtype) -> None:
        super()._initialize(y, layer_units, dtype)
        if self.loss in ("poisson", "gamma"):  # of which scikit-learn knows the first, and that since 1.7
            self.out_activation_ = "exp"

    def _loss_grad_lbfgs(self, packed_coef_inter: NDArray, X: Any, y: NDArray, *others: Any) -> tuple[float, NDArray]:
        """Loss and gradient at parameters (P,): for scikit-learn's own training, and its tests of gradients."""
        if _overridden(type(self)):
            return super()._loss_grad_lbfgs(packed_coef_inter, X, y, *others)
        # The sample weights, which scikit-learn has since 1.7, come before four lists to work in.
        sample_weight = others[0] if len(others) == 5 else None
        _require_matching_weights(self, X, y)
        return training.loss_and_gradient(self, packed_coef_inter, Samples(X, y, sample_weight))

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> NDArray:
        """Outputs (N, C) for X (N, D)."""
        if check_input and not self._is_beyond_doubt(X):
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        sizes = translation.layer_sizes(self)
        _require_features(X, sizes[0])
        work = Work(sizes, X.shape[0], X.shape[0])
        choice = choose_for_prediction(self.backend, self.device, self.n_threads, work)
        if choice is None:
            if isinstance(self.activation, str) and {self.activation, self.out_activation_} <= ACTIVATIONS.keys():
                return super()._forward_pass_fast(X, check_input=False)
            choice = choose_backend("numpy", self.device, self.n_threads)
        dtypes = [X.dtype, *(coef.dtype for coef in self.coefs_)]
        network = translation.describe_network(self, translation.arithmetic_dtype(*dtypes))
        parameters = translation.read_parameters(network, self)
        outputs = choice.backend.predict(network, parameters, translation.as_samples(X, network.numpy_dtype))
        # Of the dtype that scikit-learn's own code returns, so that it does not depend on which of them is sooner done.
        return outputs.astype(np.result_type(outputs.dtype, *dtypes), copy=False)

    def _is_beyond_doubt(self, X: Any) -> bool:
        """Whether scikit-learn's checks, which take longer than the prediction of one sample, would find nothing."""
        if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in _FLOATS or hasattr(self, "feature_names_in_"):
            return False
        with np.errstate(all="ignore"):
            return X.shape[0] > 0 and X.shape[1] == self.n_features_in_ and bool(np.isfinite(X.sum()))


def _overridden(estimator_type: type) -> str:
    """Which of the methods that scikit-learn's training calls is someone else's; empty if none is."""
    for name in _TRAINING_METHODS:
        owner = next((each for each in estimator_type.__mro__ if name in vars(each)), object)
        if owner is not object and owner.__module__.partition(".")[0] not in ("sklearn", "fastnet"):
            return f"{owner.__qualname__} overrides {name}, which fastnet does not call"
    return ""


def _require_nothing_more(estimator: Any, reason: str, has_held_out: bool) -> None:
    """Raise an error where scikit-learn's own training, which must run for `reason`, has not what was asked for."""
    activation = estimator.activation
    is_theirs = isinstance(activation, str) and activation in ACTIVATIONS
    loss_is_theirs = estimator.loss in (("log_loss",) if is_classifier(estimator) else LOSS_FUNCTIONS)
    asked_for = {f"activation={activation!r}": not is_theirs, f"loss={estimator.loss!r}": not loss_is_theirs}
    missing = [name for name, is_missing in (asked_for | {"X_val": has_held_out}).items() if is_missing]
    if missing:
        raise UnsupportedSpecError(f"{reason}; and scikit-learn's own training has no {', '.join(missing)}")


def _require_matching_weights(estimator: Any, X: Any, y: NDArray) -> None:
    """Raise an error where X (N, D) and y (N, C) are not for the weights that training would go on from."""
    sizes = translation.layer_sizes(estimator)
    _require_features(X, sizes[0])
    if y.shape[1] != sizes[-1]:
        raise ValueError(
            f"The number of outputs in y is {y.shape[1]}, and that of the network to be trained further is {sizes[-1]} "
            "(columns of coefs_[-1]): pass y with as many as before; or to start anew, call fit with warm_start=False"
        )
    dtypes = {array.dtype.name for array in estimator.coefs_ + estimator.intercepts_}  # in whatever order of bytes
    if estimator.solver != "lbfgs" and not dtypes <= {"float32", "float64"}:
        raise ValueError(
            f"coefs_ and intercepts_ hold {', '.join(sorted(dtypes))}, and can be trained further as float32 "
            "or float64 alone: convert each array by .astype(float)"
        )


def _require_features(X: Any, n_features: int) -> None:
    """Raise an error where X (N, D) is not for the first layer: scikit-learn compares with the fit, not with that."""
    if X.shape[1] != n_features:
        raise ValueError(
            f"X has {X.shape[1]} features, and coefs_[0] has {n_features} rows: it must have one row for each feature"
        )


def _hidden_layer_sizes(estimator: Any) -> list[int]:
    sizes = estimator.hidden_layer_sizes
    sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if np.any(np.array(sizes) <= 0):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    try:
        return [operator.index(size) for size in sizes]
    except TypeError as error:
        raise TypeError(f"hidden_layer_sizes must be whole numbers, got {sizes}: {error}") from error


def _cast(X: Any, dtype: Any) -> Any:
    """X of the dtype that was asked for, where that can be had without looking further: others are cast later."""
    has_numbers = (isinstance(X, np.ndarray) and X.dtype.kind in "biuf") or is_sparse(X)
    return X.astype(dtype, copy=False) if has_numbers and dtype is not None else X
