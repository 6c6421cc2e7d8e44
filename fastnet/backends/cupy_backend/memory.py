"""How much of a device's memory a plan needs, reckoned before anything is uploaded.

What is left out is small: targets, sample weights, indices and figures of samples, figures of steps, partial sums, a
slice of an upload, and what CUDA and cuBLAS keep for themselves.
"""

# Legend: N samples, D features, B rows of a step (a batch, or all samples), O width of a layer, P parameters, M weights
# among them.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fastnet.backends.cupy_backend.batch_shapes import MAX_SLICES
from fastnet.backends.cupy_backend.halves import HalvesLayout, holds_bytes
from fastnet.backends.cupy_backend.narrow_layout import smallest_layout
from fastnet.data import Dataset, is_sparse
from fastnet.parameters import ParameterLayout
from fastnet.reference import initial_state
from fastnet.spec import TrainingSpec

__all__ = ["SLICE_BYTES", "Needs", "Reckon", "describe_needs", "estimate_needs", "remedies"]

# Uploaded at a time, see uploads.py.
SLICE_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes on a device.

    Attributes
    ----------
    upload : int
        Of X while it is uploaded and converted, when there are no steps yet.
    samples : int
        Of X, in the forms that are kept.
    step : int
        Of what a step makes: activations, their gradients, a batch.
    parameters : int
        Of parameters, their gradient, and the optimizer's state.
    """

    upload: int
    samples: int
    step: int
    parameters: int

    @property
    def total(self) -> int:
        """Bytes that are needed at one time."""
        return max(self.upload, self.samples + self.step) + self.parameters


Reckon = Callable[[TrainingSpec, Dataset], Needs]


def estimate_needs(path: str, spec: TrainingSpec, dataset: Dataset) -> Needs:
    """What a path of `fastnet.backends.cupy_backend.paths` needs; "generic" is the reference's engine."""
    reckon = {"generic": generic_needs, "wide": wide_needs, "batches": batches_needs, "narrow": narrow_needs}
    return reckon.get(path, kernel_needs)(spec, dataset)


def generic_needs(spec: TrainingSpec, dataset: Dataset) -> Needs:
    """Of `fastnet.backends.array_engine.ReferenceEngine` on a device."""
    upload, samples = _samples_of_the_reference(spec, dataset)
    return Needs(upload, samples, reference_step_bytes(spec, dataset), parameter_bytes(spec))


def wide_needs(spec: TrainingSpec, dataset: Dataset) -> Needs:
    """Of `fastnet.backends.cupy_backend.wide`: bytes on their way to halves, and halves of weights and gradients."""
    n_features, n_units = spec.network.layer_sizes[:2]
    halves = HalvesLayout.of(dataset.n_samples, n_features, n_units)
    step = halves.step_bytes + reference_step_bytes(spec, dataset)
    upload = halves.sample_bytes + min(int(dataset.x.size), SLICE_BYTES)
    return Needs(upload, halves.sample_bytes, step, parameter_bytes(spec))


def batches_needs(spec: TrainingSpec, dataset: Dataset) -> Needs:
    """Of `fastnet.backends.cupy_backend.batches`, at most.

    Two batches of floats; h, d_z and slices of z of all layers; the order of an epoch.
    """
    n_features, *widths = spec.network.layer_sizes
    n_rows = min(spec.batch_size or dataset.n_samples, dataset.n_samples)
    numbers = n_rows * (2 * n_features + (2 + MAX_SLICES) * sum(widths))
    order = dataset.n_samples * np.dtype(np.int64).itemsize
    return replace(kernel_needs(spec, dataset), step=numbers * np.dtype(np.float32).itemsize + order)


def kernel_needs(spec: TrainingSpec, dataset: Dataset) -> Needs:
    """At least, of paths whose own kernels take X as it is and keep activations on chip."""
    stored = stored_bytes(dataset)
    return Needs(stored, stored, 0, parameter_bytes(spec))


def narrow_needs(spec: TrainingSpec, dataset: Dataset) -> Needs:
    """Of `fastnet.backends.cupy_backend.narrow`: X in rows that are padded, and a record for each sample."""
    layout = smallest_layout(spec.network, holds_bytes(dataset))
    rows, records = dataset.n_samples * layout.row_bytes, dataset.n_samples * 4 * layout.record_words
    upload = rows + min(int(dataset.x.size) * layout.number_bytes, SLICE_BYTES)
    return Needs(upload, rows + records, 0, parameter_bytes(spec))


def _samples_of_the_reference(spec: TrainingSpec, dataset: Dataset) -> tuple[int, int]:
    """Bytes of X while it is made ready, and as it is kept: for the full batch as floats, or transposed as well."""
    stored = stored_bytes(dataset)
    if spec.batch_size:
        return stored, stored
    if is_sparse(dataset.x):
        return 2 * stored + _TRANSPOSING_BYTES * int(dataset.x.nnz), 2 * stored
    if dataset.x.dtype == spec.network.dtype:
        return stored, stored
    floats = int(dataset.x.size) * spec.network.numpy_dtype.itemsize
    return stored + floats, floats


# For each number of a sparse matrix that is transposed: its place in the new order, and its column and row in it.
_TRANSPOSING_BYTES = 3 * np.dtype(np.int64).itemsize


def stored_bytes(dataset: Dataset) -> int:
    """Bytes of X in the form in which it is uploaded."""
    x = dataset.x
    return int(x.data.nbytes + x.indices.nbytes + x.indptr.nbytes if is_sparse(x) else x.nbytes)


def reference_step_bytes(spec: TrainingSpec, dataset: Dataset) -> int:
    """Bytes of a step by the reference: z and h of all layers, two d_z at a time, and a batch of X (B, D)."""
    network = spec.network
    n_rows = min(spec.batch_size or dataset.n_samples, dataset.n_samples)
    activated = zip(network.activations, network.layer_sizes[1:], strict=False)
    forward = sum(width * (1 if activation == "identity" else 2) for activation, width in activated)
    widths = network.layer_sizes[1:]
    backward = max((below + above for below, above in pairwise(widths)), default=network.n_outputs)
    batch = network.n_features if spec.batch_size else 0
    return n_rows * (forward + network.n_outputs + backward + batch) * network.numpy_dtype.itemsize


def parameter_bytes(spec: TrainingSpec) -> int:
    """Bytes of parameters, state, the gradient of a step and that of the step before it."""
    n_states = len(initial_state(spec.optimizer, np.empty(0), xp=np))
    return (3 + n_states) * ParameterLayout.of(spec.network).size * spec.network.numpy_dtype.itemsize


def describe_needs(needs: Needs) -> str:
    """The sum, and what it is made of."""
    x = max(needs.upload, needs.samples)
    parts = {"X": x, "activations and gradients of a step": needs.step, "parameters and state": needs.parameters}
    listed = ", ".join(f"{name} {_megabytes(n_bytes)}" for name, n_bytes in parts.items())
    return f"about {_megabytes(needs.total)} ({listed})"


def remedies(spec: TrainingSpec, dataset: Dataset, free: int, reckon: Reckon) -> str:
    """What would do with `free` bytes, or without a device."""
    found = []
    if reckon(replace(spec, batch_size=1), dataset).total <= free:
        found.append(f"train on {'smaller ' if spec.batch_size else ''}batches with batch_size=")
    if not is_sparse(dataset.x) and dataset.x.dtype != np.uint8:
        as_bytes = replace(dataset, x=np.broadcast_to(np.uint8(0), dataset.x.shape))
        if reckon(spec, as_bytes).total <= free:
            found.append("pass X as uint8, scaled by input_scale=, if it holds whole numbers from 0 to 255")
    return ", or ".join([*found, "train on the CPU with backend='numba'"])


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
