"""All layers of a tile, forward and backward, in the layout across: a sample is a column."""

# Legend: B rows of a tile, S as many in whole vectors, D features, I fan-in, O fan-out, C outputs, w numbers of a
# vector. ``layout.py`` tells where a tile's arrays lie in the memory of a worker, and how parameters lie in `flat`.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001, both layouts take the same arguments

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, inlined
from fastnet.backends.numba_backend.kernels.copies import clear_end_of_rows
from fastnet.backends.numba_backend.kernels.partition import whole_vectors
from fastnet.backends.numba_backend.kernels.row_products import Factors, Rows
from fastnet.backends.numba_backend.kernels.tiles import activate, activation_backward
from fastnet.backends.numba_backend.kernels.views import bytes_at, layers_at, numbers_at

__all__ = ["backward_across", "forward_across"]


@inlined
def columns_of_tile(samples, tile, tile_rows, size, memory):
    """Where the samples of a tile lie as (D, S): with those of all tiles, or else at the start of `memory`."""
    if samples.tile_columns_size:
        slot = memory.itemsize * tile_rows * samples.n_features
        return numbers_at(memory, samples.tile_columns + tile * slot, size * samples.n_features)
    return memory


@NativeFunction
def forward_across(network, kernels, samples, scratch, order, begin, tile, n_rows, flat, memory):
    """What :func:`forward_upright` does, in the other layout."""
    layers = layers_at(network.layers, network.layers_size)
    size, tile_rows = whole_vectors(n_rows, network.row_multiple), scratch.tile_rows
    columns = columns_of_tile(samples, tile, tile_rows, size, memory)
    if not samples.tile_columns_size:
        numbers = numbers_at(memory, samples.numbers, samples.numbers_size)
        source = bytes_at(samples.bytes, samples.bytes_size)
        call(kernels.load_columns, (numbers, source, order, begin, n_rows, size, samples.n_features, memory))
    source_start, scale = 0, network.input_scale
    for i in range(layers.size):
        layer = layers[i]
        factors = Factors(layer.weight, 1, layer.fan_out, layer.fan_in, layer.bias)
        h = tile_rows * layer.h
        call(
            kernels.combine_rows,
            (flat, factors, columns if i == 0 else memory, source_start, scale, True, memory, h, layer.fan_out, size),
        )
        if i < layers.size - 1:
            activate(layer, memory, tile_rows, layer.fan_out * size)
        source_start, scale = h, 1.0
    clear_end_of_rows(memory, source_start, layers[layers.size - 1].fan_out, n_rows, size)


@NativeFunction
def backward_across(
    network, kernels, samples, scratch, place, order, begin, tile, n_rows, flat, memory, transposed, gradient, adds
):
    """What :func:`backward_upright` does, in the other layout."""
    layers, tile_rows = layers_at(network.layers, network.layers_size), scratch.tile_rows
    size = whole_vectors(n_rows, network.row_multiple)
    columns = columns_of_tile(samples, tile, tile_rows, size, memory)
    for i in range(layers.size - 1, -1, -1):
        layer = layers[i]
        d = Rows(tile_rows * layer.d, layer.fan_out, 1)
        below = Rows(tile_rows * layers[i - 1].h if i > 0 else 0, layer.fan_in, layer.fan_out)
        source = memory if i > 0 else columns
        if layer.fan_in >= layer.fan_out:
            call(kernels.dots_of_rows, (source, below, memory, d, size, gradient, layer.weight, adds))
        else:
            call(kernels.dots_of_rows, (memory, d, source, below, size, gradient, layer.weight, adds))
        call(kernels.row_sums, (memory, d.start, layer.fan_out, size, gradient, layer.bias, adds))
        if i > 0:
            factors = Factors(layer.weight, layer.fan_out, 1, layer.fan_out, 0)
            d_below = tile_rows * layers[i - 1].d
            call(
                kernels.combine_rows,
                (flat, factors, memory, d.start, 1.0, False, memory, d_below, layer.fan_in, size),
            )
            activation_backward(layers[i - 1], memory, tile_rows, layer.fan_in * size)
