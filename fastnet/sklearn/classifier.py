"""`MLPClassifier`: scikit-learn's, trained by fastnet, with what its users have long asked for."""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn import neural_network
from sklearn.base import _fit_context
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from fastnet.sklearn.callbacks import with_callbacks
from fastnet.sklearn.extended import CONSTRAINTS, Extended

__all__ = ["MLPClassifier"]


class MLPClassifier(Extended, neural_network.MLPClassifier):
    """scikit-learn's `MLPClassifier`, trained by fastnet.

    With the same ``random_state`` it draws the same weights and the same batches as scikit-learn's, and ends with the
    same coefficients up to rounding. It is an instance of scikit-learn's class, and has its attributes.

    Parameters
    ----------
    hidden_layer_sizes, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle, \
random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, \
beta_2, epsilon, n_iter_no_change, max_fun
        As for :class:`sklearn.neural_network.MLPClassifier`.
    activation : str or sequence of str
        "identity", "logistic", "tanh", "relu", and beyond scikit-learn's "leaky_relu", "elu", "gelu", "silu": one for
        all hidden layers, or one for each.
    loss : {"log_loss", "squared_error"}
        The second is half the squared difference between probabilities and labels: half the Brier score.
    class_weight : dict, "balanced" or None
        Weight of each class in the loss, as for :class:`sklearn.linear_model.LogisticRegression`.
    backend : {"auto", "numpy", "numba", "cupy"}
        "auto" trains by NumPy where that is done soonest, else on a GPU if there is one, else by compiled code on the
        CPU.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}
    n_threads : int or None
        CPU threads of the backend.
    dtype : {"float32", "float64"} or None
        Of weights and arithmetic. None follows X: float32 stays so, all else becomes float64. float32 is up to twice as
        fast.

    Attributes
    ----------
    classes_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_, coefs_, intercepts_, \
n_features_in_, feature_names_in_, n_iter_, n_layers_, n_outputs_, out_activation_
        As for scikit-learn's. With solver "lbfgs" there is a ``loss_curve_``, too.
    validation_loss_curve_ : list of float
        Loss in nats on what is held out, without penalty, after each epoch; where something is held out.
    backend_ : str
        The backend that the latest fit ran on.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> MLPClassifier(max_iter=20, tol=0.1, random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **neural_network.MLPClassifier._parameter_constraints,
        **CONSTRAINTS,
        "loss": [StrOptions({"log_loss", "squared_error"})],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: str = "log_loss",
        class_weight: dict | list | str | None = None,
        backend: str = "auto",
        device: str = "auto",
        n_threads: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        BaseMultilayerPerceptron.__init__(
            self,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            loss=loss,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.class_weight = class_weight
        self.backend = backend
        self.device = device
        self.n_threads = n_threads
        self.dtype = dtype

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> MLPClassifier:
        """Train on X and y.

        Parameters
        ----------
        X : array-like or sparse matrix (N, D)
        y : array-like (N,) or (N, C)
            Labels, or indicators of a multilabel problem.
        sample_weight : array-like (N,), optional
        X_val, y_val, sample_weight_val : optional
            Held-out samples to judge by after each epoch. With ``early_stopping`` they take the place of
            ``validation_fraction``.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        ValueError
            The data or a parameter cannot be used, or the weights stopped being finite.
        """
        weight = self._weigh(y, sample_weight)
        return self._fit(X, y, weight, validation=(X_val, y_val, sample_weight_val))

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> MLPClassifier:
        """Pass once over X and y, going on from where the estimator is.

        Parameters
        ----------
        X : array-like or sparse matrix (N, D)
        y : array-like (N,) or (N, C)
        sample_weight : array-like (N,), optional
        classes : array-like, optional
            All classes that will ever be in `y`; needed in the first call.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        ValueError
            The data or a parameter cannot be used, or the weights stopped being finite.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all of y at once and cannot be used with partial_fit: "
                "compute the weights with sklearn.utils.class_weight.compute_class_weight, and pass them as a dict"
            )
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, self._weigh(y, sample_weight), incremental=True)

    def _weigh(self, y: ArrayLike, sample_weight: ArrayLike | None) -> ArrayLike | None:
        """Weights of samples and of their classes together."""
        if self.class_weight is None:
            return sample_weight
        weight: NDArray = compute_sample_weight(self.class_weight, y)
        return weight if sample_weight is None else weight * np.asarray(sample_weight)
