"""The compiled functions that a network and its samples need."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.numba_backend import copies
from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.compiling import NativeFunction
from fastnet.backends.numba_backend.heads import COUNTS, HEADS, OUTPUTS, weigh
from fastnet.backends.numba_backend.layout import MemoryLayout
from fastnet.backends.numba_backend.packing import PackedRows
from fastnet.backends.numba_backend.products import (
    Left,
    Panels,
    dot_with_panels,
    dots_of_rows,
    multiply,
    panel_sums,
    row_sums,
)
from fastnet.backends.numba_backend.records import KERNELS_DTYPE, Samples
from fastnet.backends.numba_backend.sparse import sparse_kernels
from fastnet.spec import NetworkSpec, Task

__all__ = ["choose_kernels"]


def choose_kernels(
    network: NetworkSpec,
    task: Task,
    layout: MemoryLayout,
    samples: Samples,
    packed: PackedRows | None,
    *,
    trains: bool,
    in_batches: bool,
) -> np.void:
    """A record of KERNELS_DTYPE: the functions that a network and its samples may need, compiled or loaded."""
    dtype, across, is_single = network.numpy_dtype, layout.across, network.n_layers == 1
    numbers, table = read_only((), dtype), np.empty((0, 0), dtype)
    out, raw, raw_out = np.empty(0, dtype), read_only((), np.uint8), np.empty(0, np.uint8)
    whole, whole_out = read_only((), np.int64), np.empty(0, np.int64)
    given_labels, labels = read_only((), np.int32), np.empty(0, np.int32)
    left, panels = Left(0, 0, 0, 0, 0, 0), Panels(0, 0, 0)
    kernels: np.void = np.zeros(1, KERNELS_DTYPE)[0]

    def need(name: str, function: NativeFunction, *arguments: Any) -> None:
        kernels[name] = function.for_arguments(*arguments).address

    need("multiply", multiply, numbers, left, numbers, panels, out, panels, 0, 0, 0.0, numbers, panels, 0)
    need("output", OUTPUTS[network.output], table, table, table)
    if packed:
        sparse = sparse_kernels(packed.values.dtype, packed.columns.dtype)
        need("sparse_product", sparse.product, raw, raw, whole, whole, 0, 0, 0, numbers, 0, 0, 0.0, 0, out, 0)
    elif not across and (in_batches or samples.bytes.size):
        need("load_rows", copies.load_rows, numbers, raw, whole, 0, 0, 0, out)
    if across and not samples.tile_columns.size:
        need("load_columns", copies.load_columns, numbers, raw, whole, 0, 0, 0, 0, out)
    if is_single and not across:
        need("transpose_to_columns", copies.transpose_to_columns, out, 0, 0, 0, 0, 0, 0)
    elif not across:
        need("dot_with_panels", dot_with_panels, numbers, panels, 0, numbers, 0, 0, 0, out, 0, 0)
    if layout.layers["clears"].any():
        need("clear_filling", copies.clear_filling, out, 0, 0, 0, 0, 0)
    if not trains:
        return kernels

    if packed:
        backward = raw, raw, whole, 0, numbers, 0, 0, 0, out, 0, False
        need("sparse_product_backward", sparse.product_backward, *backward)
        if in_batches:
            need("sort_by_columns", sparse.sort_by_columns, raw, raw, whole, whole, 0, 0, whole_out, raw_out, raw_out)
    if across:
        need("dots_of_rows", dots_of_rows, numbers, 0, 0, numbers, 0, 0, 0, 0, out, 0, False)
    else:
        need("panel_sums", panel_sums, numbers, panels, 0, 0, out, 0, False)
    if across or not is_single:
        need("row_sums", row_sums, numbers, 0, 0, 0, 0, out, 0, False)
    else:
        need("transpose_to_panels", copies.transpose_to_panels, out, 0, 0, 0, 0, 0, 0)
    if layout.n_transposed:
        need("transpose_weight", copies.transpose_weight, out, 0, 0, 0, 0, out, 0)
    load_targets = copies.load_labels if network.takes_labels else copies.load_targets
    need("load_targets", load_targets, given_labels, numbers, whole, 0, 0, labels, table)
    load_weights = copies.load_weights if samples.weights.size else copies.equal_weights
    need("load_weights", load_weights, numbers, whole, 0, 0, out)
    head = HEADS[network.output, network.loss]
    need("head", head, table, table, labels, table, table, table, out)
    need("weigh", weigh, table, out, dtype.type(0))
    need("count", COUNTS[task, network.takes_labels], table, table, labels, table, labels, 0, whole_out)
    return kernels
