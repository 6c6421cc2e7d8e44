"""Full batches through one narrow hidden layer: X is read once per step, by tensor cores that are as exact as float32.

A step is two launches. The first one takes samples through the network and back, tile by tile, and leaves sums over the
samples of each block. The second one adds them up and updates the parameters. Nothing is written that is as long as X,
and bytes stay bytes.
"""

from __future__ import annotations

import numpy as np

from fastnet.backends.array_plan import Engine
from fastnet.backends.cupy_backend.device import DeviceProperties
from fastnet.backends.cupy_backend.halves import holds_bytes
from fastnet.backends.cupy_backend.library import CupyLibrary
from fastnet.backends.cupy_backend.narrow_engine import NarrowEngine
from fastnet.backends.cupy_backend.narrow_layout import MAX_HIDDEN, MAX_OUTPUTS, NarrowLayout, choose_layout
from fastnet.data import Dataset, is_sparse
from fastnet.spec import TrainingSpec

__all__ = ["MIN_NUMBERS", "cannot_train", "obstacle", "open_engine"]

# Numbers in X below which the kernels, compiled for one network alone in a second or two, are not worth it: a CPU makes
# a step of so few in less time than two launches and the barriers between them take, or not much more.
MIN_NUMBERS = 1 << 16


def obstacle(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, or would be the slower choice; None if it should."""
    if not is_sparse(dataset.x) and dataset.x.size < MIN_NUMBERS:
        return f"X holds {dataset.x.size:,} numbers, fewer than {MIN_NUMBERS:,}"
    return cannot_train(spec, dataset, properties)


def cannot_train(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> str | None:
    """Why this path cannot train a network on these data, be it the slower choice or not."""
    network = spec.network
    if spec.batch_size:
        return "batches are not read in the order of samples"
    if network.dtype != "float32":
        return f"halves are not exact enough for {network.dtype}"
    if network.n_layers != 2:
        return f"{network.n_layers - 1} hidden layers instead of one"
    if network.layer_sizes[1] > MAX_HIDDEN:
        return f"{network.layer_sizes[1]} hidden units are more than {MAX_HIDDEN}"
    if network.n_outputs > MAX_OUTPUTS:
        return f"{network.n_outputs} outputs are more than {MAX_OUTPUTS}"
    if is_sparse(dataset.x):
        return "X is sparse"
    if dataset.x.dtype not in (np.uint8, np.float32):
        return f"X is {dataset.x.dtype}"
    if dataset.n_samples > np.iinfo(np.int32).max:
        return f"{dataset.n_samples:,} samples cannot be numbered in 32 bits"
    return _too_many_features(spec, dataset, properties)


def _too_many_features(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> str | None:
    available = properties.shared_memory_per_block
    # Halves take four times the memory of bytes: where they fit, too, it need not be known which of them X will be.
    if choose_layout(spec.network, False, available) or _choose_layout(spec, dataset, properties):
        return None
    form = "bytes" if holds_bytes(dataset) else "floats"
    return (
        f"{spec.network.n_features:,} features in {form} do not fit into the {available:,} bytes of shared memory and "
        "the registers of a block"
    )


def _choose_layout(spec: TrainingSpec, dataset: Dataset, properties: DeviceProperties) -> NarrowLayout | None:
    return choose_layout(spec.network, holds_bytes(dataset), properties.shared_memory_per_block)


def open_engine(spec: TrainingSpec, dataset: Dataset, library: CupyLibrary) -> Engine:
    """An engine for what :func:`cannot_train` has no reason against; within the library's scope."""
    layout = _choose_layout(spec, dataset, library.properties)
    assert layout is not None
    return NarrowEngine(spec, dataset, layout, library.properties.n_multiprocessors)
