"""What decides which compiled functions are needed: no sizes, so that there are few kinds of anything.

Kinds are looked up on disk by their ``repr``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastnet.backends.numba_backend.layout import MemoryLayout
from fastnet.backends.numba_backend.records import Samples
from fastnet.optimizers import SGD
from fastnet.spec import NetworkSpec, Task, TrainingSpec

if TYPE_CHECKING:
    from fastnet.backends.numba_backend.packing import PackedRows

__all__ = [
    "ActivationKind",
    "AnyKind",
    "DensePackingKind",
    "NetworkKind",
    "SparsePackingKind",
    "TeamKind",
    "TilePackingKind",
    "TrainingKind",
    "kind_of",
]


@dataclass(frozen=True, slots=True)
class TeamKind:
    """There is one kind of teams."""


@dataclass(frozen=True, slots=True)
class ActivationKind:
    """An activation, with its derivative for training."""

    name: str
    dtype: np.dtype
    trains: bool


@dataclass(frozen=True, slots=True)
class DensePackingKind:
    """Packing of dense samples."""

    value_dtype: np.dtype
    column_dtype: np.dtype


@dataclass(frozen=True, slots=True)
class SparsePackingKind:
    """Packing of samples in CSR format."""

    data_dtype: np.dtype
    index_dtype: np.dtype
    value_dtype: np.dtype
    column_dtype: np.dtype


@dataclass(frozen=True, slots=True)
class TilePackingKind:
    """Packing of packed samples by columns."""

    value_dtype: np.dtype
    column_dtype: np.dtype


@dataclass(frozen=True, slots=True)
class TrainingKind:
    """What decides which functions training needs, beside those of the way forward."""

    loss: str
    task: Task
    takes_labels: bool
    is_weighted: bool  # samples have weights
    sorts: bool  # packed samples are sorted by columns as they come
    by_panels: bool  # the first layer is divided by panels
    transposes: bool  # weights of hidden layers are needed transposed
    is_sgd: bool


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """All that decides which functions a network and its samples need: no sizes, so that there are few kinds."""

    dtype: np.dtype
    output: str
    across: bool
    is_single: bool  # has one layer
    clears: bool  # clears what fills up the last vector of some layer
    copies: bool  # dense samples do not lie as they are needed, nor, across, what is wanted of them
    packed: tuple[np.dtype, np.dtype] | None  # of values and columns
    training: TrainingKind | None  # none for predictions


AnyKind = TeamKind | ActivationKind | DensePackingKind | SparsePackingKind | TilePackingKind | NetworkKind


def kind_of(
    network: NetworkSpec,
    layout: MemoryLayout,
    samples: Samples,
    packed: PackedRows | None,
    spec: TrainingSpec | None = None,
    *,
    by_panels: bool = False,
) -> NetworkKind:
    """The kind of a network with its layout and its samples; of predictions without `spec`, which says how to train."""
    in_batches = spec is not None and spec.batch_size is not None
    copies_rows = not packed and (in_batches or bool(samples.bytes.size))
    return NetworkKind(
        network.numpy_dtype,
        network.output,
        layout.across,
        is_single=network.n_layers == 1,
        clears=bool(layout.layers["clears"].any()),
        copies=not samples.tile_columns.size if layout.across else copies_rows,
        packed=(packed.values.dtype, packed.columns.dtype) if packed else None,
        training=TrainingKind(
            network.loss,
            spec.task,
            network.takes_labels,
            is_weighted=bool(samples.weights.size),
            sorts=bool(packed) and not samples.tile_starts.size,
            by_panels=by_panels,
            transposes=bool(layout.n_transposed),
            is_sgd=isinstance(spec.optimizer, SGD),
        )
        if spec
        else None,
    )
