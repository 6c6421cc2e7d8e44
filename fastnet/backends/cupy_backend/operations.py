"""The functions a step is made of, with fused kernels in place of the reference's array operations."""

# Legend: N samples, I fan-in, O fan-out, C outputs, P parameters, M weights among them.

from __future__ import annotations

from typing import Any

import cupy

from fastnet.backends.cupy_backend import kernels
from fastnet.backends.cupy_backend.functions import optimizer_constants
from fastnet.backends.cupy_backend.products import multiply
from fastnet.backends.cupy_backend.sparse import SparseMatrix
from fastnet.backends.cupy_backend.sums import sum_rows
from fastnet.optimizers import Adam, AdamW
from fastnet.parameters import ParameterLayout
from fastnet.reference import Operations, adam_rate
from fastnet.spec import TrainingSpec

__all__ = ["CupyOperations"]

Array = Any


class CupyOperations(Operations):
    """`fastnet.reference.Operations` on the device: nothing in here waits for it, or copies from or to the host.

    Parameters
    ----------
    precision : {"fp32", "tf32"}
        Of float32 products that are cuBLAS's. Those of sparse matrices are true float32.
    """

    def __init__(self, precision: str = "fp32") -> None:
        super().__init__(cupy)
        self.precision = precision

    def affine_activation(
        self, activation: str, x: Array, weight: Array, bias: Array | None, scale: float
    ) -> tuple[Array, Array]:
        """See :meth:`fastnet.reference.Operations.affine_activation`."""
        z = x @ weight if isinstance(x, SparseMatrix) else multiply(x, weight, precision=self.precision)
        shift = 0.0 if bias is None else bias
        if activation != "identity":
            return kernels.FORWARD[activation](z, scale, shift, z, cupy.empty_like(z))
        if bias is not None or scale != 1.0:
            kernels.ADD_BIAS(z, scale, shift, z)
        return z, z

    def activation_backward(self, activation: str, d_h: Array, z: Array, h: Array) -> Array:
        """See :meth:`fastnet.reference.Operations.activation_backward`; `d_h` is overwritten."""
        return d_h if activation == "identity" else kernels.BACKWARD[activation](d_h, z, h, d_h)

    def affine_backward(self, x: Array, d_z: Array, scale: float, d_weight: Array, d_bias: Array | None) -> None:
        """See :meth:`fastnet.reference.Operations.affine_backward`."""
        if isinstance(x, SparseMatrix):
            d_weight[...] = x.T @ d_z
        else:
            multiply(x.T, d_z, d_weight, precision=self.precision)
        if scale != 1.0:
            d_weight *= scale
        if d_bias is not None:
            sum_rows(d_z, d_bias)

    def input_gradient(self, d_z: Array, weight: Array) -> Array:
        """See :meth:`fastnet.reference.Operations.input_gradient`."""
        return multiply(d_z, weight.T, precision=self.precision)

    def head(
        self, spec: TrainingSpec, logits: Array, targets: Array, sample_weight: Array | None
    ) -> tuple[Array, Array, Array]:
        """See :meth:`fastnet.reference.Operations.head`."""
        network, (n_samples, n_outputs) = spec.network, logits.shape
        weight, total = 1.0 if sample_weight is None else sample_weight, 1.0
        # Sums of float64 and int64 are among those that CuPy brings compiled; with a conversion, they are not.
        if network.reduction == "mean":
            total = float(n_samples) if sample_weight is None else sample_weight.astype(cupy.float64).sum()
        kernel = kernels.HEADS[network.output, network.loss, spec.task]
        losses, d_logits = cupy.empty(n_samples, cupy.float64), cupy.empty_like(logits)
        if spec.task == "regression":
            kernel(logits, targets, weight, total, n_outputs, losses, d_logits)
            return losses.sum(), d_logits, 0
        correct = cupy.empty(n_samples, cupy.int64)
        kernel(logits, targets, weight, total, n_outputs, losses, d_logits, correct)
        return losses.sum(), d_logits, correct.sum()

    def penalty(self, l2: Array, weights: Array, d_weights: Array) -> Array:
        """See :meth:`fastnet.reference.Operations.penalty`."""
        _, penalties = kernels.L2_PENALTY(weights, l2, d_weights, cupy.empty(len(weights), cupy.float64))
        return penalties.sum()

    def update(
        self, spec: TrainingSpec, flat: Array, gradient: Array, state: dict[str, Array], rate: float, n_updates: int
    ) -> None:
        """See :meth:`fastnet.reference.Operations.update`."""
        optimizer = spec.optimizer
        if isinstance(optimizer, Adam):
            decay = rate * optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
            kernels.ADAM(
                gradient,
                adam_rate(optimizer, rate, n_updates),
                *optimizer_constants(optimizer),
                decay,
                ParameterLayout.of(spec.network).n_weights,
                flat,
                state["first_moment"],
                state["second_moment"],
            )
        elif optimizer.momentum:
            kernel = kernels.NESTEROV if optimizer.nesterov else kernels.MOMENTUM
            kernel(gradient, rate, optimizer.momentum, flat, state["velocity"])
        else:
            kernels.SGD(gradient, rate, flat)
