"""PyTorch on the CPU: a module, a loss, an optimizer and the loop that everyone writes, eager or compiled."""

# Legend: N samples of a step, D features, C outputs.

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch.nn import functional

from fastnet.benchmarking.peers.peer import AbsentError, Peer
from fastnet.optimizers import Adam
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload

__all__ = ["Torch"]

Tensor = Any

ACTIVATIONS = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}


def squared_error(values: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Half the squared difference, summed over outputs (N, C), reduced over samples."""
    losses = 0.5 * (values - targets).square().sum(dim=1)
    return losses.mean() if reduction == "mean" else losses.sum()


LOSSES = {
    ("softmax", "cross_entropy"): lambda z, y, reduction: functional.cross_entropy(z, y, reduction=reduction),
    ("sigmoid", "cross_entropy"): lambda z, y, reduction: functional.binary_cross_entropy_with_logits(
        z, y, reduction=reduction
    ),
    ("sigmoid", "squared_error"): lambda z, y, reduction: squared_error(torch.sigmoid(z), y, reduction),
    ("identity", "squared_error"): squared_error,
}


class Torch(Peer):
    """PyTorch, eager or with loss, gradient and update compiled; the loop over steps is Python's.

    Adam is PyTorch's own. It adds epsilon to the corrected second moment, not to the raw one; where gradients are not
    as small as epsilon, 1e-8, this changes nothing that the tolerance of the loss would notice.
    """

    def __init__(self, loaded: LoadedWorkload, n_threads: int | None = None, *, compiled: bool) -> None:
        super().__init__(loaded)
        if compiled and not (shutil.which("g++") or shutil.which("clang++")):
            raise AbsentError("torch.compile needs a C++ compiler, and there is neither g++ nor clang++")
        how = "loss, gradient and update compiled" if compiled else "eager, one call per operation"
        self.detail = f"{how}; the loop over steps is Python's"
        self.n_threads = n_threads or torch.get_num_threads()
        self.X = torch.from_numpy(loaded.features(self.dtype))
        targets = torch.from_numpy(loaded.dataset.targets.copy())
        self.y = targets.long() if self.network.takes_labels else targets
        self.model = self._make_model()
        self.optimizer = self._make_optimizer()
        self.loss, self.update = self._compute_loss, self.optimizer.step
        if compiled:
            # Another workload compiled the same functions for other shapes: without this they would be compiled for
            # shapes of any size, or not at all.
            torch.compiler.reset()
            self.loss, self.update = (torch.compile(each, dynamic=False) for each in (self.loss, self.update))
        self.reset()

    def _make_model(self) -> Any:
        layers = []
        sizes = self.network.layer_sizes
        for layer in range(self.network.n_layers):
            layers.append(torch.nn.Linear(sizes[layer], sizes[layer + 1], bias=self.network.bias))
            if layer < len(self.network.activations):
                layers.append(ACTIVATIONS[self.network.activations[layer]]())
        return torch.nn.Sequential(*layers)

    def _make_optimizer(self) -> Any:
        described = self.loaded.spec.optimizer
        if isinstance(described, Adam):
            betas = described.beta_1, described.beta_2
            return torch.optim.Adam(
                self.model.parameters(), lr=described.learning_rate, betas=betas, eps=described.epsilon
            )
        return torch.optim.SGD(self.model.parameters(), lr=self.loaded.learning_rate)

    @property
    def _linear(self) -> list[Any]:
        return [module for module in self.model if isinstance(module, torch.nn.Linear)]

    def reset(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.reset`."""
        start = self.loaded.start
        with torch.no_grad():
            for layer, weight in zip(self._linear, start.weights, strict=True):
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
            for layer, bias in zip(self._linear, start.biases, strict=False):
                layer.bias.copy_(torch.from_numpy(bias.copy()))
            # In place, as what was compiled holds on to these tensors.
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()

    def _compute_loss(self, X: Tensor, y: Tensor) -> Tensor:
        return LOSSES[self.network.output, self.network.loss](self.model(X), y, self.network.reduction)

    def run(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.run`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.n_threads)
        try:
            self._run()
        finally:
            torch.set_num_threads(before)

    def _run(self) -> None:
        if self.batch_size is None:
            for _ in range(self.loaded.n_steps):
                self._step(self.X, self.y)
            return
        for order in self.loaded.epoch_orders():
            for batch in torch.from_numpy(order).split(self.batch_size):
                self._step(self.X[batch], self.y[batch])

    def _step(self, X: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(X, y).backward()
        self.update()

    def parameters(self) -> Parameters:
        """See :meth:`fastnet.benchmarking.Trial.parameters`."""
        weights = [layer.weight.detach().numpy().T for layer in self._linear]
        biases = [layer.bias.detach().numpy() for layer in self._linear] if self.network.bias else None
        return Parameters.from_arrays(self.loaded.start.layout, weights, biases, self.dtype)
