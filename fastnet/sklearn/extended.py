"""What both estimators have beyond scikit-learn's."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, Options, StrOptions

from fastnet.sklearn.conversion import Convertible
from fastnet.sklearn.plan_trained import PlanTrained
from fastnet.sklearn.translation import ACTIVATIONS

__all__ = ["CONSTRAINTS", "Extended"]

# Of the parameters that both have, as scikit-learn writes them down.
CONSTRAINTS: dict[str, list[Any]] = {
    "activation": [StrOptions(set(ACTIVATIONS)), "array-like"],
    "backend": [str],
    "device": [str],
    "n_threads": [Interval(Integral, 1, None, closed="left"), None],
    "dtype": [StrOptions({"float32", "float64"}), Options(type, {np.float32, np.float64}), None],
}


class Extended(PlanTrained, Convertible):
    """Mixin of `MLPClassifier` and `MLPRegressor`."""

    def _init_coef(self, fan_in: int, fan_out: int, dtype: np.dtype) -> tuple[NDArray, NDArray]:
        """Weights (fan_in, fan_out) and biases (fan_out,), drawn as scikit-learn draws them (Glorot and Bengio 2010).

        Where activations are named one by one, its smaller bound for "logistic" is taken if all are.
        """
        names = {self.activation} if isinstance(self.activation, str) else set(self.activation)
        bound = np.sqrt((2.0 if names == {"logistic"} else 6.0) / (fan_in + fan_out))
        draw = self._random_state.uniform
        return draw(-bound, bound, (fan_in, fan_out)).astype(dtype), draw(-bound, bound, fan_out).astype(dtype)
