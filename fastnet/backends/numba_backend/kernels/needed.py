"""The compiled functions that a kind of networks, of packing, and so on, needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet.backends.numba_backend.buffers import read_only
from fastnet.backends.numba_backend.kernels import copies
from fastnet.backends.numba_backend.kernels.across import backward_across, forward_across
from fastnet.backends.numba_backend.kernels.activations import ACTIVATE, BACKWARD
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction
from fastnet.backends.numba_backend.kernels.drivers import predict, predict_share, run_steps
from fastnet.backends.numba_backend.kernels.gradients import gradient_share
from fastnet.backends.numba_backend.kernels.heads import COUNTS, HEADS, OUTPUTS, weigh
from fastnet.backends.numba_backend.kernels.packing import dense_packer, sparse_packer, tile_packers
from fastnet.backends.numba_backend.kernels.panels import panel_share
from fastnet.backends.numba_backend.kernels.products import (
    Left,
    Panels,
    dot_with_panels,
    dots_of_rows,
    multiply,
    panel_sums,
    row_sums,
)
from fastnet.backends.numba_backend.kernels.sharing import Share, dismiss, help_others, lead
from fastnet.backends.numba_backend.kernels.sparse import sparse_kernels
from fastnet.backends.numba_backend.kernels.updates import adam_update, sgd_update, update_share
from fastnet.backends.numba_backend.kernels.upright import backward_upright, forward_upright
from fastnet.backends.numba_backend.kinds import (
    ActivationKind,
    AnyKind,
    DensePackingKind,
    NetworkKind,
    SparsePackingKind,
    TeamKind,
    TilePackingKind,
)
from fastnet.backends.numba_backend.records import (
    KERNELS_DTYPE,
    CodedNetwork,
    CodedOptimizer,
    Prediction,
    RowPacking,
    Samples,
    Scratch,
    TilePacking,
    Training,
    record_dtype,
)

__all__ = ["NeededFunction", "needed_functions"]


class NeededFunction(NamedTuple):
    """A function by the name that those who call it have for it, and arguments of the types that it is compiled for."""

    name: str
    function: NativeFunction
    arguments: tuple[Any, ...]


def needed_functions(kind: AnyKind) -> list[NeededFunction]:
    """What is compiled for a kind."""
    match kind:
        case TeamKind():
            return _of_team()
        case ActivationKind():
            return _of_activation(kind)
        case DensePackingKind(values, columns):
            return [NeededFunction("pack", dense_packer(values, columns), (_example(RowPacking),))]
        case SparsePackingKind(numbers, indices, values, columns):
            packer = sparse_packer(numbers, indices, values, columns)
            return [NeededFunction("pack", packer, (_example(RowPacking),))]
        case TilePackingKind(values, columns):
            packers, packing = tile_packers(values, columns)._asdict(), (_example(TilePacking),)
            return [NeededFunction(name, packer, packing) for name, packer in packers.items()]
        case NetworkKind():
            return _of_network(kind)


def _example(record: type, dtype: np.dtype | None = None) -> Any:
    """A record of a named tuple."""
    return np.zeros(1, record_dtype(record, dtype))[0]


def _of_team() -> list[NeededFunction]:
    return [
        NeededFunction("lead", lead, (0,) * 5),
        NeededFunction("dismiss", dismiss, (0,) * 2),
        NeededFunction("help_others", help_others, (0,)),
    ]


def _of_activation(kind: ActivationKind) -> list[NeededFunction]:
    written, read = np.empty(0, kind.dtype), read_only((), kind.dtype)
    needed = [NeededFunction("activate", ACTIVATE[kind.name], (written,))]
    if kind.trains:
        needed.append(NeededFunction("backward", BACKWARD[kind.name], (written, read)))
    return needed


def _of_network(kind: NetworkKind) -> list[NeededFunction]:
    """Names are those of KERNELS_DTYPE."""
    dtype, across, is_single = kind.dtype, kind.across, kind.is_single
    numbers, table = read_only((), dtype), np.empty((0, 0), dtype)
    out, raw, raw_out = np.empty(0, dtype), read_only((), np.uint8), np.empty(0, np.uint8)
    whole, whole_out = read_only((), np.int64), np.empty(0, np.int64)
    given_labels, labels = read_only((), np.int32), np.empty(0, np.int32)
    left, panels, share = Left(0, 0, 0, 0, 0, 0), Panels(0, 0, 0), Share(0, 0, 0, 0, 0)
    network, samples, scratch = (_example(record) for record in (CodedNetwork, Samples, Scratch))
    chosen = np.zeros(1, KERNELS_DTYPE)[0]
    needed: list[NeededFunction] = []

    def need(name: str, function: NativeFunction, *arguments: Any) -> None:
        needed.append(NeededFunction(name, function, arguments))

    forward = forward_across if across else forward_upright
    need("forward", forward, network, chosen, samples, scratch, whole, 0, 0, 0, out, out)
    need("multiply", multiply, numbers, left, numbers, panels, out, panels, 0, 0, 0.0, numbers, panels, 0)
    need("output", OUTPUTS[kind.output], table, table, table)
    if kind.packed:
        sparse = sparse_kernels(*kind.packed)
        need("sparse_product", sparse.product, raw, raw, whole, whole, 0, 0, 0, numbers, 0, 0, 0.0, 0, out, 0, True)
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
        prediction = _example(Prediction, dtype)
        need("predict", predict, 0, 0, prediction)
        need("predict_share", predict_share, share, 0, prediction)
        return needed

    training = _example(Training, dtype)
    need("run_steps", run_steps, 0, 0, training)
    need("gradient_share", gradient_share, share, 0, training)
    need("update_share", update_share, share, 0, training)
    if kind.training.by_panels:
        need("panel_share", panel_share, share, 0, training)
    update = sgd_update if kind.training.is_sgd else adam_update
    need("update", update, _example(CodedOptimizer), 0.0, 0, 0, out, out, out, out)
    backward = backward_across if across else backward_upright
    need("backward", backward, network, chosen, samples, scratch, 0, whole, 0, 0, 0, out, out, out, out, False)
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
