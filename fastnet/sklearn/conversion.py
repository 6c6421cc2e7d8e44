"""From an estimator to a `Network` or to scikit-learn's own estimator, and back."""

# Legend: D features, C outputs, K classes.

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import neural_network
from sklearn.base import BaseEstimator, is_classifier
from sklearn.neural_network._base import ACTIVATIONS as SCIKIT_LEARN_ACTIVATIONS
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from fastnet.network import Network
from fastnet.sklearn import translation
from fastnet.spec import NetworkSpec
from fastnet.targets import TargetCoding

__all__ = ["Convertible"]

# Loss, of those of a classifier and of a regressor, for each output and loss of a network.
_CLASSIFIER_LOSSES = {
    ("softmax", "cross_entropy"): "log_loss",
    ("sigmoid", "cross_entropy"): "log_loss",
    ("softmax", "squared_error"): "squared_error",
    ("sigmoid", "squared_error"): "squared_error",
}
_REGRESSOR_LOSSES = {
    ("identity", "squared_error"): "squared_error",
    ("identity", "absolute_error"): "absolute_error",
    ("exp", "poisson"): "poisson",
    ("exp", "gamma"): "gamma",
}
# What scikit-learn has in place of a loss that it has not: one with the same outputs.
_SUBSTITUTES = {"absolute_error": "squared_error", "gamma": "poisson"}


class Convertible(BaseEstimator):
    """Mixin: conversions of `MLPClassifier` and `MLPRegressor`."""

    def to_network(self) -> Network:
        """Return a `Network` with the same weights: it predicts the same, and can be trained further.

        Raises
        ------
        NotFittedError
            There are no weights yet.
        """
        check_is_fitted(self)
        spec = translation.describe_network(self, translation.arithmetic_dtype(*(coef.dtype for coef in self.coefs_)))
        network = Network(
            spec.layer_sizes,
            activation=spec.activations,
            output=spec.output,
            loss=spec.loss,
            l2=spec.l2,
            l2_averaged=spec.l2_averaged,
            dtype=spec.dtype,
            init=self.coefs_,
            bias_init=self.intercepts_,
            backend=self.backend,
            device=self.device,
            n_threads=self.n_threads,
            seed=self.random_state,
        )
        has_labels = is_classifier(self) and self._label_binarizer.y_type_ in ("binary", "multiclass")
        network._coding = TargetCoding(translation.task_of(self), self.classes_ if has_labels else None)
        network.feature_names = tuple(getattr(self, "feature_names_in_", ()))
        return network

    @classmethod
    def from_network(cls, network: Network, **parameters: Any) -> Self:
        """Return an estimator with a network's weights: it predicts the same, and can be trained further.

        Parameters
        ----------
        network : Network
        **parameters
            Of the constructor, for what a network does not tell: ``solver``, ``max_iter``, ... ``alpha`` is the
            network's ``l2``; if that is not averaged over samples, it must be given here.

        Raises
        ------
        ValueError
            The network is of the other kind, has an output or a loss that this estimator has not, or `alpha` is
            missing.
        """
        spec = network.spec
        coding = network._coding or TargetCoding.default(spec)
        losses = _CLASSIFIER_LOSSES if issubclass(cls, neural_network.MLPClassifier) else _REGRESSOR_LOSSES
        loss = losses.get((spec.output, spec.loss))
        if loss is None or (coding.task == "regression") != (losses is _REGRESSOR_LOSSES):
            raise ValueError(
                f"{cls.__name__} has no equivalent of a network for {coding.task} with {spec.output} outputs "
                f"and loss {spec.loss!r}"
            )
        if spec.l2 and not spec.l2_averaged and "alpha" not in parameters:
            raise ValueError("the network's l2 is not averaged over samples: pass alpha, which is l2 times batch size")
        names = {ours: theirs for theirs, ours in translation.ACTIVATIONS.items()}
        activations = [names[name] for name in spec.activations]
        estimator = cls(
            **{
                "hidden_layer_sizes": spec.layer_sizes[1:-1],
                "activation": activations[0] if len(set(activations)) == 1 else activations or "identity",
                "alpha": spec.l2,
                "loss": loss,
                **parameters,
            }
        )
        coefs = [weight.copy() for weight in network.weights]
        coefs[0] *= spec.input_scale
        biases = network.biases or [np.zeros(size, spec.dtype) for size in spec.layer_sizes[1:]]
        intercepts = [bias.copy() for bias in biases]
        if spec.output == "softmax" and spec.n_outputs == 2:  # the same probabilities from the difference of the logits
            coefs[-1], intercepts[-1] = np.diff(coefs[-1], axis=1), np.diff(intercepts[-1])
        _let_be_fitted(estimator, spec, coding, coefs, intercepts)
        return estimator

    def to_sklearn(self) -> Any:
        """Return scikit-learn's own estimator with the same parameters and weights.

        What scikit-learn has not (`backend`, `class_weight`, a classifier's `loss`) is left out: predictions are the
        same, and training goes on without it. A regressor's loss "absolute_error" becomes "squared_error", and "gamma"
        becomes "poisson", which have the same outputs.

        Raises
        ------
        ValueError
            scikit-learn has not this activation, or, before 1.7, no exponential outputs.
        """
        if not isinstance(self.activation, str) or self.activation not in SCIKIT_LEARN_ACTIVATIONS:
            raise ValueError(
                f"scikit-learn has no activation {self.activation!r}: it has {', '.join(SCIKIT_LEARN_ACTIVATIONS)}"
            )
        if self.loss in ("poisson", "gamma") and "exp" not in SCIKIT_LEARN_ACTIVATIONS:
            raise ValueError(f"loss={self.loss!r} needs exponential outputs, which scikit-learn has since 1.7")
        kind = neural_network.MLPClassifier if is_classifier(self) else neural_network.MLPRegressor
        parameters = self.get_params(deep=False)
        parameters["loss"] = _SUBSTITUTES.get(self.loss, self.loss)
        known = kind().get_params()
        estimator = kind(**{name: value for name, value in parameters.items() if name in known})
        estimator.__dict__.update(_fitted(self))
        return estimator

    @classmethod
    def from_sklearn(cls, estimator: Any, **parameters: Any) -> Self:
        """Return an estimator with the parameters and weights of one of scikit-learn's own.

        Parameters
        ----------
        estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        **parameters
            Of the constructor, in place of those of `estimator`.

        Raises
        ------
        ValueError
            A classifier is given for a regressor, or the other way round.
        """
        if is_classifier(estimator) != issubclass(cls, neural_network.MLPClassifier):
            raise ValueError(f"{cls.__name__} cannot be made from a {type(estimator).__name__}")
        made = cls(**(estimator.get_params(deep=False) | parameters))
        made.__dict__.update(_fitted(estimator))
        return made


def _fitted(estimator: Any) -> dict[str, Any]:
    """A copy of what an estimator knows beside its parameters."""
    parameters = estimator.get_params(deep=False)
    return deepcopy({name: value for name, value in vars(estimator).items() if name not in parameters})


def _let_be_fitted(
    estimator: Any, spec: NetworkSpec, coding: TargetCoding, coefs: Sequence[NDArray], intercepts: Sequence[NDArray]
) -> None:
    """Give an estimator the attributes that it would have after a fit without epochs."""
    estimator.coefs_, estimator.intercepts_ = list(coefs), list(intercepts)
    estimator.n_features_in_ = spec.n_features
    estimator.n_outputs_ = coefs[-1].shape[1]
    estimator.n_layers_ = len(spec.layer_sizes)
    estimator.n_iter_ = estimator.t_ = estimator._no_improvement_count = 0
    estimator.loss_curve_, estimator.loss_, estimator.best_loss_ = [], np.inf, np.inf
    estimator.validation_scores_ = estimator.best_validation_score_ = None
    estimator.out_activation_ = {"sigmoid": "logistic"}.get(spec.output, spec.output)
    if coding.task == "regression":
        return
    is_multilabel = coding.classes is None
    labels = np.eye(spec.n_outputs, dtype=int) if is_multilabel else coding.classes
    estimator._label_binarizer = LabelBinarizer().fit(labels)
    estimator.classes_ = estimator._label_binarizer.classes_
    if not is_multilabel and estimator.n_outputs_ == 1:
        estimator.out_activation_ = "logistic"
