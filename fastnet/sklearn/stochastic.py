"""Training by epochs of mini-batches: solvers "sgd" and "adam".

The rules are scikit-learn's: which batches, which rate, when to stop. The steps of an epoch are one call of a plan.
"""

# Legend: N samples, S steps of an epoch.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from fastnet.backends.interface import TrainingPlan
from fastnet.optimizers import Adam
from fastnet.reference import adam_rate
from fastnet.sklearn import translation
from fastnet.sklearn.callbacks import Epochs
from fastnet.sklearn.validation import HeldOut, outputs_averaged
from fastnet.sklearn.warning import warn
from fastnet.spec import TrainingSpec

__all__ = ["fit_stochastic", "make_optimizer", "take_batch_size"]


def make_optimizer(estimator: Any) -> AdamOptimizer | SGDOptimizer:
    """scikit-learn's optimizer, which keeps the rate and, between calls of ``partial_fit``, what plans remember."""
    parameters = estimator.coefs_ + estimator.intercepts_
    if estimator.solver == "adam":
        return AdamOptimizer(
            parameters, estimator.learning_rate_init, estimator.beta_1, estimator.beta_2, estimator.epsilon
        )
    return SGDOptimizer(
        parameters,
        estimator.learning_rate_init,
        estimator.learning_rate,
        estimator.momentum,
        estimator.nesterovs_momentum,
        estimator.power_t,
    )


def take_batch_size(estimator: Any, n_samples: int) -> int:
    """Samples per step."""
    if estimator.batch_size == "auto":
        return min(200, n_samples)
    if estimator.batch_size > n_samples:
        warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
    return int(np.clip(estimator.batch_size, 1, n_samples))


def fit_stochastic(
    estimator: Any,
    spec: TrainingSpec,
    plan: TrainingPlan,
    n_samples: int,
    held_out: HeldOut | None,
    epochs: Epochs,
    *,
    incremental: bool,
) -> None:
    """Train until the loss, or the score on what is held out, has stopped improving.

    Weights and the optimizer's state are left in `estimator`.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Weights are drawn, ``_random_state`` and ``_optimizer`` are set.
    spec : TrainingSpec
    plan : TrainingPlan
        Bound to `n_samples` samples.
    held_out : HeldOut or None
    epochs : Epochs
        Told when each epoch begins and ends; may ask to stop.
    incremental : bool
        Whether to train for a single epoch.
    """
    loop = _EpochLoop(estimator, spec, plan, n_samples, held_out)
    try:
        estimator.n_iter_ = 0
        for _ in range(estimator.max_iter):
            epochs.begin()
            loop.run_epoch()
            is_over = loop.has_stopped_improving()
            wants_to_stop = epochs.end(plan.read_parameters)
            if is_over or wants_to_stop or incremental:
                break
            if estimator.n_iter_ == estimator.max_iter:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization "
                    "hasn't converged yet.",
                    ConvergenceWarning,
                )
    except KeyboardInterrupt:
        warn("Training interrupted by user.")
    loop.finish()


class _EpochLoop:
    """Epochs one by one, with scikit-learn's bookkeeping."""

    def __init__(
        self, estimator: Any, spec: TrainingSpec, plan: TrainingPlan, n_samples: int, held_out: HeldOut | None
    ) -> None:
        self._estimator, self._spec, self._plan = estimator, spec, plan
        self._held_out = held_out
        self._n_samples = n_samples
        self._order = np.arange(n_samples)
        batch_size = spec.batch_size or n_samples
        self._batch_sizes = np.full(spec.n_steps(n_samples), float(batch_size))
        self._batch_sizes[-1] = n_samples - batch_size * (len(self._batch_sizes) - 1)
        self._n_outputs_averaged = outputs_averaged(spec.network, spec.task)

    def run_epoch(self) -> None:
        """Make all steps of the next epoch, and write down its loss."""
        estimator, optimizer = self._estimator, self._estimator._optimizer
        order = self._shuffle() if estimator.shuffle else self._order
        is_adam = isinstance(optimizer, AdamOptimizer)  # whose learning_rate has its corrections of moments in it
        rate = optimizer.learning_rate_init if is_adam else optimizer.learning_rate
        rates = np.full(len(self._batch_sizes), float(rate))
        metrics = self._plan.run(rates, order if self._spec.batch_size else None)
        losses = (metrics.loss - metrics.penalty) / self._n_outputs_averaged + metrics.penalty
        estimator.n_iter_ += 1
        estimator.t_ += self._n_samples
        estimator.loss_ = float(losses @ self._batch_sizes) / self._n_samples
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")

    def _shuffle(self) -> NDArray[np.int64]:
        permutation = np.arange(self._n_samples)
        self._estimator._random_state.shuffle(permutation)
        self._order = self._order[permutation]
        return self._order

    def has_stopped_improving(self) -> bool:
        """Count the epochs without improvement; adapt the rate, or tell that training is over."""
        estimator, optimizer = self._estimator, self._estimator._optimizer
        if self._held_out is not None:
            self._judge(self._held_out)
        if not estimator.early_stopping:
            self._count_by_loss()
        optimizer.iteration_ends(estimator.t_)
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return False
        what = "Validation score" if estimator.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={estimator.tol:f} "
            f"for {estimator.n_iter_no_change} consecutive epochs."
        )
        if optimizer.trigger_stopping(message, estimator.verbose):
            return True
        estimator._no_improvement_count = 0
        return False

    def _judge(self, held_out: HeldOut) -> None:
        estimator = self._estimator
        parameters = self._plan.read_parameters()
        loss, score = held_out.judge(parameters)
        estimator.validation_loss_curve_.append(loss)
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        best = estimator.best_validation_score_
        if estimator.early_stopping:
            estimator._no_improvement_count = estimator._no_improvement_count + 1 if score < best + estimator.tol else 0
        if score > best:
            estimator.best_validation_score_ = score
            estimator._best_coefs, estimator._best_intercepts = parameters.weights, parameters.biases

    def _count_by_loss(self) -> None:
        estimator = self._estimator
        loss, best = estimator.loss_, estimator.best_loss_
        estimator._no_improvement_count = estimator._no_improvement_count + 1 if loss > best - estimator.tol else 0
        if loss < best:
            estimator.best_loss_ = loss

    def finish(self) -> None:
        """Leave the last weights, or with early stopping the best, and the optimizer's state in the estimator."""
        estimator, optimizer = self._estimator, self._estimator._optimizer
        translation.write_parameters(estimator, self._plan.read_parameters())
        translation.write_state(self._spec.network, optimizer, self._plan.read_state())
        if isinstance(self._spec.optimizer, Adam) and optimizer.t:
            optimizer.learning_rate = adam_rate(self._spec.optimizer, optimizer.learning_rate_init, optimizer.t)
        if estimator.early_stopping:
            estimator.coefs_, estimator.intercepts_ = estimator._best_coefs, estimator._best_intercepts
