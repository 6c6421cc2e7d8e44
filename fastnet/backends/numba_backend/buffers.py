"""From specifications and data to the records that kernels take, and the memory that they work in."""

# Legend: N samples, D features, L layers, P parameters, K workers, G groups of rows.

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend.kinds import ActivationKind, NetworkKind
from fastnet.backends.numba_backend.layout import CACHE_LINE, MemoryLayout
from fastnet.backends.numba_backend.native import native_functions
from fastnet.backends.numba_backend.packing import PackedRows, PackedTiles, TileColumns
from fastnet.backends.numba_backend.partition import count_chunks, count_panel_items
from fastnet.backends.numba_backend.records import (
    ADAM,
    KERNELS_DTYPE,
    MOMENTUM,
    NESTEROV,
    PLAIN_SGD,
    CodedNetwork,
    CodedOptimizer,
    GroupSums,
    OptimizerState,
    Samples,
    Scratch,
)
from fastnet.optimizers import SGD, AdamW, Optimizer
from fastnet.spec import NetworkSpec

__all__ = [
    "TilePlaces",
    "code_kernels",
    "code_network",
    "code_optimizer",
    "code_samples",
    "make_group_sums",
    "make_scratch",
    "make_state",
    "read_only",
]

_NO_BYTES = np.empty(0, np.uint8)


def code_network(
    network: NetworkSpec, layout: MemoryLayout, packed: PackedRows | None, *, trains: bool
) -> CodedNetwork:
    """The record of a network, for samples as they are packed."""
    layers = layout.layers.copy()
    if network.n_layers > 1:
        addresses = [_choose_activation(name, network.numpy_dtype, trains) for name in network.activations]
        layers["activate"][:-1], layers["backward"][:-1] = zip(*addresses, strict=True)
    return CodedNetwork(
        layers,
        network.n_outputs,
        layout.across,
        layout.lanes,
        layout.row_multiple,
        layout.logits,
        layout.outputs,
        layout.d_logits,
        layout.loss_rows,
        is_mean=network.reduction == "mean",
        l2=float(network.l2),
        l2_averaged=network.l2_averaged,
        input_scale=float(network.input_scale) * (packed.scale if packed else 1.0),
        first_weight_size=layout.first_weight_size,
        n_weights=layout.n_weights,
        n_parameters=layout.n_parameters if network.bias else layout.n_weights,
    )


@cache
def _choose_activation(name: str, dtype: np.dtype, trains: bool) -> tuple[int, int]:
    """Addresses of an activation and of its derivative; zero for what is not needed."""
    functions = native_functions(ActivationKind(name, dtype, trains))
    return functions["activate"], functions.get("backward", 0)


@cache
def code_kernels(kind: NetworkKind) -> NDArray:
    """A record (1,) of KERNELS_DTYPE: the functions that networks of a kind need."""
    kernels = np.zeros(1, KERNELS_DTYPE)
    for name, address in native_functions(kind).items():
        kernels[name] = address
    return kernels


def code_optimizer(optimizer: Optimizer) -> CodedOptimizer:
    """The record of an optimizer."""
    if isinstance(optimizer, SGD):
        plain_or_momentum = MOMENTUM if optimizer.momentum else PLAIN_SGD
        kind = NESTEROV if optimizer.nesterov else plain_or_momentum
        return CodedOptimizer(kind, momentum=float(optimizer.momentum))
    return CodedOptimizer(
        ADAM,
        beta_1=float(optimizer.beta_1),
        beta_2=float(optimizer.beta_2),
        epsilon=float(optimizer.epsilon),
        weight_decay=float(optimizer.weight_decay) if isinstance(optimizer, AdamW) else 0.0,
    )


def code_samples(
    network: NetworkSpec,
    x: Any,
    packed: PackedRows | None,
    *,
    targets: NDArray | None = None,
    sample_weight: NDArray | None = None,
    packed_tiles: PackedTiles | None = None,
    tile_columns: TileColumns | None = None,
) -> Samples:
    """The record of samples (N, D), and of what belongs to them, as far as given.

    What has the right dtype is not copied.
    """
    dtype = network.numpy_dtype
    labels, matrix = _by_kind(network, targets)
    tile_labels, tile_targets = _by_kind(network, tile_columns.targets if tile_columns else None)
    of_bytes = packed is None and x.dtype == np.uint8
    return Samples(
        network.n_features,
        numbers=read_only(() if packed or of_bytes else x, dtype).reshape(-1),
        bytes=read_only(x if of_bytes else (), np.uint8).reshape(-1),
        packed_values=_raw(packed.values if packed else _NO_BYTES),
        packed_columns=_raw(packed.columns if packed else _NO_BYTES),
        row_starts=read_only(packed.row_starts if packed else (), np.int64),
        tile_columns=read_only(tile_columns.samples if tile_columns else (), dtype),
        tile_labels=read_only(tile_labels, np.int32),
        tile_targets=read_only(tile_targets, dtype),
        tile_weights=read_only(tile_columns.weights if tile_columns else (), dtype),
        tile_values=_raw(packed_tiles.values if packed_tiles else _NO_BYTES),
        tile_rows=_raw(packed_tiles.rows if packed_tiles else _NO_BYTES),
        tile_starts=read_only(packed_tiles.starts if packed_tiles else np.empty((0, 0)), np.int64),
        labels=read_only(labels, np.int32),
        targets=read_only(matrix, dtype).reshape(-1),
        weights=read_only(() if sample_weight is None else sample_weight, dtype),
    )


def _by_kind(network: NetworkSpec, targets: NDArray | None) -> tuple[Any, Any]:
    """Targets that are labels, and others; an empty sequence for what there is none of."""
    given: Any = () if targets is None else targets
    return (given, ()) if network.takes_labels else ((), given)


def read_only(array: Any, dtype: Any) -> NDArray:
    """A view, or where its dtype or layout cannot be used, a copy, that cannot be written to."""
    view = np.require(array, dtype, ["C", "A"]).view(np.ndarray)
    view.flags.writeable = False
    return view


def _raw(array: NDArray) -> NDArray[np.uint8]:
    return read_only(array.view(np.uint8), np.uint8)


def make_state(layout: MemoryLayout, flat: NDArray, remembered: list[NDArray]) -> OptimizerState:
    """The record of a copy of the parameters (P,), and of up to two arrays (P,) that the optimizer remembers."""
    own = aligned_rows(2 + len(remembered), layout.n_parameters, flat.dtype)
    own[:] = 0
    own[0, layout.positions] = flat
    for row, array in zip(own[2:], remembered, strict=True):
        row[layout.positions] = array
    nothing = np.empty(0, flat.dtype)
    first, second = [*own[2:], nothing, nothing][:2]
    most_parts = count_chunks(layout.n_parameters) + count_panel_items(layout.layers["width"][0], layout.lanes)
    return OptimizerState(own[0], own[1], first, second, penalties=np.zeros(most_parts))


class TilePlaces(NamedTuple):
    """Places for tiles of samples, with room to sort so many non-zeros of each by their columns."""

    n_places: int
    tile_rows: int
    n_features: int = 0
    sorted_size: int = 0


def make_scratch(
    layout: MemoryLayout,
    tiles: TilePlaces,
    n_workers: int,
    dtype: np.dtype,
    *,
    by_panels: bool = False,
    numbers_of_batch: int = 0,
) -> Scratch:
    """Working memory of `n_workers`, and of tiles, and of two batches of so many numbers."""
    tile_size = tiles.tile_rows * layout.n_columns
    return Scratch(
        n_workers,
        by_panels,
        tiles.n_places,
        tiles.tile_rows,
        # Blocks of rows may reach beyond the last row of a tile, to the next panel.
        aligned_rows(tiles.n_places, tile_size + layout.lanes**2, dtype),
        values=aligned_rows(tiles.n_places, tiles.sorted_size * dtype.itemsize, np.dtype(np.uint8)),
        rows=aligned_rows(tiles.n_places, tiles.sorted_size, np.dtype(np.uint8)),
        starts=np.zeros((tiles.n_places, tiles.n_features + 1), np.int64),
        batches=aligned_rows(2, numbers_of_batch, dtype),
        transposed=aligned_rows(n_workers, layout.n_transposed, dtype),
        labels=np.zeros((n_workers, 2, tiles.tile_rows), np.int32),
        n_correct=np.zeros((n_workers, CACHE_LINE), np.int64),
    )


def make_group_sums(layout: MemoryLayout, n_groups: int, dtype: np.dtype) -> GroupSums:
    """Room for what `n_groups` contribute to a step."""
    gradients = aligned_rows(n_groups, layout.n_parameters, dtype)
    gradients[:] = 0  # what fills up vectors is never written
    return GroupSums(gradients, np.zeros(n_groups), np.zeros(n_groups, np.int64))


def aligned_rows(n_rows: int, row_size: int, dtype: np.dtype) -> NDArray:
    """Uninitialised (n_rows, at least row_size), each row at the start of a cache line, which no two threads share."""
    padded = -(-row_size * dtype.itemsize // CACHE_LINE) * CACHE_LINE
    memory = np.empty(n_rows * padded + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + n_rows * padded].view(dtype).reshape(n_rows, padded // dtype.itemsize)
