"""The compiled functions that a kind of networks, of packing, and so on, needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    multiply,
    panel_sums,
)
from fastnet.backends.numba_backend.kernels.row_products import Factors, Rows, combine_rows, dots_of_rows, row_sums
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


# Examples of what functions of networks take, beside numbers of the network's dtype.
_WHOLE, _WHOLE_OUT = read_only((), np.int64), np.empty(0, np.int64)
_RAW, _RAW_OUT = read_only((), np.uint8), np.empty(0, np.uint8)
_GIVEN_LABELS, _LABELS = read_only((), np.int32), np.empty(0, np.int32)
_LEFT, _PANELS, _SHARE = Left(0, 0, 0, 0, 0, 0), Panels(0, 0, 0), Share(0, 0, 0, 0, 0)
_FACTORS, _ROWS = Factors(0, 0, 0, 0, 0), Rows(0, 0, 0)


def _of_network(kind: NetworkKind) -> list[NeededFunction]:
    """Names are those of KERNELS_DTYPE.

    What takes longest to compile comes first and last. Two processes that begin at either end, see ``companion.py``,
    meet in between, and may both compile what is there.
    """
    steps = _of_tiles(kind) + (_of_training(kind) if kind.training else [])
    return _drivers(kind) + steps + _products(kind)


def _drivers(kind: NetworkKind) -> list[NeededFunction]:
    """What calls all the others."""
    out = np.empty(0, kind.dtype)
    network, samples, scratch = (_example(record) for record in (CodedNetwork, Samples, Scratch))
    way = network, np.zeros(1, KERNELS_DTYPE)[0], samples, scratch
    forward = forward_across if kind.across else forward_upright
    needed = [NeededFunction("forward", forward, (*way, _WHOLE, 0, 0, 0, out, out))]
    if not kind.training:
        prediction = _example(Prediction, kind.dtype)
        return [
            *needed,
            NeededFunction("predict", predict, (0, 0, prediction)),
            NeededFunction("predict_share", predict_share, (_SHARE, 0, prediction)),
        ]
    backward, training = backward_across if kind.across else backward_upright, _example(Training, kind.dtype)
    needed += [
        NeededFunction("run_steps", run_steps, (0, 0, training)),
        NeededFunction("gradient_share", gradient_share, (_SHARE, 0, training)),
        NeededFunction("update_share", update_share, (_SHARE, 0, training)),
        NeededFunction("backward", backward, (*way, 0, _WHOLE, 0, 0, 0, out, out, out, out, False)),
    ]
    if kind.training.by_panels:
        needed.append(NeededFunction("panel_share", panel_share, (_SHARE, 0, training)))
    return needed


def _of_tiles(kind: NetworkKind) -> list[NeededFunction]:
    """What is done with the samples and outputs of a tile."""
    numbers, out, table = _numbers(kind.dtype)
    needed = [NeededFunction("output", OUTPUTS[kind.output], (table,) * 4)]
    if kind.copies and kind.across:
        needed.append(NeededFunction("load_columns", copies.load_columns, (numbers, _RAW, _WHOLE, 0, 0, 0, 0, out)))
    elif kind.copies:
        needed.append(NeededFunction("load_rows", copies.load_rows, (numbers, _RAW, _WHOLE, 0, 0, 0, out)))
    if kind.is_single and not kind.across:
        transpose = copies.transpose_to_columns
        needed.append(NeededFunction("transpose_to_columns", transpose, (out, 0, 0, 0, 0, 0, 0)))
    if kind.clears:
        needed.append(NeededFunction("clear_filling", copies.clear_filling, (out, 0, 0, 0, 0, 0)))
    return needed


def _of_training(kind: NetworkKind) -> list[NeededFunction]:
    """What training needs besides, but for products."""
    training, (numbers, out, table) = kind.training, _numbers(kind.dtype)
    assert training is not None
    load_targets = copies.load_labels if training.takes_labels else copies.load_targets
    load_weights = copies.load_weights if training.is_weighted else copies.equal_weights
    head, count = HEADS[kind.output, training.loss], COUNTS[training.task, training.takes_labels]
    update = sgd_update if training.is_sgd else adam_update
    needed = []
    if kind.copies or not kind.across:
        columns = _GIVEN_LABELS, numbers, _WHOLE, 0, 0, _LABELS, table
        needed.append(NeededFunction("load_targets", load_targets, columns))
        needed.append(NeededFunction("load_weights", load_weights, (numbers, _WHOLE, 0, 0, out)))
    needed += [
        NeededFunction("head", head, (table, table, _LABELS, table, table, table, out)),
        NeededFunction("weigh", weigh, (table, out, kind.dtype.type(0))),
        NeededFunction("count", count, (table, table, _LABELS, table, _LABELS, 0, _WHOLE_OUT)),
    ]
    if kind.across:
        rows = numbers, _ROWS, numbers, _ROWS, 0, out, 0, False
        needed.append(NeededFunction("dots_of_rows", dots_of_rows, rows))
    else:
        needed.append(NeededFunction("panel_sums", panel_sums, (numbers, _PANELS, 0, 0, out, 0, False)))
    if kind.across or not kind.is_single:
        needed.append(NeededFunction("row_sums", row_sums, (numbers, 0, 0, 0, out, 0, False)))
    else:
        transpose = copies.transpose_to_panels
        needed.append(NeededFunction("transpose_to_panels", transpose, (out, 0, 0, 0, 0, 0, 0)))
    if training.transposes:
        needed.append(NeededFunction("transpose_weight", copies.transpose_weight, (out, 0, 0, 0, 0, out, 0)))
    needed.append(NeededFunction("update", update, (_example(CodedOptimizer), 0.0, 0, 0, out, out, out, out)))
    return needed


def _products(kind: NetworkKind) -> list[NeededFunction]:
    numbers, out, _ = _numbers(kind.dtype)
    needed = []
    if not kind.is_single and not kind.across:
        columns = numbers, _PANELS, 0, numbers, 0, 0, 0, out, 0, 0
        needed.append(NeededFunction("dot_with_panels", dot_with_panels, columns))
    if kind.packed:
        sparse, rows = sparse_kernels(*kind.packed), (_RAW, _RAW, _WHOLE, _WHOLE, 0, 0)
        forward = *rows, 0, numbers, 0, 0, 0.0, 0, out, 0, True
        backward = _RAW, _RAW, _WHOLE, 0, numbers, 0, 0, 0, out, 0, False
        needed.append(NeededFunction("sparse_product", sparse.product, forward))
        if kind.training:
            needed.append(NeededFunction("sparse_product_backward", sparse.product_backward, backward))
        if kind.training and kind.training.sorts:
            sort = sparse.sort_by_columns
            needed.append(NeededFunction("sort_by_columns", sort, (*rows, _WHOLE_OUT, _RAW_OUT, _RAW_OUT)))
    if kind.across:
        combination = numbers, _FACTORS, numbers, 0, 0.0, False, out, 0, 0, 0
        needed.append(NeededFunction("combine_rows", combine_rows, combination))
    else:
        product = numbers, _LEFT, numbers, _PANELS, out, _PANELS, 0, 0, 0.0, numbers, _PANELS, False
        needed.append(NeededFunction("multiply", multiply, product))
    return needed


def _numbers(dtype: np.dtype) -> tuple[NDArray, NDArray, NDArray]:
    """Numbers that are read, numbers that are written, and a table of these."""
    return read_only((), dtype), np.empty(0, dtype), np.empty((0, 0), dtype)
