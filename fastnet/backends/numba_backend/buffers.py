"""From specifications and data to the records that kernels take, and the memory that they work in."""

# Legend: N samples, D features, L layers, P parameters, K workers, G groups of rows.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend.activations import ACTIVATION_CODES
from fastnet.backends.numba_backend.heads import HEAD_CODES, OUTPUT_CODES, TASK_CODES
from fastnet.backends.numba_backend.records import (
    LAYER_DTYPE,
    CodedNetwork,
    CodedOptimizer,
    GroupSums,
    OptimizerState,
    Samples,
    Scratch,
)
from fastnet.backends.numba_backend.updates import ADAM, CHUNK, MOMENTUM, NESTEROV, PLAIN_SGD
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
    widths = np.array(network.layer_sizes[1:])
    layers = np.empty(network.n_layers, LAYER_DTYPE)
    layers["fan_in"], layers["fan_out"] = network.layer_sizes[:-1], widths
    layers["weight"] = layout.weight_offsets
    layers["bias"] = layout.n_weights + np.cumsum(widths) - widths
    layers["z"] = network.n_features + 3 * (np.cumsum(widths) - widths)
    layers["h"] = layers["z"] + widths
    layers["d"] = layers["h"] + widths
    layers["activation"] = [ACTIVATION_CODES[name] for name in (*network.activations, "identity")]
    return CodedNetwork(
        layers,
        n_columns=network.n_features + 3 * int(widths.sum()),
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
    network: NetworkSpec, x: Any, targets: NDArray | None = None, sample_weight: NDArray | None = None
) -> Samples:
    """The record of samples (N, D), dense or CSR, and of what belongs to them, as far as given.

    What has the right dtype is not copied. All arrays are read-only views: whether the user's own can be written to
    would make another type for the compiler.
    """
    dtype = network.numpy_dtype
    labels = targets if targets is not None and network.takes_labels else ()
    matrix = targets if targets is not None and not network.takes_labels else np.empty((0, network.n_outputs))
    sparse = is_sparse(x)
    dense = np.empty((0, network.n_features), np.uint8) if sparse else x
    return Samples(
        bytes=read_only(dense, np.uint8 if dense.dtype == np.uint8 else dtype).view(np.uint8),
        values=read_only(x.data if sparse else (), dtype),
        columns=read_only(x.indices if sparse else (), np.int32),
        row_starts=read_only(x.indptr if sparse else (), np.int64),
        labels=read_only(labels, np.int32),
        targets=read_only(matrix, dtype),
        weights=read_only(() if sample_weight is None else sample_weight, dtype),
        packed_values=read_only((), np.uint8),
        packed_columns=read_only((), np.uint16),
        packed_row_starts=read_only((), np.int64),
        tile_values=read_only((), np.uint8),
        tile_rows=read_only((), np.uint8),
        tile_starts=read_only(np.empty((0, 0)), np.int64),
        first_tiles=read_only((), np.int64),
    )


def read_only(array: Any, dtype: Any) -> NDArray:
    """A view, or where its dtype or layout cannot be used, a copy, that cannot be written to."""
    view = np.require(array, dtype, ["C", "A"]).view(np.ndarray)
    view.flags.writeable = False
    return view


def make_state(network: CodedNetwork, flat: NDArray, remembered: list[NDArray]) -> OptimizerState:
    """The record of a copy of the parameters (P,), and of up to two arrays (P,) that the optimizer remembers."""
    own = _aligned_rows(2, _buffer_size(network), flat.dtype)
    own[:] = 0
    own[0, : flat.size] = flat
    nothing = np.empty(0, flat.dtype)
    first, second = [*remembered, nothing, nothing][:2]
    n_chunks = -(-network.n_parameters // CHUNK)
    return OptimizerState(own[0], own[1], first, second, penalties=np.zeros(n_chunks))


def make_scratch(network: CodedNetwork, tile_rows: int, n_workers: int, dtype: np.dtype) -> Scratch:
    """Working memory of `n_workers`."""
    largest_weight = int((network.layers["fan_in"] * network.layers["fan_out"]).max())
    return Scratch(_aligned_rows(n_workers, tile_rows * network.n_columns + largest_weight, dtype), tile_rows)


def make_group_sums(network: CodedNetwork, n_groups: int, dtype: np.dtype) -> GroupSums:
    """Room for what `n_groups` contribute to a step."""
    gradients = _aligned_rows(n_groups, _buffer_size(network), dtype)
    return GroupSums(gradients, np.zeros(n_groups), np.zeros(n_groups, np.int64))


def _buffer_size(network: CodedNetwork) -> int:
    """Numbers in a flat buffer where every layer has a bias."""
    return network.n_weights + int(network.layers["fan_out"].sum())


def _aligned_rows(n_rows: int, row_size: int, dtype: np.dtype) -> NDArray:
    """Uninitialised (n_rows, at least row_size), each row at the start of a cache line.

    BLAS may choose its loops, and so the order of its sums, by the alignment of its operands: every row of every run
    must have the same. Besides, no two threads then write to one cache line.
    """
    padded = -(-row_size * dtype.itemsize // _CACHE_LINE) * _CACHE_LINE
    memory = np.empty(n_rows * padded + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + n_rows * padded].view(dtype).reshape(n_rows, padded // dtype.itemsize)
