"""The compiled functions that a network and its samples need."""

from __future__ import annotations

import numpy as np

from fastnet.backends.numba_backend import copies
from fastnet.backends.numba_backend.activations import ACTIVATE, BACKWARD
from fastnet.backends.numba_backend.buffers import read_only
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
from fastnet.backends.numba_backend.records import Kernels, Samples
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
) -> Kernels:
    """The functions that a network and its samples may need, compiled or loaded."""
    dtype, across, is_single, is_packed = network.numpy_dtype, layout.across, network.n_layers == 1, packed is not None
    copies_rows = not is_packed and not across and (in_batches or samples.bytes.size > 0)
    copies_columns = across and not samples.tile_columns.size
    numbers, table, matrix = read_only((), dtype), np.empty((0, 0), dtype), read_only(np.empty((0, 0)), dtype)
    out, raw, raw_out = np.empty(0, dtype), read_only((), np.uint8), np.empty(0, np.uint8)
    whole, whole_out = read_only((), np.int64), np.empty(0, np.int64)
    given_labels, labels = read_only((), np.int32), np.empty(0, np.int32)
    left, panels = Left(0, 0, 0, 0, 0, 0), Panels(0, 0, 0)
    activation = network.activations[0] if network.activations else "identity"
    sparse = sparse_kernels(*(array.dtype for array in (packed[:2] if packed else (raw, raw))))
    load = copies.load_labels if network.takes_labels else copies.load_targets
    load_weights = copies.load_weights if samples.weights.size else copies.equal_weights
    return Kernels(
        multiply.for_arguments(numbers, left, numbers, panels, out, panels, 0, 0, 0.0, numbers, panels, 0),
        dot_with_panels.for_arguments(
            numbers, panels, 0, numbers, 0, 0, 0, out, 0, 0, needed=not across and not is_single
        ),
        dots_of_rows.for_arguments(numbers, 0, 0, numbers, 0, 0, 0, 0, out, 0, False, needed=trains and across),
        row_sums.for_arguments(numbers, 0, 0, 0, 0, out, 0, False, needed=trains and (across or not is_single)),
        panel_sums.for_arguments(numbers, panels, 0, 0, out, 0, False, needed=trains and not across),
        sparse.product.for_arguments(raw, raw, whole, whole, 0, 0, 0, numbers, 0, 0, 0.0, 0, out, 0, needed=is_packed),
        sparse.product_backward.for_arguments(
            raw, raw, whole, 0, numbers, 0, 0, 0, out, 0, False, needed=is_packed and trains
        ),
        sparse.sort_by_columns.for_arguments(
            raw, raw, whole, whole, 0, 0, whole_out, raw_out, raw_out, needed=is_packed and trains and in_batches
        ),
        copies.load_rows.for_arguments(numbers, raw, whole, 0, 0, 0, out, needed=copies_rows),
        copies.load_columns.for_arguments(numbers, raw, whole, 0, 0, 0, 0, out, needed=copies_columns),
        load.for_arguments(given_labels, matrix, whole, 0, 0, labels, table, needed=trains),
        load_weights.for_arguments(numbers, whole, 0, 0, out, needed=trains),
        copies.transpose_weight.for_arguments(out, 0, 0, 0, 0, out, 0, needed=trains and layout.n_transposed > 0),
        copies.transpose_to_columns.for_arguments(out, 0, 0, 0, 0, 0, 0, needed=is_single and not across),
        copies.transpose_to_panels.for_arguments(out, 0, 0, 0, 0, 0, 0, needed=trains and is_single and not across),
        copies.clear_filling.for_arguments(out, 0, 0, 0, 0, 0, needed=bool(layout.layers["clears"].any())),
        ACTIVATE[activation].for_arguments(out),
        BACKWARD[activation].for_arguments(out, numbers, needed=trains),
        OUTPUTS[network.output].for_arguments(table, table, table),
        HEADS[network.output, network.loss].for_arguments(
            table, table, labels, table, table, table, out, needed=trains
        ),
        weigh.for_arguments(table, out, dtype.type(0), needed=trains),
        COUNTS[task, network.takes_labels].for_arguments(
            table, table, labels, table, labels, 0, whole_out, needed=trains
        ),
    )
