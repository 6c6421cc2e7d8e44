"""The from-scratch NumPy script of countless tutorials, with correct gradients.

Their habits are kept: data as (features, samples), one-hot targets, float64, a new array for every result.
"""

# Legend: D features, N samples of a step, I fan-in, O fan-out, C outputs. W (O, I), b (O, 1), X (D, N), A (O, N),
# Y (C, N). The gradients of most such scripts sum db over the whole layer, into one number; here each unit has its own.

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fastnet.benchmarking.peers.peer import Peer, limited_blas, n_blas_threads
from fastnet.optimizers import Adam
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload

__all__ = ["NumpyScript"]

Arrays = list[NDArray]


def sigmoid(Z: NDArray) -> NDArray:
    """Of each number."""
    A: NDArray = 1 / (1 + np.exp(-Z))
    return A


def softmax(Z: NDArray) -> NDArray:
    """Of each column."""
    E: NDArray = np.exp(Z - Z.max(axis=0))
    return E / E.sum(axis=0)


ACTIVATIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "relu": lambda Z: np.maximum(Z, 0),
    "sigmoid": sigmoid,
    "softmax": softmax,
    "identity": lambda Z: Z,
}
DERIVATIVES: dict[str, Callable[[NDArray], NDArray]] = {"relu": lambda A: A > 0, "sigmoid": lambda A: A * (1 - A)}


def forward(W: Arrays, b: Arrays, X: NDArray, activations: Sequence[str]) -> Arrays:
    """X, and the output of every layer."""
    A = [X]
    for Wl, bl, activation in zip(W, b, activations, strict=True):
        A.append(ACTIVATIONS[activation](Wl @ A[-1] + bl))
    return A


def backward(
    W: Arrays, A: Arrays, Y: NDArray, activations: Sequence[str], *, canonical: bool, mean: bool
) -> tuple[Arrays, Arrays]:
    """Gradients of all weights and biases; `canonical` says that the loss's derivative by Z is just A - Y."""
    dZ = A[-1] - Y
    if not canonical:
        dZ = dZ * DERIVATIVES[activations[-1]](A[-1])
    if mean:
        dZ = dZ / Y.shape[1]
    dW: Arrays = []
    db: Arrays = []
    for layer in reversed(range(len(W))):
        dW.insert(0, dZ @ A[layer].T)
        db.insert(0, dZ.sum(axis=1, keepdims=True))
        if layer:
            dZ = W[layer].T @ dZ * DERIVATIVES[activations[layer - 1]](A[layer])
    return dW, db


def update(values: Arrays, gradients: Arrays, learning_rate: float) -> None:
    """Gradient descent."""
    for value, gradient in zip(values, gradients, strict=True):
        value[...] = value - learning_rate * gradient


def update_adam(
    values: Arrays, gradients: Arrays, first: Arrays, second: Arrays, t: int, optimizer: Adam, learning_rate: float
) -> None:
    """In the form of fastnet and scikit-learn: see `fastnet.Adam`."""
    b1, b2 = optimizer.beta_1, optimizer.beta_2
    rate = learning_rate * np.sqrt(1 - b2**t) / (1 - b1**t)
    for value, gradient, m, v in zip(values, gradients, first, second, strict=True):
        m[...] = b1 * m + (1 - b1) * gradient
        v[...] = b2 * v + (1 - b2) * gradient**2
        value[...] = value - rate * m / (np.sqrt(v) + optimizer.epsilon)


class NumpyScript(Peer):
    """The script as a trial, in float64 as it is usually run, or in float32."""

    detail = "array operations on samples in columns, a new array for every result"

    def __init__(self, loaded: LoadedWorkload, n_threads: int | None = None, *, dtype: str) -> None:
        super().__init__(loaded)
        self.dtype = dtype
        self.thread_limit, self.n_threads = n_threads, n_blas_threads(n_threads)
        self.activations = [*self.network.activations, self.network.output]
        self.X = np.ascontiguousarray(loaded.features(dtype).T)
        targets = loaded.dataset.targets
        if self.network.takes_labels:
            targets = np.eye(self.network.n_outputs)[targets]
        self.Y = np.ascontiguousarray(targets.T, dtype)
        self.reset()

    def reset(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.reset`."""
        start = self.loaded.start
        self.W = [np.array(weight.T, self.dtype, order="C") for weight in start.weights]
        self.b = [np.zeros((len(Wl), 1), self.dtype) for Wl in self.W]
        for bl, bias in zip(self.b, start.biases, strict=False):
            bl[:, 0] = bias
        self.first, self.second = ([np.zeros_like(value) for value in self.W + self.b] for _ in range(2))
        self.t = 0

    def run(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.run`."""
        with limited_blas(self.thread_limit):
            self._run()

    def _run(self) -> None:
        if self.batch_size is None:
            for _ in range(self.loaded.n_steps):
                self._step(self.X, self.Y)
            return
        for order in self.loaded.epoch_orders():
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                self._step(self.X[:, batch], self.Y[:, batch])

    def _step(self, X: NDArray, Y: NDArray) -> None:
        A = forward(self.W, self.b, X, self.activations)
        canonical = (self.network.output, self.network.loss) != ("sigmoid", "squared_error")
        dW, db = backward(self.W, A, Y, self.activations, canonical=canonical, mean=self.network.reduction == "mean")
        values, gradients = (self.W + self.b, dW + db) if self.network.bias else (self.W, dW)
        self.t += 1
        optimizer, rate = self.loaded.spec.optimizer, self.loaded.learning_rate
        if isinstance(optimizer, Adam):
            update_adam(values, gradients, self.first, self.second, self.t, optimizer, rate)
        else:
            update(values, gradients, rate)

    def parameters(self) -> Parameters:
        """See :meth:`fastnet.benchmarking.Trial.parameters`."""
        weights, biases = [Wl.T for Wl in self.W], [bl[:, 0] for bl in self.b]
        return Parameters.from_arrays(
            self.loaded.start.layout, weights, biases if self.network.bias else None, self.dtype
        )
