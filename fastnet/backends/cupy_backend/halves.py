"""Samples that are bytes, which halves (fp16) hold exactly: which X are, and how the wide path lays them out."""

# Legend: N samples, D features, H units of the first layer, K batches, R samples of a batch.

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastnet.data import Dataset, is_sparse

__all__ = ["HalvesLayout", "find_bytes", "holds_bytes", "remember_table"]

# What float32 features are that were made of bytes u: u itself, u / 255, and u * (1 / 255), which rounds otherwise.
_SCALES = (1.0, 1 / 255, 1 / 255)
_BYTES = np.arange(256, dtype=np.float32)
_TABLES = (_BYTES, _BYTES / np.float32(255), _BYTES * np.float32(1 / 255))

_ROWS_AT_ONCE = 1024

# cuBLAS multiplies halves soonest where rows begin at multiples of 16 bytes.
_ALIGNMENT = 8

# Tensor cores round every sum toward zero, so that an error grows with the number of terms. The gradient's sum over
# samples is therefore made in batches, whose sums are then added as float32 are. More batches would take more memory,
# and shorter ones keep fewer multiprocessors busy with one product.
_MOST_BATCHES = 32
_FEWEST_SAMPLES = 256
_MOST_SAMPLES = 2048


@dataclass(frozen=True, slots=True)
class HalvesLayout:
    """Sizes of what the wide path keeps on the device; see :func:`HalvesLayout.of`.

    Attributes
    ----------
    n_samples, n_features, n_units : int
    n_padded_features, n_padded_units : int
        Rounded up so that rows of halves are aligned.
    batch_samples : int
        R.
    n_batches : int
        K: what is multiplied at once.
    n_passes : int
        How often, to get through all samples.
    """

    n_samples: int
    n_features: int
    n_units: int
    n_padded_features: int
    n_padded_units: int
    batch_samples: int
    n_batches: int
    n_passes: int

    @staticmethod
    def of(n_samples: int, n_features: int, n_units: int) -> HalvesLayout:
        """For X (N, D) and a layer of H units."""
        n_passes = math.ceil(n_samples / (_MOST_BATCHES * _MOST_SAMPLES))
        batch_samples = max(math.ceil(n_samples / (n_passes * _MOST_BATCHES)), min(_FEWEST_SAMPLES, n_samples))
        return HalvesLayout(
            n_samples,
            n_features,
            n_units,
            n_padded_features=_round_up(n_features),
            n_padded_units=_round_up(n_units),
            batch_samples=batch_samples,
            n_batches=math.ceil(n_samples / (n_passes * batch_samples)),
            n_passes=n_passes,
        )

    @property
    def n_padded_samples(self) -> int:
        """Samples that whole batches make."""
        return self.n_passes * self.n_batches * self.batch_samples

    @property
    def sample_bytes(self) -> int:
        """Bytes of X as halves."""
        return 2 * self.n_padded_samples * self.n_padded_features

    @property
    def step_bytes(self) -> int:
        """Bytes of what is written in every step: halves of weights and gradients, products."""
        weights = self.n_padded_features * (2 + 4 * self.n_batches)
        return 2 * self.n_padded_units * (weights + 4 * self.n_samples + 2 * self.n_padded_samples)


def _round_up(size: int) -> int:
    return math.ceil(size / _ALIGNMENT) * _ALIGNMENT


class _RememberingDataset(Dataset):
    """A dataset whose X is gone through once, when that is first asked for."""

    @cached_property
    def table(self) -> int | None:
        return _find_table(self.x)


def remember_table(dataset: Dataset) -> Dataset:
    """The same dataset, for :func:`holds_bytes` and :func:`find_bytes` to go through X once for all calls."""
    return _remembering(dataset)


def _remembering(dataset: Dataset) -> _RememberingDataset:
    if isinstance(dataset, _RememberingDataset):
        return dataset
    return _RememberingDataset(dataset.x, dataset.targets, dataset.sample_weight)


def holds_bytes(dataset: Dataset) -> bool:
    """Whether every element of X (N, D) is a byte, times one scale: all of it is looked at unless the answer is no."""
    x = dataset.x
    return not is_sparse(x) and (x.dtype == np.uint8 or _remembering(dataset).table is not None)


def find_bytes(dataset: Dataset) -> tuple[NDArray[np.uint8], float]:
    """The bytes (N, D) that X is made of, where it :func:`holds_bytes`, and the scale they are multiplied by."""
    x: NDArray = dataset.x
    if x.dtype == np.uint8:
        return x, 1.0
    table = _remembering(dataset).table
    assert table is not None
    found = np.empty(x.shape, np.uint8)
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        found[rows] = _nearest_bytes(x[rows], _SCALES[table])
    return found, _SCALES[table]


def _find_table(x: NDArray) -> int | None:
    """Which of the tables all elements of float32 X are in."""
    if x.dtype != np.float32:
        return None
    tables = list(range(len(_TABLES)))
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = x[start : start + _ROWS_AT_ONCE]
        tables = [k for k in tables if np.array_equal(_TABLES[k][_nearest_bytes(rows, _SCALES[k])], rows)]
        if not tables:
            return None
    return tables[0]


def _nearest_bytes(rows: NDArray, scale: float) -> NDArray[np.uint8]:
    """Of finite `rows`; what is no byte becomes some other."""
    return np.clip(np.rint(rows * np.float32(1 / scale)), 0, 255).astype(np.uint8)
