"""From specifications and data to the records that kernels take, and the memory that they work in."""

# Legend: N samples, D features, L layers, P parameters, K workers, G groups of rows.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend import updates
from fastnet.backends.numba_backend.activations import ACTIVATION_CODES
from fastnet.backends.numba_backend.heads import HEAD_CODES, OUTPUT_CODES, TASK_CODES
from fastnet.backends.numba_backend.records import (
    CodedNetwork,
    CodedOptimizer,
    GroupSums,
    OptimizerState,
    Samples,
    Scratch,
)
from fastnet.data import is_sparse
from fastnet.optimizers import SGD, AdamW, Optimizer
from fastnet.parameters import ParameterLayout
from fastnet.spec import NetworkSpec, Task

__all__ = [
    "code_network",
    "code_optimizer",
    "code_samples",
    "make_group_sums",
    "make_scratch",
    "make_state",
    "read_only",
]

_CACHE_LINE = 64  # bytes


def code_network(network: NetworkSpec, task: Task = "regression") -> CodedNetwork:
    """The record of a network."""
    layout = ParameterLayout.of(network)
    widths = network.layer_sizes[1:]
    return CodedNetwork(
        sizes=np.array(network.layer_sizes, np.int64),
        weight_offsets=np.array(layout.weight_offsets, np.int64),
        bias_offsets=layout.n_weights + np.cumsum([0, *widths[:-1]], dtype=np.int64),
        activations=np.array([ACTIVATION_CODES[name] for name in (*network.activations, "identity")], np.int64),
        output=OUTPUT_CODES[network.output],
        head=HEAD_CODES[network.output, network.loss],
        task=TASK_CODES[task],
        is_mean=network.reduction == "mean",
        l2=float(network.l2),
        input_scale=float(network.input_scale),
        n_weights=layout.n_weights,
        n_parameters=layout.size,
    )


def code_optimizer(optimizer: Optimizer) -> CodedOptimizer:
    """The record of an optimizer."""
    if isinstance(optimizer, SGD):
        plain_or_momentum = updates.MOMENTUM if optimizer.momentum else updates.SGD
        kind = updates.NESTEROV if optimizer.nesterov else plain_or_momentum
        return CodedOptimizer(kind, momentum=float(optimizer.momentum))
    return CodedOptimizer(
        updates.ADAM,
        beta_1=float(optimizer.beta_1),
        beta_2=float(optimizer.beta_2),
        epsilon=float(optimizer.epsilon),
        weight_decay=float(optimizer.weight_decay) if isinstance(optimizer, AdamW) else 0.0,
    )


def code_samples(
    network: NetworkSpec, x: Any, targets: NDArray | None = None, sample_weight: NDArray | None = None
) -> Samples:
    """The record of samples (N, D), dense or CSR, and of what belongs to them, as far as given; nothing dense is copied.

    All arrays are read-only views: whether the user's own can be written to would make another type for the compiler.
    """
    dtype = network.numpy_dtype
    labels = targets if targets is not None and network.takes_labels else ()
    matrix = targets if targets is not None and not network.takes_labels else np.empty((0, network.n_outputs))
    weights = () if sample_weight is None else sample_weight
    sparse = is_sparse(x)
    keeps_dtype = not sparse and x.dtype == np.uint8
    return Samples(
        x=read_only(np.empty((0, network.n_features)) if sparse else x, x.dtype if keeps_dtype else dtype),
        values=read_only(x.data if sparse else (), dtype),
        columns=read_only(x.indices if sparse else (), np.int32),
        row_starts=read_only(x.indptr if sparse else (), np.int64),
        labels=read_only(labels, np.int32),
        targets=read_only(matrix, dtype),
        weights=read_only(weights, dtype),
    )


def read_only(array: Any, dtype: Any) -> NDArray:
    """A view, or where the dtype or the memory layout make one necessary a copy, that cannot be written to."""
    view = np.require(array, dtype, ["C", "A"]).view(np.ndarray)
    view.flags.writeable = False
    return view


def make_state(network: CodedNetwork, flat: NDArray, remembered: list[NDArray]) -> OptimizerState:
    """The record of a copy of the parameters (P,), and of up to two arrays (P,) that the optimizer remembers."""
    size = network.n_weights + int(network.sizes[1:].sum())
    buffers = [_aligned_rows(1, size, flat.dtype)[0, :size] for _ in range(2)]
    for buffer in buffers:
        buffer[:] = 0
    buffers[0][: flat.size] = flat
    first, second, *_ = [*remembered, *[np.empty(0, flat.dtype)] * 2]
    n_chunks = -(-network.n_parameters // updates.CHUNK)
    return OptimizerState(buffers[0], buffers[1], first, second, np.zeros(n_chunks))


def make_scratch(network: CodedNetwork, tile_rows: int, n_workers: int, dtype: np.dtype) -> Scratch:
    """Working memory of `n_workers`."""
    widths = int(network.sizes[1:].sum())
    largest_weight = int((network.sizes[:-1] * network.sizes[1:]).max())
    return Scratch(
        tile_rows,
        _aligned_rows(n_workers, tile_rows * int(network.sizes[0]), dtype),
        *(_aligned_rows(n_workers, tile_rows * widths, dtype) for _ in range(3)),
        _aligned_rows(n_workers, largest_weight, dtype),
    )


def make_group_sums(network: CodedNetwork, n_groups: int, dtype: np.dtype) -> GroupSums:
    """Room for what `n_groups` contribute to a step."""
    size = network.n_weights + int(network.sizes[1:].sum())
    return GroupSums(_aligned_rows(n_groups, size, dtype), np.zeros(n_groups), np.zeros(n_groups, np.int64))


def _aligned_rows(n_rows: int, row_size: int, dtype: np.dtype) -> NDArray:
    """Uninitialised (n_rows, at least row_size), each row at the start of a cache line.

    BLAS may choose its loops, and so the order of its sums, by the alignment of its operands: every row of every run
    must have the same. Besides, no two threads then write to one cache line.
    """
    padded = -(-row_size * dtype.itemsize // _CACHE_LINE) * _CACHE_LINE
    memory = np.empty(n_rows * padded + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + n_rows * padded].view(dtype).reshape(n_rows, padded // dtype.itemsize)
