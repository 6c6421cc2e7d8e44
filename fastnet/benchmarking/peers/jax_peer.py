"""JAX on the CPU at its best: one compiled function per round of steps or epoch, the loop inside, buffers donated."""

# Legend: N samples, D features, C outputs, S steps of an epoch, B batch size.

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from fastnet.benchmarking.machine import n_usable_cpus
from fastnet.benchmarking.peers.peer import AbsentError, Peer
from fastnet.optimizers import Adam
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload

__all__ = ["Jax"]

Array = Any
State = Any  # the values, two moments like them, and the number of updates

ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


def softmax_cross_entropy(z: Array, labels: Array) -> Array:
    """Of each sample (N,): z (N, C), labels (N,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(z), labels[:, None], axis=1)[:, 0]


def sigmoid_cross_entropy(z: Array, y: Array) -> Array:
    """Of each sample (N,), summed over outputs: z and y (N, C)."""
    return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).sum(axis=1)


def squared_error(values: Array, y: Array) -> Array:
    """Half the squared difference of each sample (N,), summed over outputs: both (N, C)."""
    return 0.5 * jnp.square(values - y).sum(axis=1)


LOSSES = {
    ("softmax", "cross_entropy"): softmax_cross_entropy,
    ("sigmoid", "cross_entropy"): sigmoid_cross_entropy,
    ("sigmoid", "squared_error"): lambda z, y: squared_error(jax.nn.sigmoid(z), y),
    ("identity", "squared_error"): squared_error,
}


class Jax(Peer):
    """JAX with the loop over steps inside the compiled function.

    XLA takes a thread for each CPU and has no setting for fewer, so where fewer are allowed, JAX is absent.
    """

    detail = "one compiled function with the loop over steps inside"

    def __init__(self, loaded: LoadedWorkload, n_threads: int | None = None) -> None:
        super().__init__(loaded)
        self.n_threads = n_usable_cpus()
        if n_threads is not None and n_threads < self.n_threads:
            raise AbsentError(f"JAX takes a thread for each of {self.n_threads} CPUs, and {n_threads} are allowed")
        self.cpu = jax.devices("cpu")[0]
        self.X, self.y = self._put(loaded.features(self.dtype)), self._put(loaded.dataset.targets)
        if self.batch_size is None:
            self.train = jax.jit(self._train_full_batch, donate_argnums=0)
        else:
            self.train = jax.jit(self._train_epoch, donate_argnums=0)
        self.reset()

    def _put(self, array: NDArray | int) -> Array:
        return jax.device_put(array, self.cpu)

    def reset(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.reset`."""
        start = self.loaded.start
        biases: list[Any] = [*start.biases] or [None] * self.network.n_layers
        values = [
            {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            for weight, bias in zip(start.weights, biases, strict=True)
        ]
        values = jax.tree.map(lambda array: self._put(array.copy()), values)
        zeros = partial(jax.tree.map, jnp.zeros_like)
        self.state = (values, zeros(values), zeros(values), self._put(0))

    def _objective(self, values: Any, X: Array, y: Array) -> Array:
        h = X
        for layer, activation in zip(values, [*self.network.activations, None], strict=True):
            z = h @ layer["weight"] + layer.get("bias", 0.0)
            h = z if activation is None else ACTIVATIONS[activation](z)
        losses = LOSSES[self.network.output, self.network.loss](h, y)
        return losses.mean() if self.network.reduction == "mean" else losses.sum()

    def _step(self, state: State, X: Array, y: Array) -> State:
        values, first, second, t = state
        gradients = jax.grad(self._objective)(values, X, y)
        optimizer = self.loaded.spec.optimizer
        t = t + 1
        if not isinstance(optimizer, Adam):
            values = jax.tree.map(lambda p, g: p - self.loaded.learning_rate * g, values, gradients)
            return values, first, second, t
        b1, b2 = optimizer.beta_1, optimizer.beta_2
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, second, gradients)
        rate = optimizer.learning_rate * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        values = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + optimizer.epsilon), values, first, second)
        return values, first, second, t

    def _train_full_batch(self, state: State, X: Array, y: Array) -> State:
        return jax.lax.fori_loop(0, self.loaded.n_steps, lambda _, s: self._step(s, X, y), state)

    def _train_epoch(self, state: State, X: Array, y: Array, order: Array) -> State:
        """`order` is (S, B): workloads have whole batches."""
        return jax.lax.scan(lambda s, batch: (self._step(s, X[batch], y[batch]), None), state, order)[0]

    def run(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.run`."""
        if self.batch_size is None:
            self.state = self.train(self.state, self.X, self.y)
        else:
            for order in self.loaded.epoch_orders():
                batches = self._put(order.astype("int32").reshape(-1, self.batch_size))
                self.state = self.train(self.state, self.X, self.y, batches)
        jax.block_until_ready(self.state)

    def parameters(self) -> Parameters:
        """See :meth:`fastnet.benchmarking.Trial.parameters`."""
        values = self.state[0]
        weights = [layer["weight"] for layer in values]
        biases = [layer["bias"] for layer in values] if self.network.bias else None
        return Parameters.from_arrays(self.loaded.start.layout, weights, biases, self.dtype)
