"""Training by SciPy's L-BFGS on the loss and gradients of a plan."""

# Legend: P parameters.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.interface import TrainingPlan
from fastnet.data import Dataset
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.reference import mean_scale
from fastnet.sklearn import translation
from fastnet.sklearn.callbacks import Epochs
from fastnet.sklearn.validation import outputs_averaged
from fastnet.sklearn.warning import check_optimize_result
from fastnet.spec import TrainingSpec

__all__ = ["Objective", "fit_lbfgs"]


class Objective:
    """Loss in nats, and its gradient (P,), of parameters (P,): what L-BFGS minimizes.

    For several outputs and squared errors, the gradient is as many times as large as that of the loss it is paired
    with: so it is in scikit-learn (issue 8349), and the weights shall be the same.
    """

    def __init__(self, spec: TrainingSpec, plan: TrainingPlan, dataset: Dataset) -> None:
        self._network, self._plan = spec.network, plan
        self._layout = ParameterLayout.of(spec.network)
        self._scale = float(mean_scale(dataset.n_samples, dataset.sample_weight, xp=np))
        self._n_averaged = outputs_averaged(spec.network, spec.task)

    def __call__(self, flat: NDArray) -> tuple[float, NDArray]:
        """Loss and gradient, in float64."""
        parameters = Parameters(self._layout, flat.astype(self._network.dtype))
        self._plan.write_parameters(parameters)
        loss, gradients = self._plan.loss_and_gradients()
        if self._n_averaged > 1:
            weights = parameters.flat[: self._layout.n_weights]
            penalty = 0.5 * self._network.l2 * self._scale * float(weights @ weights)
            loss = (loss - penalty) / self._n_averaged + penalty
        return loss, gradients.flat.astype(np.float64)


def fit_lbfgs(estimator: Any, spec: TrainingSpec, plan: TrainingPlan, dataset: Dataset, epochs: Epochs) -> None:
    """Minimize the loss over all samples; leaves the weights in `estimator`.

    They are float64 unless another dtype is asked for, whatever that of X: so SciPy returns them.
    """
    from scipy.optimize import minimize

    network = spec.network
    layout = ParameterLayout.of(network)
    objective = Objective(spec, plan, dataset)

    def after_iteration(intermediate_result: Any) -> None:
        estimator.loss_curve_.append(float(intermediate_result.fun))
        if estimator.verbose:
            print(f"Iteration {len(estimator.loss_curve_)}, loss = {intermediate_result.fun:.8f}")
        if epochs.end(lambda: Parameters(layout, intermediate_result.x.astype(network.dtype))):
            raise StopIteration

    def loss_and_gradient(flat: NDArray) -> tuple[float, NDArray]:
        epochs.begin()  # SciPy does not say when an iteration begins
        return objective(flat)

    estimator.loss_curve_ = []
    start = translation.read_parameters(network, estimator).flat  # its dtype is that of every point that is tried
    result = minimize(
        loss_and_gradient,
        start,
        method="L-BFGS-B",
        jac=True,
        callback=after_iteration,
        options={"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol},
    )
    estimator.n_iter_ = check_optimize_result(result, estimator.max_iter)
    estimator.loss_ = result.fun
    translation.write_parameters(estimator, Parameters(layout, result.x.astype(estimator.dtype or np.float64)))
