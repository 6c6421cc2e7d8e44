"""All layers of a tile, forward and backward, in the layout across: a sample is a column."""

# Legend: B rows of a tile, S as many in whole vectors, D features, I fan-in, O fan-out, C outputs, w numbers of a
# vector. ``layout.py`` tells where a tile's arrays lie in the memory of a worker, and how parameters lie in `flat`.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001, both layouts take the same arguments

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.blocks import load, store, zeros
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call
from fastnet.backends.numba_backend.kernels.copies import clear_end_of_rows
from fastnet.backends.numba_backend.kernels.partition import whole_vectors
from fastnet.backends.numba_backend.kernels.products import ADD_NOTHING, ADD_NUMBERS, Left, Panels
from fastnet.backends.numba_backend.kernels.tiles import activate, activation_backward
from fastnet.backends.numba_backend.kernels.views import bytes_at, layers_at, numbers_at

__all__ = ["backward_across", "forward_across"]


@NativeFunction
def forward_across(network, kernels, samples, scratch, order, begin, tile, n_rows, flat, memory):
    """What :func:`forward_upright` does, in the other layout."""
    layers = layers_at(network.layers, network.layers_size)
    lanes, n_features, tile_rows = network.lanes, samples.n_features, scratch.tile_rows
    size = whole_vectors(n_rows, network.row_multiple)
    if samples.tile_columns_size:
        slot = memory.itemsize * tile_rows * n_features
        columns = numbers_at(memory, samples.tile_columns + tile * slot, size * n_features)
        for k in range(0, size * n_features, lanes):
            store(memory, k, 0, load(zeros(memory, 1), columns, k, 0))
    else:
        numbers = numbers_at(memory, samples.numbers, samples.numbers_size)
        source = bytes_at(samples.bytes, samples.bytes_size)
        call(kernels.load_columns, (numbers, source, order, begin, n_rows, size, n_features, memory))
    below, scale = 0, network.input_scale
    for i in range(layers.size):
        layer = layers[i]
        h = tile_rows * layer.h
        call(kernels.multiply, (
            flat, Left(layer.weight, 1, layer.fan_out, layer.fan_in, 0, 1), memory, Panels(below, size, lanes),
            memory, Panels(h, size, lanes), layer.fan_out, size // lanes,
            scale, flat, Panels(layer.bias, 1, 0), ADD_NUMBERS,
        ))  # fmt: skip
        if i < layers.size - 1:
            activate(layer, memory, tile_rows, layer.fan_out * size)
        below, scale = h, 1.0
    clear_end_of_rows(memory, below, layers[layers.size - 1].fan_out, n_rows, size)


@NativeFunction
def backward_across(
    network, kernels, samples, scratch, place, order, begin, tile, n_rows, flat, memory, transposed, gradient, adds
):
    """What :func:`backward_upright` does, in the other layout."""
    layers, lanes = layers_at(network.layers, network.layers_size), network.lanes
    size, tile_rows = whole_vectors(n_rows, network.row_multiple), scratch.tile_rows
    for i in range(layers.size - 1, -1, -1):
        layer = layers[i]
        d, below_h = tile_rows * layer.d, tile_rows * layers[i - 1].h if i > 0 else 0
        call(
            kernels.dots_of_rows,
            (memory, below_h, layer.fan_in, memory, d, layer.fan_out, size, lanes, gradient, layer.weight, adds),
        )
        call(kernels.row_sums, (memory, d, layer.fan_out, size, lanes, gradient, layer.bias, adds))
        if i > 0:
            call(kernels.multiply, (
                flat, Left(layer.weight, layer.fan_out, 1, layer.fan_out, 0, 1), memory, Panels(d, size, lanes),
                memory, Panels(tile_rows * layers[i - 1].d, size, lanes), layer.fan_in, size // lanes,
                1.0, flat, Panels(0, 0, 0), ADD_NOTHING,
            ))  # fmt: skip
            activation_backward(layers[i - 1], memory, tile_rows, layer.fan_in * size)
