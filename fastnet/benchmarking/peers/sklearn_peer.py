"""scikit-learn's MLPClassifier and MLPRegressor with settings that make them do the same steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from fastnet.benchmarking.peers.peer import AbsentError, Peer, limited_blas, n_blas_threads
from fastnet.optimizers import Adam
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload

__all__ = ["ScikitLearn"]

ESTIMATORS = {
    ("softmax", "cross_entropy"): MLPClassifier,
    ("sigmoid", "cross_entropy"): MLPClassifier,
    ("identity", "squared_error"): MLPRegressor,
}
ACTIVATIONS = {"relu": "relu", "sigmoid": "logistic"}


class ScikitLearn(Peer):
    """An estimator that starts from our weights, in float32, which it keeps when X is float32.

    Mini-batches come in our order: X is put into that order for each epoch, at once, within the time, where
    scikit-learn would pick the rows batch by batch.
    """

    def __init__(self, loaded: LoadedWorkload, n_threads: int | None = None) -> None:
        super().__init__(loaded)
        head = self.network.output, self.network.loss
        if not self.network.bias:
            raise AbsentError("scikit-learn's networks always have biases")
        if head not in ESTIMATORS:
            raise AbsentError(f"scikit-learn has no network with output {head[0]} and loss {head[1]}")
        self.thread_limit, self.n_threads = n_threads, n_blas_threads(n_threads)
        self.estimator_type = ESTIMATORS[head]
        self.detail = f"{self.estimator_type.__name__} with settings that make it do the same steps"
        self.X = loaded.features(self.dtype)
        targets = loaded.dataset.targets
        # A classifier takes labels, a sigmoid's too.
        self.y = targets if self.estimator_type is MLPRegressor else targets.reshape(len(targets)).astype(np.int64)
        self.reset()

    def reset(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.reset`."""
        self.estimator = self.estimator_type(**self._settings())
        # A first update lets it set itself up. Its traces go: weights here, the optimizer at the next call of fit.
        classes = {"classes": np.unique(self.y)} if self.estimator_type is MLPClassifier else {}
        size = self.estimator.batch_size
        self.estimator.partial_fit(self.X[:size], self.y[:size], **classes)
        self.estimator.set_params(warm_start=True)
        start = self.loaded.start.copy()
        self.estimator.coefs_, self.estimator.intercepts_ = start.weights, start.biases

    def _settings(self) -> dict[str, Any]:
        optimizer = self.loaded.spec.optimizer
        settings = {
            "hidden_layer_sizes": self.network.layer_sizes[1:-1],
            "activation": ACTIVATIONS[self.network.activations[0]],
            "batch_size": self.batch_size or len(self.X),
            "learning_rate_init": self.loaded.learning_rate,
            "alpha": 0.0,
            "shuffle": False,
            "tol": 0.0,
            "n_iter_no_change": 10**9,
            "max_iter": 1 if self.batch_size else self.loaded.workload.n_epochs,
        }
        if isinstance(optimizer, Adam):
            moments = {"beta_1": optimizer.beta_1, "beta_2": optimizer.beta_2, "epsilon": optimizer.epsilon}
            return settings | {"solver": "adam"} | moments
        return settings | {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False}

    def run(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.run`."""
        with limited_blas(self.thread_limit), warnings.catch_warnings(action="ignore"):  # that it has not converged
            if self.batch_size is None:
                self.estimator.fit(self.X, self.y)
                return
            for epoch, order in enumerate(self.loaded.epoch_orders()):
                train = self.estimator.partial_fit if epoch else self.estimator.fit  # fit begins a new optimizer
                train(self.X[order], self.y[order])

    def parameters(self) -> Parameters:
        """See :meth:`fastnet.benchmarking.Trial.parameters`."""
        return Parameters.from_arrays(
            self.loaded.start.layout, self.estimator.coefs_, self.estimator.intercepts_, self.dtype
        )
