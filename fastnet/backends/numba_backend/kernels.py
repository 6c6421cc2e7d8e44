"""The compiled functions that a network and its samples need."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend import copies
from fastnet.backends.numba_backend.across import backward_across, forward_across
from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.companion import tell
from fastnet.backends.numba_backend.compiling import NativeFunction
from fastnet.backends.numba_backend.drivers import predict, predict_share, run_steps
from fastnet.backends.numba_backend.gradients import gradient_share
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
from fastnet.backends.numba_backend.records import (
    KERNELS_DTYPE,
    CodedNetwork,
    CodedOptimizer,
    Prediction,
    Samples,
    Scratch,
    Training,
    record_dtype,
)
from fastnet.backends.numba_backend.sharing import Share
from fastnet.backends.numba_backend.sparse import sparse_kernels
from fastnet.backends.numba_backend.updates import adam_update, sgd_update, update_share
from fastnet.backends.numba_backend.upright import backward_upright, forward_upright
from fastnet.optimizers import SGD
from fastnet.spec import NetworkSpec, Task, TrainingSpec

__all__ = ["Kind", "choose_kernels", "kind_of", "needed_functions"]


class TrainingKind(NamedTuple):
    """What decides which functions training needs, beside those of the way forward."""

    loss: str
    task: Task
    takes_labels: bool
    is_weighted: bool  # samples have weights
    sorts: bool  # packed samples come in another order each time
    transposes: bool  # weights of hidden layers are needed transposed
    is_sgd: bool


class Kind(NamedTuple):
    """All that decides which functions a network and its samples need: no sizes, so that there are few kinds."""

    dtype: np.dtype
    output: str
    across: bool
    is_single: bool  # has one layer
    clears: bool  # clears what fills up the last vector of some layer
    copies: bool  # dense samples do not lie as they are needed
    packed: tuple[np.dtype, np.dtype] | None  # of values and columns
    training: TrainingKind | None  # none for predictions


def kind_of(
    network: NetworkSpec,
    layout: MemoryLayout,
    samples: Samples,
    packed: PackedRows | None,
    spec: TrainingSpec | None = None,
) -> Kind:
    """The kind of a network with its layout and its samples; of predictions without `spec`, which says how to train."""
    in_batches = spec is not None and spec.batch_size is not None
    copies_rows = not packed and (in_batches or bool(samples.bytes.size))
    return Kind(
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
            sorts=bool(packed) and in_batches,
            transposes=bool(layout.n_transposed),
            is_sgd=isinstance(spec.optimizer, SGD),
        )
        if spec
        else None,
    )


class NeededFunction(NamedTuple):
    """A function by its name in KERNELS_DTYPE, and arguments of the types that it is compiled for."""

    name: str
    function: NativeFunction
    arguments: tuple[Any, ...]


@cache
def choose_kernels(kind: Kind) -> NDArray:
    """A record (1,) of KERNELS_DTYPE: the functions that networks of a kind need, compiled or loaded."""
    kernels = np.zeros(1, KERNELS_DTYPE)
    tell(kind)
    for name, function, arguments in needed_functions(kind):
        kernels[name] = function.for_arguments(*arguments).address
    return kernels


def needed_functions(kind: Kind) -> list[NeededFunction]:
    """What is compiled or loaded for networks of a kind."""
    dtype, across, is_single = kind.dtype, kind.across, kind.is_single
    numbers, table = read_only((), dtype), np.empty((0, 0), dtype)
    out, raw, raw_out = np.empty(0, dtype), read_only((), np.uint8), np.empty(0, np.uint8)
    whole, whole_out = read_only((), np.int64), np.empty(0, np.int64)
    given_labels, labels = read_only((), np.int32), np.empty(0, np.int32)
    left, panels, share = Left(0, 0, 0, 0, 0, 0), Panels(0, 0, 0), Share(0, 0, 0, 0, 0)
    network, chosen, samples, scratch = (
        np.zeros(1, each)[0]
        for each in (record_dtype(CodedNetwork), KERNELS_DTYPE, record_dtype(Samples), record_dtype(Scratch))
    )
    needed: list[NeededFunction] = []

    def need(name: str, function: NativeFunction, *arguments: Any) -> None:
        needed.append(NeededFunction(name, function, arguments))

    forward = forward_across if across else forward_upright
    need("forward", forward, network, chosen, samples, whole, 0, 0, 0, out, out, 0)
    need("multiply", multiply, numbers, left, numbers, panels, out, panels, 0, 0, 0.0, numbers, panels, 0)
    need("output", OUTPUTS[kind.output], table, table, table)
    if kind.packed:
        sparse = sparse_kernels(*kind.packed)
        need("sparse_product", sparse.product, raw, raw, whole, whole, 0, 0, 0, numbers, 0, 0, 0.0, 0, out, 0)
    if kind.copies and across:
        need("load_columns", copies.load_columns, numbers, raw, whole, 0, 0, 0, 0, out)
    elif kind.copies:
        need("load_rows", copies.load_rows, numbers, raw, whole, 0, 0, 0, out)
    if is_single and not across:
        need("transpose_to_columns", copies.transpose_to_columns, out, 0, 0, 0, 0, 0, 0)
    elif not across:
        need("dot_with_panels", dot_with_panels, numbers, panels, 0, numbers, 0, 0, 0, out, 0, 0)
    if kind.clears:
        need("clear_filling", copies.clear_filling, out, 0, 0, 0, 0, 0)
    if not kind.training:
        prediction = np.zeros(1, record_dtype(Prediction, dtype))[0]
        need("predict", predict, 0, 0, prediction)
        need("predict_share", predict_share, share, 0, prediction)
        return needed

    training = np.zeros(1, record_dtype(Training, dtype))[0]
    need("run_steps", run_steps, 0, 0, training)
    need("gradient_share", gradient_share, share, 0, training)
    need("update_share", update_share, share, 0, training)
    optimizer = np.zeros(1, record_dtype(CodedOptimizer))[0]
    need("update", sgd_update if kind.training.is_sgd else adam_update, optimizer, 0.0, 0, 0, out, out, out, out)
    backward = backward_across if across else backward_upright
    need("backward", backward, network, chosen, samples, scratch, 0, whole, 0, 0, 0, out, out, out, False)
    if kind.packed:
        sparse_backward = raw, raw, whole, 0, numbers, 0, 0, 0, out, 0, False
        need("sparse_product_backward", sparse.product_backward, *sparse_backward)
    if kind.training.sorts:
        need("sort_by_columns", sparse.sort_by_columns, raw, raw, whole, whole, 0, 0, whole_out, raw_out, raw_out)
    if across:
        need("dots_of_rows", dots_of_rows, numbers, 0, 0, numbers, 0, 0, 0, 0, out, 0, False)
    else:
        need("panel_sums", panel_sums, numbers, panels, 0, 0, out, 0, False)
    if across or not is_single:
        need("row_sums", row_sums, numbers, 0, 0, 0, 0, out, 0, False)
    else:
        need("transpose_to_panels", copies.transpose_to_panels, out, 0, 0, 0, 0, 0, 0)
    if kind.training.transposes:
        need("transpose_weight", copies.transpose_weight, out, 0, 0, 0, 0, out, 0)
    load_targets = copies.load_labels if kind.training.takes_labels else copies.load_targets
    need("load_targets", load_targets, given_labels, numbers, whole, 0, 0, labels, table)
    load_weights = copies.load_weights if kind.training.is_weighted else copies.equal_weights
    need("load_weights", load_weights, numbers, whole, 0, 0, out)
    head = HEADS[kind.output, kind.training.loss]
    need("head", head, table, table, labels, table, table, table, out)
    need("weigh", weigh, table, out, dtype.type(0))
    count = COUNTS[kind.training.task, kind.training.takes_labels]
    need("count", count, table, table, labels, table, labels, 0, whole_out)
    return needed
