"""scikit-learn's multilayer perceptrons, trained by fastnet: the same parameters, attributes, weights and batches.

``from fastnet.sklearn import MLPClassifier`` in place of ``from sklearn.neural_network import MLPClassifier`` is the
whole change. What is added is told by the classes; scripts that must not change at all are for :mod:`fastnet.accel`.
"""

from fastnet.sklearn.classifier import MLPClassifier
from fastnet.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
