"""Frozen descriptions of a network and of its training: the only keys a backend compiles by."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fastnet.errors import SpecError, unknown_name
from fastnet.optimizers import SGD, Optimizer

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "HEADS",
    "LOSSES",
    "OUTPUTS",
    "PRECISIONS",
    "REDUCTIONS",
    "NetworkSpec",
    "Task",
    "TrainingSpec",
    "describe_network",
]

ACTIVATIONS = ("identity", "relu", "sigmoid", "tanh", "leaky_relu", "elu", "gelu", "silu")
OUTPUTS = ("softmax", "sigmoid", "identity", "exp")
LOSSES = ("cross_entropy", "squared_error", "absolute_error", "poisson", "gamma")
REDUCTIONS = ("mean", "sum")
DTYPES = ("float32", "float64")
PRECISIONS = ("fp32", "tf32")

# The losses that mean something for an output, the usual one first. Cross-entropy needs probabilities, the Poisson and
# gamma deviances a positive mean without an upper bound, and the absolute error a median, which may be anywhere.
HEADS = {
    "softmax": ("cross_entropy", "squared_error"),
    "sigmoid": ("cross_entropy", "squared_error"),
    "identity": ("squared_error", "absolute_error"),
    "exp": ("poisson", "gamma", "squared_error"),
}

# multiclass: one class per sample, the largest output wins. multilabel: any number of labels per sample, each
# output above one half counts; binary problems are its one-column case. regression: nothing is counted.
Task = Literal["multiclass", "multilabel", "regression"]


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A multilayer perceptron: sizes, activations, output, loss. Hashable; checked when it is made.

    Parameters
    ----------
    layer_sizes : tuple of int
        Features, hidden widths, outputs: at least two numbers, each at least one.
    activations : tuple of str
        One of `ACTIVATIONS` per hidden layer.
    output : str
        One of `OUTPUTS`.
    loss : str
        One of ``HEADS[output]``.
    bias : bool
        Whether layers have a bias.
    reduction : {"mean", "sum"}
        Over samples. Within a sample, losses are always summed over outputs.
    l2 : float
        Adds ``l2 / 2`` times the sum of squared weights (not biases) to the reduced loss.
    l2_averaged : bool
        Divide that penalty, like the losses, by the number of samples of the step, or the sum of their weights, as
        scikit-learn does with its ``alpha``: the smaller the batch, the stronger it is. Needs reduction "mean".
    input_scale : float
        Every feature is multiplied by it on the way in, so that ``uint8`` pixels need no float copy.
    dtype : {"float32", "float64"}
        Of parameters and arithmetic.
    precision : {"fp32", "tf32"}
        How exact products of float32 matrices must be. "tf32" is a permission, and a backend need not use it: factors
        may be rounded to 10 bits after the leading one, for a relative error of 5e-4 each; sums stay float32. "fp32"
        gives none. float64 knows "fp32" alone.

    Raises
    ------
    SpecError
        A name is unknown, a number out of range, or two arguments do not go together.
    """

    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    output: str = "softmax"
    loss: str = "cross_entropy"
    bias: bool = True
    reduction: str = "mean"
    l2: float = 0.0
    input_scale: float = 1.0
    dtype: str = "float32"
    l2_averaged: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_names()
        if self.loss not in HEADS[self.output]:
            raise SpecError(
                f"loss {self.loss!r} has no meaning for output {self.output!r}: "
                f"use loss={' or '.join(map(repr, HEADS[self.output]))}"
            )
        if self.output == "softmax" and self.n_outputs == 1:
            raise SpecError("a softmax over one output is always 1: use output='sigmoid', or one output per class")
        if not (math.isfinite(self.l2) and self.l2 >= 0):
            raise SpecError(f"l2 must be finite and not negative, got {self.l2!r}")
        if self.l2_averaged and self.reduction != "mean":
            raise SpecError(f"l2_averaged=True needs reduction='mean', got {self.reduction!r}")
        if not (math.isfinite(self.input_scale) and self.input_scale != 0):
            raise SpecError(f"input_scale must be finite and not zero, got {self.input_scale!r}")
        if self.precision == "tf32" and self.dtype != "float32":
            raise SpecError(
                f"precision='tf32' is about products of float32 matrices, and dtype is {self.dtype!r}: "
                "use dtype='float32', or leave precision as it is"
            )

    def _check_sizes(self) -> None:
        if len(self.layer_sizes) < 2:
            raise SpecError(f"layer_sizes needs at least features and outputs, got {list(self.layer_sizes)}")
        for size in self.layer_sizes:
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise SpecError(f"layer_sizes must be whole numbers of at least 1, got {list(self.layer_sizes)}")
        n_weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.layer_sizes))
        if 8 * n_weights > sys.maxsize:  # in float64, as they are drawn
            raise SpecError(f"layer_sizes {list(self.layer_sizes)} make more weights than memory has addresses")
        if len(self.activations) != self.n_layers - 1:
            raise SpecError(
                f"{self.n_layers - 1} hidden layers need {self.n_layers - 1} activations, got {len(self.activations)}"
            )

    def _check_names(self) -> None:
        for activation in self.activations:
            if activation not in ACTIVATIONS:
                raise unknown_name("activation", activation, ACTIVATIONS)
        for kind, name, allowed in (
            ("output", self.output, OUTPUTS),
            ("loss", self.loss, LOSSES),
            ("reduction", self.reduction, REDUCTIONS),
            ("dtype", self.dtype, DTYPES),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in allowed:
                raise unknown_name(kind, name, allowed)

    @property
    def n_features(self) -> int:
        """Number of inputs."""
        return self.layer_sizes[0]

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return self.layer_sizes[-1]

    @property
    def n_layers(self) -> int:
        """Number of weight matrices."""
        return len(self.layer_sizes) - 1

    @property
    def numpy_dtype(self) -> np.dtype[np.floating]:
        """`dtype` as NumPy has it."""
        return np.dtype(self.dtype)

    @property
    def takes_labels(self) -> bool:
        """Whether targets cross the seam as class indices (n_samples,) rather than as a matrix of floats."""
        return (self.output, self.loss) == ("softmax", "cross_entropy")

    def with_identity_output(self) -> NetworkSpec:
        """The same network ending before its output function: what it predicts are the logits."""
        return replace(self, output="identity", loss="squared_error")

    def in_float64(self) -> NetworkSpec:
        """The same network in float64."""
        return replace(self, dtype="float64", precision="fp32")


def describe_network(
    layer_sizes: Sequence[int],
    activation: str | Sequence[str],
    output: str,
    loss: str | None,
    bias: bool,
    reduction: str,
    l2: float,
    l2_averaged: bool,
    input_scale: float,
    dtype: Any,
    precision: str,
) -> NetworkSpec:
    """The specification for the arguments of `Network`, NumPy's own kinds of numbers and dtypes included."""
    try:
        sizes = tuple(int(size) if isinstance(size, np.integer) else size for size in layer_sizes)
        n_hidden = max(len(sizes) - 2, 0)
        return NetworkSpec(
            layer_sizes=sizes,
            activations=(activation,) * n_hidden if isinstance(activation, str) else tuple(activation),
            output=output,
            loss=HEADS[output][0] if loss is None and output in OUTPUTS else str(loss),
            bias=bool(bias),
            reduction=reduction,
            l2=float(l2),
            l2_averaged=bool(l2_averaged),
            input_scale=float(input_scale),
            dtype=str(dtype) if isinstance(dtype, str | None) else np.dtype(dtype).name,
            precision=precision,
        )
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"an argument of Network is of the wrong type, or too large: {error}") from error


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What a training plan is compiled for: the network, how it is updated, how much data one step sees.

    Parameters
    ----------
    network : NetworkSpec
    optimizer : SGD, Adam or AdamW
        Its learning rate is not read by plans, which get one rate per step.
    batch_size : int or None
        Samples per step; None trains on the full batch.
    task : {"multiclass", "multilabel", "regression"}
        What counts as a correct prediction.

    Raises
    ------
    SpecError
        `batch_size` is below one.
    """

    network: NetworkSpec
    optimizer: Optimizer = field(default_factory=SGD)
    batch_size: int | None = None
    task: Task = "regression"

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise SpecError(f"batch_size must be at least 1, got {self.batch_size}")
        if not isinstance(self.optimizer, Optimizer):
            raise SpecError(f"optimizer must be an SGD, Adam or AdamW object, got {self.optimizer!r}")

    def n_steps(self, n_samples: int) -> int:
        """Number of steps that `n_samples` samples, seen once, make."""
        return -(-n_samples // (self.batch_size or n_samples))
