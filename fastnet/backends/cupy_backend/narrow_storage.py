"""Samples as the narrow path keeps them on a device: bytes where that loses nothing, else two halves for each float."""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from fastnet.backends.cupy_backend.halves import find_bytes
from fastnet.backends.cupy_backend.modules import load_module
from fastnet.backends.cupy_backend.narrow_layout import NarrowLayout
from fastnet.backends.cupy_backend.uploads import upload_into
from fastnet.data import Dataset

__all__ = ["StoredSamples", "make_records", "store_samples"]

Array = Any

_THREADS = 256  # of a block, as in ``narrow_storage.cu``
_BLOCKS_PER_MULTIPROCESSOR = 8

# Halves go up to 65504. With the largest number of a feature between 2^14 and 2^15, those down to 2^-17 of it have all
# their bits. Beyond 2^110, float32 itself is at its end.
_EXPONENT_OF_LARGEST = 15
_LARGEST_EXPONENT = 110


@dataclass(frozen=True, slots=True)
class StoredSamples:
    """X on the device.

    Attributes
    ----------
    rows : cupy.ndarray of uint8
        Padded with zeros to whole steps of features.
    scale : float
        What every number of X is multiplied by to be what it was.
    exponents : ndarray (D,) of int64
        By which powers of two the features have been multiplied; zeros for bytes.
    """

    rows: Array
    scale: float
    exponents: NDArray[np.int64]


def store_samples(dataset: Dataset, layout: NarrowLayout, n_multiprocessors: int) -> StoredSamples:
    """Bring X (N, D) to the device: bytes, or float32 that holds bytes, where `layout` is for bytes; or any float32."""
    if layout.in_bytes:
        found, scale = find_bytes(dataset)
        return StoredSamples(_upload(found, layout.row_features), scale, np.zeros(layout.n_features, np.int64))
    return _store_halves(dataset.x, layout, _BLOCKS_PER_MULTIPROCESSOR * n_multiprocessors)


def _upload(x: NDArray, row_features: int) -> Array:
    """X with rows of `row_features` numbers, the last of which are zeros, in memory that may be written to."""
    n_samples, n_features = x.shape
    rows = cupy.zeros((n_samples, row_features), x.dtype)
    upload_into(rows[:, :n_features], x)
    return rows.view(np.uint8)


def _store_halves(x: NDArray, layout: NarrowLayout, n_blocks: int) -> StoredSamples:
    n_samples, width = len(x), layout.row_features
    rows = _upload(x, width).view(np.float32)
    module = load_module("narrow_storage.cu", {})
    grid, block, shape = (min(n_blocks, n_samples),), (_THREADS,), (np.int64(n_samples), np.int32(width))
    largest = cupy.empty((grid[0], width), np.float32)
    module.get_function("fastnet_narrow_column_maxima")(grid, block, (rows, *shape, largest))
    exponents = _exponents(cupy.asnumpy(largest.max(axis=0)))
    scales = np.exp2(exponents).astype(np.float32)
    module.get_function("fastnet_narrow_split")(grid, block, (rows, *shape, cupy.asarray(scales)))
    return StoredSamples(rows.view(np.uint8), 1.0, exponents[: x.shape[1]])


def _exponents(largest: NDArray[np.float32]) -> NDArray[np.int64]:
    """By which powers of two to multiply features whose largest magnitudes are given.

    Weights are divided by them. Those of a feature that is zero everywhere are made so small that they do not count.
    """
    exponents = np.minimum(_EXPONENT_OF_LARGEST - np.frexp(largest)[1].astype(np.int64), _LARGEST_EXPONENT)
    return np.where(largest > 0, exponents, _LARGEST_EXPONENT)


def make_records(dataset: Dataset, layout: NarrowLayout) -> tuple[NDArray[np.float32], float]:
    """What goes with each sample (N, ``layout.record_words``), and the mean of the weights.

    A record holds the label, the bits of an int32, or the targets (C,), and then the weight, divided by the mean of all
    weights: so gradients keep the magnitude that they have without.
    """
    records = np.zeros((dataset.n_samples, layout.record_words), np.float32)
    targets = dataset.targets.reshape(dataset.n_samples, -1)
    records[:, : targets.shape[1]] = targets.view(np.float32) if layout.takes_labels else targets
    mean = 1.0
    if dataset.sample_weight is not None:
        mean = float(dataset.sample_weight.mean(dtype=np.float64))
    records[:, targets.shape[1]] = 1.0 if dataset.sample_weight is None else dataset.sample_weight / mean
    return records, mean
