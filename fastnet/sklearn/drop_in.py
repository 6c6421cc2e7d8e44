"""The estimators with scikit-learn's own constructors, for code that is not to be changed."""

from __future__ import annotations

from sklearn import neural_network

from fastnet.sklearn.callbacks import with_callbacks
from fastnet.sklearn.plan_trained import PlanTrained

__all__ = ["DropInClassifier", "DropInRegressor"]


class DropInClassifier(PlanTrained, neural_network.MLPClassifier):
    """scikit-learn's `MLPClassifier`, trained by fastnet."""

    fit = with_callbacks(neural_network.MLPClassifier.fit)


class DropInRegressor(PlanTrained, neural_network.MLPRegressor):
    """scikit-learn's `MLPRegressor`, trained by fastnet."""

    fit = with_callbacks(neural_network.MLPRegressor.fit)
