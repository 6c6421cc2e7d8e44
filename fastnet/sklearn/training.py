"""One fit: which backend, a plan bound to the samples, and the solver that drives it."""

# Legend: N samples, P parameters.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

from fastnet.backends.interface import TrainingPlan
from fastnet.backends.registry import Choice, choose_backend
from fastnet.data import Dataset
from fastnet.errors import DeviceMemoryError
from fastnet.sklearn import translation
from fastnet.sklearn.callbacks import Epochs
from fastnet.sklearn.choice import Work, choose
from fastnet.sklearn.lbfgs import Objective, fit_lbfgs
from fastnet.sklearn.stochastic import fit_stochastic, make_optimizer, take_batch_size
from fastnet.sklearn.validation import HeldOut, Samples, set_aside
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["loss_and_gradient", "train"]


def train(
    estimator: Any, samples: Samples, held_out: Samples | None, epochs: Epochs, *, incremental: bool
) -> tuple[Choice, str]:
    """Train an estimator whose weights are drawn; the new ones are left in it.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    samples : Samples
    held_out : Samples or None
        What to judge by; None sets some of `samples` aside where the estimator stops early.
    epochs : Epochs
        Told of each epoch.
    incremental : bool
        Whether to train for a single epoch, and go on from the optimizer's state.

    Returns
    -------
    choice : Choice
        The backend, and why.
    detail : str
        How it computed: see :attr:`fastnet.backends.interface.TrainingPlan.detail`.
    """
    if estimator.solver == "lbfgs":
        return _train_by_lbfgs(estimator, samples, epochs)
    if not incremental or not hasattr(estimator, "_optimizer"):
        estimator._optimizer = make_optimizer(estimator)
    if estimator.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    if estimator.early_stopping and held_out is None:
        samples, held_out = set_aside(estimator, samples)
    network = translation.describe_network(estimator, estimator.coefs_[0].dtype)
    batch_size = take_batch_size(estimator, samples.n_samples)
    work = Work(network.layer_sizes, samples.n_samples, batch_size, 1 if incremental else estimator.max_iter)
    choice = choose(estimator.backend, estimator.device, estimator.n_threads, work)
    spec = TrainingSpec(
        network,
        translation.describe_optimizer(estimator._optimizer),
        batch_size if batch_size < samples.n_samples else None,
        translation.task_of(estimator),
    )
    choice, plan = _plan(estimator, choice, spec, _dataset(network, samples))
    try:
        plan.write_state(translation.read_state(network, estimator._optimizer))
        judge = None
        if held_out is not None:
            _start_curves(estimator)
            dataset = _dataset(network, held_out)
            judge = HeldOut(network, spec.task, dataset, choice.backend, _has_one_class(estimator))
        fit_stochastic(estimator, spec, plan, samples.n_samples, judge, epochs, incremental=incremental)
        return choice, plan.detail
    finally:
        plan.close()


def _train_by_lbfgs(estimator: Any, samples: Samples, epochs: Epochs) -> tuple[Choice, str]:
    dtype = translation.arithmetic_dtype(samples.x.dtype, estimator.coefs_[0].dtype)
    network = translation.describe_network(estimator, dtype)
    work = Work(network.layer_sizes, samples.n_samples, samples.n_samples, estimator.max_iter)
    choice = choose(estimator.backend, estimator.device, estimator.n_threads, work)
    spec, dataset = TrainingSpec(network, task=translation.task_of(estimator)), _dataset(network, samples)
    choice, plan = _plan(estimator, choice, spec, dataset)
    try:
        fit_lbfgs(estimator, spec, plan, dataset, epochs)
        return choice, plan.detail
    finally:
        plan.close()


def loss_and_gradient(estimator: Any, flat: NDArray, samples: Samples) -> tuple[float, NDArray]:
    """Loss in nats and gradient (P,) at parameters (P,): what :func:`train` minimizes with solver "lbfgs"."""
    network = translation.describe_network(estimator, flat.dtype)
    spec, dataset = TrainingSpec(network, task=translation.task_of(estimator)), _dataset(network, samples)
    choice = choose_backend(estimator.backend, estimator.device, estimator.n_threads)
    _, plan = _plan(estimator, choice, spec, dataset)
    try:
        return Objective(spec, plan, dataset)(flat)
    finally:
        plan.close()


def _plan(estimator: Any, choice: Choice, spec: TrainingSpec, dataset: Dataset) -> tuple[Choice, TrainingPlan]:
    """A plan, on the CPU where the device that was found has too little memory; and on what it is."""
    choice.backend.check_support(spec)
    parameters = translation.read_parameters(spec.network, estimator)
    try:
        return choice, choice.backend.plan_training(spec, parameters, dataset)
    except DeviceMemoryError as error:
        if estimator.backend != "auto" or estimator.device != "auto":
            raise
        on_cpu = Choice(choose_backend("auto", "cpu", estimator.n_threads).backend, str(error))
        return on_cpu, on_cpu.backend.plan_training(spec, parameters, dataset)


def _dataset(network: NetworkSpec, samples: Samples) -> Dataset:
    weight = samples.weight
    return Dataset(
        translation.as_samples(samples.x, network.numpy_dtype),
        translation.encode_targets(network, samples.y),
        None if weight is None else np.ascontiguousarray(weight, dtype=network.dtype),
    )


def _has_one_class(estimator: Any) -> bool:
    """Whether an estimator is a classifier that has seen a single label."""
    return is_classifier(estimator) and len(estimator._label_binarizer.classes_) == 1


def _start_curves(estimator: Any) -> None:
    """Attributes for what is held out, where scikit-learn has not made them or an earlier fit began none."""
    if estimator.validation_scores_ is None:
        estimator.validation_scores_, estimator.best_validation_score_ = [], -np.inf
    if len(estimator.validation_scores_) == 0 or not hasattr(estimator, "validation_loss_curve_"):
        estimator.validation_loss_curve_ = []
