"""Training by SciPy's L-BFGS on the loss and gradients of a plan."""

# Legend: P parameters.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.optimize import _check_optimize_result

from fastnet.backends.interface import TrainingPlan
from fastnet.data import Dataset
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.reference import mean_scale
from fastnet.sklearn import translation
from fastnet.sklearn.callbacks import Epochs
from fastnet.sklearn.validation import outputs_averaged
from fastnet.spec import TrainingSpec

__all__ = ["fit_lbfgs"]


def fit_lbfgs(estimator: Any, spec: TrainingSpec, plan: TrainingPlan, dataset: Dataset, epochs: Epochs) -> None:
    """Minimize the loss over all samples; leaves the weights in `estimator`.

    They are float64 unless another dtype is asked for, whatever that of X: so SciPy returns them.

    For several outputs and squared errors, the gradient is as many times as large as that of the loss it is paired
    with: so it is in scikit-learn (issue 8349), and the weights shall be the same.
    """
    from scipy.optimize import minimize

    network = spec.network
    layout = ParameterLayout.of(network)
    scale = float(mean_scale(dataset.n_samples, dataset.sample_weight, xp=np))
    n_averaged = outputs_averaged(network, spec.task)

    def loss_and_gradient(flat: NDArray) -> tuple[float, NDArray]:
        parameters = Parameters(layout, flat.astype(network.dtype))
        plan.write_parameters(parameters)
        loss, gradients = plan.loss_and_gradients()
        if n_averaged > 1:
            weights = parameters.flat[: layout.n_weights]
            penalty = 0.5 * network.l2 * scale * float(weights @ weights)
            loss = (loss - penalty) / n_averaged + penalty
        return loss, gradients.flat.astype(np.float64)

    def after_iteration(intermediate_result: Any) -> None:
        estimator.loss_curve_.append(float(intermediate_result.fun))
        if estimator.verbose:
            print(f"Iteration {len(estimator.loss_curve_)}, loss = {intermediate_result.fun:.8f}")
        if epochs.end(lambda: Parameters(layout, intermediate_result.x.astype(network.dtype))):
            raise StopIteration
        epochs.begin()

    estimator.loss_curve_ = []
    epochs.begin()
    start = translation.read_parameters(network, estimator).flat  # its dtype is that of every point that is tried
    result = minimize(
        loss_and_gradient,
        start,
        method="L-BFGS-B",
        jac=True,
        callback=after_iteration,
        options={"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol},
    )
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = result.fun
    translation.write_parameters(estimator, Parameters(layout, result.x.astype(estimator.dtype or np.float64)))
