"""All layers of a tile, forward and backward, in the upright layout: a sample is a row of a panel."""

# Legend: B rows of a tile, S as many in whole vectors, D features, I fan-in, O fan-out, C outputs, w numbers of a
# vector. ``layout.py`` tells where a tile's arrays lie in the memory of a worker, and how parameters lie in `flat`.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, inlined
from fastnet.backends.numba_backend.kernels.copies import clear_end_of_rows
from fastnet.backends.numba_backend.kernels.partition import whole_vectors
from fastnet.backends.numba_backend.kernels.products import Left, Panels
from fastnet.backends.numba_backend.kernels.tiles import activate, activation_backward
from fastnet.backends.numba_backend.kernels.views import (
    bytes_at,
    layers_at,
    numbers_at,
    own_bytes_at,
    own_wholes_at,
    row_of,
    wholes_at,
)

__all__ = ["backward_upright", "forward_upright"]


@inlined
def first_product(network, layers, kernels, samples, order, begin, n_rows, flat, memory, tile_rows):
    """Z (B, O) of the first layer, in panels; dense samples that do not lie as they are needed are copied."""
    layer, lanes, n_features = layers[0], network.lanes, samples.n_features
    numbers = numbers_at(memory, samples.numbers, samples.numbers_size)
    n_panels, place = layer.width // lanes, tile_rows * layer.h
    if samples.row_starts_size:
        call(kernels.sparse_product, (
            bytes_at(samples.packed_values, samples.packed_values_size),
            bytes_at(samples.packed_columns, samples.packed_columns_size),
            wholes_at(samples.row_starts, samples.row_starts_size), order, begin, n_rows, n_features,
            flat, layer.weight, layer.bias, network.input_scale, n_panels, memory, place, True,
        ))  # fmt: skip
    else:
        weight = Panels(layer.weight, lanes, n_features * lanes)
        z, bias = Panels(place, lanes, n_rows * lanes), Panels(layer.bias, 0, lanes)
        scale = network.input_scale
        if samples.numbers_size and not order.size:
            x = Left(begin * n_features, n_features, 1, n_features, 0, 1)
            call(
                kernels.multiply,
                (numbers, x, flat, weight, memory, z, n_rows, n_panels, scale, flat, bias, True),
            )
        else:
            source = bytes_at(samples.bytes, samples.bytes_size)
            call(kernels.load_rows, (numbers, source, order, begin, n_rows, n_features, memory))
            x = Left(0, n_features, 1, n_features, 0, 1)
            call(
                kernels.multiply,
                (memory, x, flat, weight, memory, z, n_rows, n_panels, scale, flat, bias, True),
            )


@NativeFunction
def forward_upright(network, kernels, samples, scratch, order, begin, _tile, n_rows, flat, memory):
    """Activations of B samples from position `begin` on, and their logits (C, S), whose last S - B columns are zero."""
    layers = layers_at(network.layers, network.layers_size)
    lanes, size, tile_rows = network.lanes, whole_vectors(n_rows, network.row_multiple), scratch.tile_rows
    n_layers = layers.size
    if not scratch.by_panels:
        first_product(network, layers, kernels, samples, order, begin, n_rows, flat, memory, tile_rows)
    for i in range(max(n_layers - 1, 1)):
        layer = layers[i]
        h, n_panels = tile_rows * layer.h, layer.width // lanes
        if i > 0:
            below = layers[i - 1]
            left = Left(tile_rows * below.h, lanes, 1, lanes, n_rows * lanes, below.width // lanes)
            weight = Panels(layer.weight, lanes, below.width * lanes)
            z, bias = Panels(h, lanes, n_rows * lanes), Panels(layer.bias, 0, lanes)
            call(
                kernels.multiply,
                (memory, left, flat, weight, memory, z, n_rows, n_panels, 1.0, flat, bias, True),
            )
        if i < n_layers - 1:
            activate(layer, memory, tile_rows, n_rows * layer.width)
            if layer.clears:
                call(kernels.clear_filling, (memory, h, n_rows, layer.fan_out, layer.width, lanes))
    last, logits = layers[n_layers - 1], tile_rows * network.logits
    if n_layers == 1:
        call(kernels.transpose_to_columns, (memory, tile_rows * last.h, n_rows, last.fan_out, size, lanes, logits))
    else:
        below = layers[n_layers - 2]
        call(kernels.dot_with_panels, (
            memory, Panels(tile_rows * below.h, lanes, n_rows * lanes), below.width // lanes,
            flat, last.weight, last.bias, last.fan_out, memory, logits, size,
        ))  # fmt: skip
    clear_end_of_rows(memory, logits, last.fan_out, n_rows, size)


@inlined
def last_layer_backward(network, layers, kernels, n_rows, size, flat, memory, tile_rows, gradient, adds):
    """Gradients of the last of several layers, and d of the one below, from d_logits (C, S)."""
    lanes, d = network.lanes, tile_rows * network.d_logits
    layer, below = layers[layers.size - 1], layers[layers.size - 2]
    n_outputs, n_panels = layer.fan_out, below.width // lanes
    weight = Panels(layer.weight, lanes, n_outputs * lanes)
    call(kernels.multiply, (
        memory, Left(d, size, 1, n_rows, 0, 1), memory, Panels(tile_rows * below.h, lanes, n_rows * lanes),
        gradient, weight, n_outputs, n_panels, 1.0, gradient, weight, adds,
    ))  # fmt: skip
    call(kernels.row_sums, (memory, d, n_outputs, size, gradient, layer.bias, adds))
    call(kernels.multiply, (
        memory, Left(d, 1, size, n_outputs, 0, 1), flat, weight,
        memory, Panels(tile_rows * below.d, lanes, n_rows * lanes), n_rows, n_panels, 1.0, flat, weight, False,
    ))  # fmt: skip
    activation_backward(below, memory, tile_rows, n_rows * below.width)


@inlined
def hidden_layer_backward(network, layers, kernels, i, n_rows, flat, memory, tile_rows, transposed, gradient, adds):
    """Gradients of a hidden layer, and d of the one below."""
    lanes, layer, below = network.lanes, layers[i], layers[i - 1]
    n_panels, n_panels_below, panel = layer.width // lanes, below.width // lanes, n_rows * lanes
    d, d_below = tile_rows * layer.d, tile_rows * below.d
    for k in range(n_panels_below):
        left = Left(tile_rows * below.h + k * panel, 1, lanes, n_rows, 0, 1)
        weight = Panels(layer.weight + k * lanes * lanes, lanes, below.width * lanes)
        call(kernels.multiply, (
            memory, left, memory, Panels(d, lanes, panel),
            gradient, weight, min(lanes, layer.fan_in - k * lanes), n_panels,
            1.0, gradient, weight, adds,
        ))  # fmt: skip
    call(kernels.panel_sums, (memory, Panels(d, lanes, panel), n_rows, n_panels, gradient, layer.bias, adds))
    call(kernels.multiply, (
        memory, Left(d, lanes, 1, lanes, panel, n_panels),
        transposed, Panels(layer.transposed, lanes, layer.width * lanes),
        memory, Panels(d_below, lanes, panel), n_rows, n_panels_below, 1.0, flat, Panels(0, 0, 0), False,
    ))  # fmt: skip
    activation_backward(below, memory, tile_rows, n_rows * below.width)


@inlined
def sort_samples(kernels, samples, scratch, place, order, begin, n_rows):
    """Values, rows and starts of packed samples, sorted by columns."""
    values = row_of(own_bytes_at(scratch.values, scratch.values_size), scratch.n_places, place)
    rows = row_of(own_bytes_at(scratch.rows, scratch.rows_size), scratch.n_places, place)
    starts = row_of(own_wholes_at(scratch.starts, scratch.starts_size), scratch.n_places, place)
    call(kernels.sort_by_columns, (
        bytes_at(samples.packed_values, samples.packed_values_size),
        bytes_at(samples.packed_columns, samples.packed_columns_size),
        wholes_at(samples.row_starts, samples.row_starts_size), order, begin, n_rows,
        starts, values, rows,
    ))  # fmt: skip
    return values, rows, starts


@inlined
def first_layer_backward(
    network, layers, kernels, samples, scratch, place, order, begin, tile, n_rows, memory, gradient, adds
):
    """Gradients of the first layer."""
    tile_rows, lanes, layer, n_features = scratch.tile_rows, network.lanes, layers[0], samples.n_features
    numbers = numbers_at(memory, samples.numbers, samples.numbers_size)
    d, n_panels = tile_rows * layer.d, layer.width // lanes
    if samples.row_starts_size:
        if samples.tile_starts_size:
            call(kernels.sparse_product_backward, (
                bytes_at(samples.tile_values, samples.tile_values_size),
                bytes_at(samples.tile_rows, samples.tile_rows_size),
                wholes_at(samples.tile_starts + tile * 8 * (n_features + 1), n_features + 1), n_features,
                memory, d, n_rows, n_panels, gradient, layer.weight, adds,
            ))  # fmt: skip
        else:
            values, rows, starts = sort_samples(kernels, samples, scratch, place, order, begin, n_rows)
            call(kernels.sparse_product_backward, (
                values, rows, starts, n_features, memory, d, n_rows, n_panels, gradient, layer.weight, adds,
            ))  # fmt: skip
    else:
        weight, d_z = Panels(layer.weight, lanes, n_features * lanes), Panels(d, lanes, n_rows * lanes)
        if samples.numbers_size and not order.size:
            x = Left(begin * n_features, 1, n_features, n_rows, 0, 1)
            call(
                kernels.multiply,
                (numbers, x, memory, d_z, gradient, weight, n_features, n_panels, 1.0, gradient, weight, adds),
            )
        else:
            x = Left(0, 1, n_features, n_rows, 0, 1)
            call(
                kernels.multiply,
                (memory, x, memory, d_z, gradient, weight, n_features, n_panels, 1.0, gradient, weight, adds),
            )
    call(kernels.panel_sums, (memory, Panels(d, lanes, n_rows * lanes), n_rows, n_panels, gradient, layer.bias, adds))


@NativeFunction
def backward_upright(
    network, kernels, samples, scratch, place, order, begin, tile, n_rows, flat, memory, transposed, gradient, adds
):
    """Gradients of all layers from d_logits (C, S) of B samples, added to `gradient` if `adds`, else put there."""
    layers, tile_rows = layers_at(network.layers, network.layers_size), scratch.tile_rows
    size, n_layers = whole_vectors(n_rows, network.row_multiple), layers.size
    if n_layers == 1:
        d, layer = tile_rows * network.d_logits, layers[0]
        call(kernels.transpose_to_panels, (memory, d, n_rows, layer.fan_out, size, network.lanes, tile_rows * layer.d))
    else:
        last_layer_backward(network, layers, kernels, n_rows, size, flat, memory, tile_rows, gradient, adds)
        for i in range(n_layers - 2, 0, -1):
            hidden_layer_backward(
                network, layers, kernels, i, n_rows, flat, memory, tile_rows, transposed, gradient, adds
            )
    if not scratch.by_panels:
        first_layer_backward(
            network, layers, kernels, samples, scratch, place, order, begin, tile, n_rows, memory, gradient, adds
        )
    elif samples.row_starts_size:
        sort_samples(kernels, samples, scratch, place, order, begin, n_rows)
