"""Copies within a tile: samples and targets to where kernels read them, and from one layout to another."""

# Legend: B rows of a tile, S as many in whole vectors, D features, I fan-in, O fan-out, C outputs,
# w numbers of a vector.
# ``layout.py`` tells what is upright, with a sample as a row of a panel, and across, with a sample as a column.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.blocks import lanes_of, load, store, zeros
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, kernel
from fastnet.backends.numba_backend.kernels.partition import whole_vectors
from fastnet.backends.numba_backend.kernels.sparse import sample_at

__all__ = [
    "clear_end_of_rows",
    "clear_filling",
    "equal_weights",
    "load_columns",
    "load_labels",
    "load_rows",
    "load_targets",
    "load_weights",
    "transpose_to_columns",
    "transpose_to_panels",
    "transpose_weight",
]


@kernel
def clear_end_of_rows(memory, start, n_rows, begin, end):
    """Set columns [begin, end) of (n_rows, end) to zero."""
    for i in range(n_rows):
        for k in range(start + i * end + begin, start + (i + 1) * end):
            memory[k] = memory.dtype.type(0)


@NativeFunction
def clear_filling(memory, start, n_rows, fan_out, width, lanes):
    """Set to zero what fills up the last panel of (B, O)."""
    for i in range(n_rows):
        for j in range(fan_out - (width - lanes), lanes):
            memory[start + ((width // lanes - 1) * n_rows + i) * lanes + j] = memory.dtype.type(0)


@NativeFunction
def load_rows(numbers, source, order, begin, n_rows, n_features, memory):
    """Copy samples (B, D) from position `begin` on to the start of `memory`: `numbers`, or the bytes of `source`."""
    lanes = lanes_of(memory)
    for i in range(n_rows):
        start, place = sample_at(order, begin + i) * n_features, i * n_features
        if numbers.size and n_features >= lanes:
            for k in range(0, n_features - lanes + 1, lanes):
                store(memory, place + k, 0, load(zeros(memory, 1), numbers, start + k, 0))
            rest = n_features - lanes  # the last vector, which may overlap the one before
            store(memory, place + rest, 0, load(zeros(memory, 1), numbers, start + rest, 0))
        elif numbers.size:
            for k in range(n_features):
                memory[place + k] = numbers[start + k]
        else:
            row, line = memory[place : place + n_features], source[start : start + n_features]
            for k in range(n_features):
                row[k] = line[k]


@NativeFunction
def load_columns(numbers, source, order, begin, n_rows, size, n_features, memory):
    """Copy samples from position `begin` on, as (D, S), to the start of `memory`; what fills up S is zero."""
    if order.size:
        for i in range(n_rows):
            start = order[begin + i] * n_features
            for k in range(n_features):
                memory[k * size + i] = numbers[start + k] if numbers.size else source[start + k]
    else:
        first, last = begin * n_features, (begin + n_rows) * n_features
        for k in range(n_features):
            row = memory[k * size : k * size + n_rows]
            if numbers.size:
                column = numbers[first + k : last : n_features]
                for i in range(n_rows):
                    row[i] = column[i]
            else:
                line = source[first + k : last : n_features]
                for i in range(n_rows):
                    row[i] = line[i]
    clear_end_of_rows(memory, 0, n_features, n_rows, size)


@kernel
def load_column(source, order, begin, n_rows, row):
    """Copy the numbers (N,) of B samples from position `begin` on to the start of `row`; what follows becomes zero."""
    if order.size:
        for s in range(n_rows):
            row[s] = source[order[begin + s]]
    else:
        part = source[begin : begin + n_rows]
        for s in range(n_rows):
            row[s] = part[s]
    for s in range(n_rows, row.size):
        row[s] = 0


@NativeFunction
def load_labels(given, _targets, order, begin, n_rows, labels, _rows):
    """Labels (S,) of B samples from position `begin` on."""
    load_column(given, order, begin, n_rows, labels)


@NativeFunction
def load_targets(_labels, given, order, begin, n_rows, _row, targets):
    """Targets (C, S) of B samples from position `begin` on, of those given sample by sample (N * C,)."""
    n_outputs = targets.shape[0]
    if n_outputs == 1:  # a step that is known to be one makes vectors
        load_column(given, order, begin, n_rows, targets[0])
        return
    for c in range(n_outputs):
        load_column(given[c::n_outputs], order, begin, n_rows, targets[c])


@NativeFunction
def load_weights(given, order, begin, n_rows, weights):
    """Weights (S,) of B samples from position `begin` on; what fills up S has weight zero."""
    load_column(given, order, begin, n_rows, weights)


@NativeFunction
def equal_weights(_given, _order, _begin, n_rows, weights):
    """The same for samples without weights, which all count the same."""
    for s in range(weights.size):
        weights[s] = s < n_rows


@NativeFunction
def transpose_weight(flat, start, n_rows, n_columns, lanes, memory, place):
    """From the panels of a weight (I, O) to those of its transpose (O, I), both sizes in whole vectors."""
    for i in range(n_rows):
        for j in range(n_columns):
            source = start + j // lanes * (n_rows * lanes) + i * lanes + j % lanes
            memory[place + i // lanes * (n_columns * lanes) + j * lanes + i % lanes] = flat[source]


@NativeFunction
def transpose_to_columns(memory, panels, n_rows, n_columns, size, lanes, place):
    """From (B, C) in panels to (C, S)."""
    for j in range(n_columns):
        for i in range(n_rows):
            memory[place + j * size + i] = memory[panels + (j // lanes * n_rows + i) * lanes + j % lanes]


@NativeFunction
def transpose_to_panels(memory, place, n_rows, n_columns, size, lanes, panels):
    """From (C, S) to (B, C) in panels, the last of which is filled up with zeros."""
    for j in range(whole_vectors(n_columns, lanes)):
        for i in range(n_rows):
            at = panels + (j // lanes * n_rows + i) * lanes + j % lanes
            memory[at] = memory[place + j * size + i] if j < n_columns else memory.dtype.type(0)
