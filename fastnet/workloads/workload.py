"""What a workload is, and what it is once its data are read."""

# Legend: N samples, D features, C outputs, B batch size.

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.array_backend import NumpyBackend, NumpyNamespace
from fastnet.backends.interface import TrainingPlan
from fastnet.data import Dataset, make_dataset
from fastnet.errors import SpecError
from fastnet.initializers import initialize
from fastnet.optimizers import Optimizer
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec, TrainingSpec
from fastnet.targets import TargetCoding
from fastnet.workloads.samples import DataPath, Samples

__all__ = ["SMOKE_SCALE", "LoadedWorkload", "Workload"]

# A scale at which every workload takes a fraction of a second on every backend: enough to see that it works.
SMOKE_SCALE = 0.01

# Fewer samples than this would leave a class of the workloads out.
_FEWEST_SAMPLES = 200

_SEED = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """A training to be timed.

    Attributes
    ----------
    name, title : str
        What to call it on the command line, and in a heading.
    network : NetworkSpec
    optimizer : Optimizer
        With a learning rate that does not change.
    n_samples : int
    n_epochs : int
        Epochs timed at once; with the full batch an epoch is a step.
    read : callable
        Maps the number of samples and a directory, or None, to X, y and a description of where they are from.
    init : str
        How weights start; biases start at zero.
    batch_size : int or None
        Samples per step; None trains on the full batch.
    loss_tolerance : float
        How far the loss reached may be from that of NumPy in float64, relative to it. It admits rounding in float32,
        and no mistake. Adam needs more of it: libraries differ in where they add epsilon, and some correct the moments
        in float32.
    """

    name: str
    title: str
    network: NetworkSpec
    optimizer: Optimizer
    n_samples: int
    n_epochs: int
    read: Callable[[int, DataPath | None], Samples]
    init: str = "glorot_uniform"
    batch_size: int | None = None
    loss_tolerance: float = 1e-5

    def scaled(self, scale: float) -> Workload:
        """The same workload with `scale` times the samples and epochs, each at least as many as still make sense.

        Batches stay whole, as some libraries compile anew for a last one that is shorter.
        """
        if not 0 < scale <= 1:
            raise SpecError(f"scale must be above 0 and at most 1, got {scale}")
        n_samples = max(round(scale * self.n_samples), min(_FEWEST_SAMPLES, self.n_samples))
        if self.batch_size:
            n_samples = math.ceil(n_samples / self.batch_size) * self.batch_size
        n_epochs = max(round(scale * self.n_epochs), min(2, self.n_epochs))
        return replace(self, n_samples=n_samples, n_epochs=n_epochs)

    def load(self, data: DataPath | None = None) -> LoadedWorkload:
        """Read or draw the data, and draw the initial weights; `data` is the directory of the MNIST files."""
        x, y, source = self.read(self.n_samples, data)
        coding = TargetCoding.infer(self.network, y)
        dataset = make_dataset(self.network, coding, x, y)
        layout, random = ParameterLayout.of(self.network), np.random.default_rng(_SEED)
        start = initialize(layout, self.init, "zeros", random, self.network.dtype)
        spec = TrainingSpec(self.network, self.optimizer, self.batch_size, coding.task)
        return LoadedWorkload(self, spec, dataset, start, source)


@dataclass(frozen=True, eq=False)
class LoadedWorkload:
    """A workload with its data and its start; what it reaches is known from the reference.

    Attributes
    ----------
    workload : Workload
        As it was scaled.
    spec : TrainingSpec
    dataset : Dataset
    start : Parameters
    data_source : str
        Where the data are from; synthetic data say so.
    """

    workload: Workload
    spec: TrainingSpec
    dataset: Dataset
    start: Parameters
    data_source: str

    @property
    def steps_per_epoch(self) -> int:
        """Updates that one pass over the data makes; 1 with the full batch."""
        return self.spec.n_steps(self.dataset.n_samples)

    @property
    def n_steps(self) -> int:
        """Updates that are timed at once."""
        return self.steps_per_epoch * self.workload.n_epochs

    @property
    def learning_rate(self) -> float:
        """The learning rate of every step."""
        rate = self.spec.optimizer.learning_rate
        assert isinstance(rate, float)
        return rate

    def epoch_orders(self) -> Iterator[NDArray[np.int64]]:
        """Sample indices (N,) of each epoch of mini-batches, drawn as they are asked for: shuffling is timed too."""
        random = np.random.default_rng(_SEED)
        for _ in range(self.workload.n_epochs):
            yield random.permutation(self.dataset.n_samples)

    def train(self, plan: TrainingPlan) -> None:
        """Make the `n_steps` updates with a plan, and wait for the device to finish them."""
        if self.spec.batch_size is None:
            metrics = plan.run(np.full(self.n_steps, self.learning_rate))
        else:
            rates = np.full(self.steps_per_epoch, self.learning_rate)
            for order in self.epoch_orders():
                metrics = plan.run(rates, order)
        _ = metrics.loss  # a fit records it, so a device's copy of it belongs to the time
        plan.synchronize()

    def features(self, dtype: str) -> NDArray[np.floating]:
        """X (N, D) as floats with the input scale applied: what a library gets that does not take bytes."""
        return self.dataset.x.astype(dtype) * np.dtype(dtype).type(self.spec.network.input_scale)

    def loss(self, parameters: Parameters) -> float:
        """Objective in nats over all samples at `parameters`, computed by NumPy in float64 whoever found them."""
        network = self.spec.network.in_float64()
        exact = Parameters(parameters.layout, parameters.flat.astype(np.float64))
        logits = NumpyBackend().predict(network.with_identity_output(), exact, self.dataset.x)
        head = reference.HEAD_FUNCTIONS[network.output, network.loss]
        losses, _ = head(logits, self.dataset.targets, xp=NumpyNamespace())
        return float(losses.mean() if network.reduction == "mean" else losses.sum())

    @cached_property
    def expected_loss(self) -> float:
        """The loss in nats that NumPy reaches in float64 with the same data, start and order."""
        network, dataset = self.spec.network.in_float64(), self.dataset
        targets = dataset.targets if network.takes_labels else dataset.targets.astype(np.float64)
        exact = Parameters(self.start.layout, self.start.flat.astype(np.float64))
        plan = NumpyBackend().plan_training(replace(self.spec, network=network), exact, Dataset(dataset.x, targets))
        self.train(plan)
        return self.loss(plan.read_parameters())

    def agrees(self, loss: float) -> bool:
        """Whether a loss reached is the expected one, up to rounding."""
        return abs(loss - self.expected_loss) <= self.workload.loss_tolerance * abs(self.expected_loss)
