"""`MLPRegressor`: scikit-learn's, trained by fastnet, with what its users have long asked for."""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.random import RandomState
from numpy.typing import ArrayLike, DTypeLike
from sklearn import neural_network
from sklearn.base import _fit_context
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from fastnet.sklearn.callbacks import with_callbacks
from fastnet.sklearn.extended import CONSTRAINTS, Extended

__all__ = ["MLPRegressor"]


class MLPRegressor(Extended, neural_network.MLPRegressor):
    """scikit-learn's `MLPRegressor`, trained by fastnet.

    With the same ``random_state`` it draws the same weights and the same batches as scikit-learn's, and ends with the
    same coefficients up to rounding. It is an instance of scikit-learn's class, and has its attributes.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "poisson", "gamma"}
        Half the squared error, which is least at the mean; the absolute error, least at the median; or, with
        exponential outputs, half the Poisson deviance for counts and half the gamma deviance for amounts above zero.
        Of several outputs the squared error is averaged, all others are summed. The absolute error has no derivative
        where it is zero, and "lbfgs" counts on one: take another solver.
    hidden_layer_sizes, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle, \
random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, \
beta_2, epsilon, n_iter_no_change, max_fun
        As for :class:`sklearn.neural_network.MLPRegressor`.
    activation, backend, device, n_threads, dtype
        As for :class:`MLPClassifier`.

    Attributes
    ----------
    loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_, coefs_, intercepts_, \
n_features_in_, feature_names_in_, n_iter_, n_layers_, n_outputs_, out_activation_
        As for scikit-learn's. With solver "lbfgs" there is a ``loss_curve_``, too.
    validation_loss_curve_ : list of float
        Loss on what is held out, without penalty, after each epoch; where something is held out.
    backend_ : str
        The backend that the latest fit ran on.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> y = X[:, 0] - X[:, 1]
    >>> MLPRegressor(solver="lbfgs", max_iter=200, random_state=0).fit(X, y).score(X, y) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **neural_network.MLPRegressor._parameter_constraints,
        **CONSTRAINTS,
        "loss": [StrOptions({"squared_error", "absolute_error", "poisson", "gamma"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
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
    ) -> MLPRegressor:
        """Train on X and y.

        Parameters
        ----------
        X : array-like or sparse matrix (N, D)
        y : array-like (N,) or (N, C)
            Values; for loss "poisson" not negative, for "gamma" above zero.
        sample_weight : array-like (N,), optional
        X_val, y_val, sample_weight_val : optional
            Held-out samples to judge by after each epoch. With ``early_stopping`` they take the place of
            ``validation_fraction``.

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        ValueError
            The data or a parameter cannot be used, or the weights stopped being finite.
        """
        return self._fit(X, y, sample_weight, validation=(X_val, y_val, sample_weight_val))

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> MLPRegressor:
        """Pass once over X and y, going on from where the estimator is.

        Parameters
        ----------
        X : array-like or sparse matrix (N, D)
        y : array-like (N,) or (N, C)
        sample_weight : array-like (N,), optional

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        ValueError
            The data or a parameter cannot be used, or the weights stopped being finite.
        """
        return self._fit(X, y, sample_weight, incremental=True)
