"""Forward and backward over a group of rows: each tile goes through all layers and back before the next one starts."""

# Legend: B rows of a tile, S as many in whole vectors, D features, I fan-in, O fan-out, C outputs, w numbers of a vector.
# ``layout.py`` tells where a tile's arrays lie in the memory of a worker, and how parameters lie in `flat`: upright, a
# sample is a row of a panel, and across, a column.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.blocks import lanes_of, load, store, zeros
from fastnet.backends.numba_backend.compiling import NativeFunction, function_at, inlined, kernel
from fastnet.backends.numba_backend.partition import share_start
from fastnet.backends.numba_backend.products import ADD_NOTHING, ADD_NUMBERS, ADD_VECTORS, Left, Panels
from fastnet.backends.numba_backend.sparse import sample_at

__all__ = [
    "backward_across",
    "backward_upright",
    "forward_across",
    "forward_upright",
    "gradient_share",
    "matrix_view",
    "whole_vectors",
]


@inlined
def matrix_view(memory, start, n_rows, n_columns):
    """(n_rows, n_columns) of a flat array from `start` on."""
    return memory[start : start + n_rows * n_columns].reshape(n_rows, n_columns)


@kernel
def whole_vectors(n_rows, multiple):
    """S."""
    return -(-n_rows // multiple) * multiple


@kernel
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


@kernel
def load_columns(source, order, begin, n_rows, size, n_features, memory):
    """Copy samples from position `begin` on, as (D, S), to the start of `memory`; what fills up S is zero."""
    for k in range(n_features):
        for i in range(n_rows):
            memory[k * size + i] = source[sample_at(order, begin + i) * n_features + k]
        for i in range(n_rows, size):
            memory[k * size + i] = memory.dtype.type(0)


@kernel
def transpose_weight(flat, start, n_rows, n_columns, lanes, memory, place):
    """From the panels of a weight (I, O) to those of its transpose (O, I), both sizes in whole vectors."""
    for i in range(n_rows):
        for j in range(n_columns):
            source = start + j // lanes * (n_rows * lanes) + i * lanes + j % lanes
            memory[place + i // lanes * (n_columns * lanes) + j * lanes + i % lanes] = flat[source]


@kernel
def transpose_to_columns(memory, panels, n_rows, n_columns, size, lanes, place):
    """From (B, C) in panels to (C, S)."""
    for j in range(n_columns):
        for i in range(n_rows):
            memory[place + j * size + i] = memory[panels + (j // lanes * n_rows + i) * lanes + j % lanes]


@kernel
def transpose_to_panels(memory, place, n_rows, n_columns, size, lanes, panels):
    """From (C, S) to (B, C) in panels, the last of which is filled up with zeros."""
    for j in range(whole_vectors(n_columns, lanes)):
        for i in range(n_rows):
            at = panels + (j // lanes * n_rows + i) * lanes + j % lanes
            memory[at] = memory[place + j * size + i] if j < n_columns else memory.dtype.type(0)


@kernel
def clear_filling(memory, start, n_rows, fan_out, width, lanes):
    """Set to zero what fills up the last panel of (B, O)."""
    for i in range(n_rows):
        for j in range(fan_out - (width - lanes), lanes):
            memory[start + ((width // lanes - 1) * n_rows + i) * lanes + j] = memory.dtype.type(0)


@kernel
def clear_end_of_rows(memory, start, n_rows, begin, end):
    """Set columns [begin, end) of (n_rows, end) to zero."""
    for i in range(n_rows):
        for k in range(start + i * end + begin, start + (i + 1) * end):
            memory[k] = memory.dtype.type(0)


@inlined
def activate(kernels, layer, memory, tile_rows, n_numbers):
    """Apply a layer's activation to the first numbers of its h, keeping z where the derivative will need it."""
    h = memory[tile_rows * layer.h : tile_rows * layer.h + n_numbers]
    if layer.kept != layer.h:
        kept = memory[tile_rows * layer.kept : tile_rows * layer.kept + n_numbers]
        for k in range(n_numbers):  # Numba takes seconds to compile the assignment of an array
            kept[k] = h[k]
    function_at(kernels.activate, layer.activate)(h)


@inlined
def activation_backward(kernels, layer, memory, tile_rows, n_numbers):
    """Turn the first numbers of a layer's d from gradients with respect to h into those with respect to z."""
    d = memory[tile_rows * layer.d : tile_rows * layer.d + n_numbers]
    kept = memory[tile_rows * layer.kept : tile_rows * layer.kept + n_numbers]
    function_at(kernels.backward, layer.backward)(d, kept)


@inlined
def first_product(network, kernels, samples, order, begin, n_rows, flat, memory, tile_rows):
    """z (B, O) of the first layer, in panels; dense samples that do not lie as they are needed are copied."""
    layer, lanes, n_features = network.layers[0], network.lanes, samples.n_features
    n_panels, place = layer.width // lanes, tile_rows * layer.h
    if samples.row_starts.size:
        kernels.sparse_product(
            samples.packed_values, samples.packed_columns, samples.row_starts, order, begin, n_rows, n_features,
            flat, layer.weight, layer.bias, network.input_scale, n_panels, memory, place,
        )  # fmt: skip
    else:
        weight = Panels(layer.weight, lanes, n_features * lanes)
        z, bias = Panels(place, lanes, n_rows * lanes), Panels(layer.bias, 0, lanes)
        scale = network.input_scale
        if samples.numbers.size and not order.size:
            x = Left(begin * n_features, n_features, 1, n_features, 0, 1)
            kernels.multiply(samples.numbers, x, flat, weight, memory, z, n_rows, n_panels, scale, flat, bias, ADD_VECTORS)
        else:
            load_rows(samples.numbers, samples.bytes, order, begin, n_rows, n_features, memory)
            x = Left(0, n_features, 1, n_features, 0, 1)
            kernels.multiply(memory, x, flat, weight, memory, z, n_rows, n_panels, scale, flat, bias, ADD_VECTORS)


@NativeFunction
def forward_upright(network, kernels, samples, order, begin, n_rows, flat, memory, tile_rows):
    """Activations of B samples from position `begin` on, and their logits (C, S), whose last S - B columns are zero."""
    layers, lanes, size = network.layers, network.lanes, whole_vectors(n_rows, network.row_multiple)
    n_layers = layers.size
    first_product(network, kernels, samples, order, begin, n_rows, flat, memory, tile_rows)
    for i in range(max(n_layers - 1, 1)):
        layer = layers[i]
        h, n_panels = tile_rows * layer.h, layer.width // lanes
        if i > 0:
            below = layers[i - 1]
            left = Left(tile_rows * below.h, lanes, 1, lanes, n_rows * lanes, below.width // lanes)
            weight = Panels(layer.weight, lanes, below.width * lanes)
            z, bias = Panels(h, lanes, n_rows * lanes), Panels(layer.bias, 0, lanes)
            kernels.multiply(memory, left, flat, weight, memory, z, n_rows, n_panels, 1.0, flat, bias, ADD_VECTORS)
        if i < n_layers - 1:
            activate(kernels, layer, memory, tile_rows, n_rows * layer.width)
            if layer.clears:
                clear_filling(memory, h, n_rows, layer.fan_out, layer.width, lanes)
    last, logits = layers[n_layers - 1], tile_rows * network.logits
    if n_layers == 1:
        transpose_to_columns(memory, tile_rows * last.h, n_rows, last.fan_out, size, lanes, logits)
    else:
        below = layers[n_layers - 2]
        kernels.dot_with_panels(
            memory, Panels(tile_rows * below.h, lanes, n_rows * lanes), below.width // lanes,
            flat, last.weight, last.bias, last.fan_out, memory, logits, size,
        )  # fmt: skip
    clear_end_of_rows(memory, logits, last.fan_out, n_rows, size)


@NativeFunction
def forward_across(network, kernels, samples, order, begin, n_rows, flat, memory, tile_rows):
    """What :func:`forward_upright` does, in the other layout."""
    layers, lanes, n_features = network.layers, network.lanes, samples.n_features
    size = whole_vectors(n_rows, network.row_multiple)
    if samples.numbers.size:
        load_columns(samples.numbers, order, begin, n_rows, size, n_features, memory)
    else:
        load_columns(samples.bytes, order, begin, n_rows, size, n_features, memory)
    below, scale = 0, network.input_scale
    for i in range(layers.size):
        layer = layers[i]
        h = tile_rows * layer.h
        kernels.multiply(
            flat, Left(layer.weight, 1, layer.fan_out, layer.fan_in, 0, 1), memory, Panels(below, size, lanes),
            memory, Panels(h, size, lanes), layer.fan_out, size // lanes, scale, flat, Panels(layer.bias, 1, 0), ADD_NUMBERS,
        )  # fmt: skip
        if i < layers.size - 1:
            activate(kernels, layer, memory, tile_rows, layer.fan_out * size)
        below, scale = h, 1.0
    clear_end_of_rows(memory, below, layers[layers.size - 1].fan_out, n_rows, size)


@inlined
def load_targets(samples, order, begin, n_rows, size, labels, weights, targets):
    """Labels (S,) or targets (C, S), and weights (S,), of B samples; what fills up S has weight zero."""
    zero, one = weights.dtype.type(0), weights.dtype.type(1)
    for s in range(n_rows):
        weights[s] = samples.weights[sample_at(order, begin + s)] if samples.weights.size else one
    for s in range(n_rows, size):
        weights[s] = zero
    if samples.labels.size:
        for s in range(n_rows):
            labels[s] = samples.labels[sample_at(order, begin + s)]
        for s in range(n_rows, size):
            labels[s] = 0
    else:
        for c in range(targets.shape[0]):
            for s in range(n_rows):
                targets[c, s] = samples.targets[sample_at(order, begin + s), c]
            for s in range(n_rows, size):
                targets[c, s] = zero


@kernel
def weighted_total(losses, weights, n_rows):
    """``sum of losses * weights`` in float64, four sums at once, as one alone would wait for itself."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for s in range(0, n_rows - 3, 4):
        a += losses[s] * weights[s]
        b += losses[s + 1] * weights[s + 1]
        c += losses[s + 2] * weights[s + 2]
        d += losses[s + 3] * weights[s + 3]
    for s in range(n_rows - n_rows % 4, n_rows):
        a += losses[s] * weights[s]
    return (a + b) + (c + d)


@inlined
def head_of_tile(network, kernels, samples, order, begin, n_rows, scale, memory, tile_rows, label_rows, n_correct):
    """Loss in nats of a tile (float64, not yet scaled); adds to ``n_correct[0]``.

    d_logits (C, S) becomes the gradient of ``scale * sum_i w_i loss_i``.
    """
    size, n_outputs = whole_vectors(n_rows, network.row_multiple), network.layers[-1].fan_out
    logits = matrix_view(memory, tile_rows * network.logits, n_outputs, size)
    p = matrix_view(memory, tile_rows * network.outputs, n_outputs, size)
    d = matrix_view(memory, tile_rows * network.d_logits, n_outputs, size)
    start = tile_rows * network.loss_rows
    rows = matrix_view(memory, start, 2, size)
    losses, weights = memory[start + 2 * size : start + 3 * size], memory[start + 3 * size : start + 4 * size]
    targets = matrix_view(memory, start + 4 * size, n_outputs, size)
    labels, predicted = label_rows[0, :size], label_rows[1, :size]

    load_targets(samples, order, begin, n_rows, size, labels, weights, targets)
    kernels.output(logits, p, rows)
    kernels.head(logits, p, labels, targets, rows, d, losses)
    kernels.count(logits, p, labels, targets, predicted, n_rows, n_correct)
    factor = memory.dtype.type(scale)
    for c in range(n_outputs):
        for s in range(size):
            d[c, s] *= factor * weights[s]
    return weighted_total(losses, weights, n_rows)


@NativeFunction
def backward_across(
    network, kernels, samples, order, begin, tile, n_rows, flat, memory, tile_rows, worker, scratch, gradient, adds
):
    """What :func:`backward_upright` does, in the other layout."""
    layers, lanes = network.layers, network.lanes
    size = whole_vectors(n_rows, network.row_multiple)
    for i in range(layers.size - 1, -1, -1):
        layer = layers[i]
        d, below_h = tile_rows * layer.d, tile_rows * layers[i - 1].h if i > 0 else 0
        kernels.dots_of_rows(
            memory, below_h, layer.fan_in, memory, d, layer.fan_out, size, lanes, gradient, layer.weight, adds
        )
        kernels.row_sums(memory, d, layer.fan_out, size, lanes, gradient, layer.bias, adds)
        if i > 0:
            kernels.multiply(
                flat, Left(layer.weight, layer.fan_out, 1, layer.fan_out, 0, 1), memory, Panels(d, size, lanes),
                memory, Panels(tile_rows * layers[i - 1].d, size, lanes), layer.fan_in, size // lanes,
                1.0, flat, Panels(0, 0, 0), ADD_NOTHING,
            )  # fmt: skip
            activation_backward(kernels, layers[i - 1], memory, tile_rows, layer.fan_in * size)


@inlined
def last_layer_backward(network, kernels, n_rows, size, flat, memory, tile_rows, gradient, adds):
    """Gradients of the last of several layers, and d of the one below, from d_logits (C, S)."""
    lanes, d = network.lanes, tile_rows * network.d_logits
    layer, below = network.layers[-1], network.layers[-2]
    n_outputs, n_panels = layer.fan_out, below.width // lanes
    weight = Panels(layer.weight, lanes, n_outputs * lanes)
    kernels.multiply(
        memory, Left(d, size, 1, n_rows, 0, 1), memory, Panels(tile_rows * below.h, lanes, n_rows * lanes),
        gradient, weight, n_outputs, n_panels, 1.0, gradient, weight, ADD_VECTORS if adds else ADD_NOTHING,
    )  # fmt: skip
    kernels.row_sums(memory, d, n_outputs, size, lanes, gradient, layer.bias, adds)
    kernels.multiply(
        memory, Left(d, 1, size, n_outputs, 0, 1), flat, weight,
        memory, Panels(tile_rows * below.d, lanes, n_rows * lanes), n_rows, n_panels, 1.0, flat, weight, ADD_NOTHING,
    )  # fmt: skip
    activation_backward(kernels, below, memory, tile_rows, n_rows * below.width)


@inlined
def hidden_layer_backward(network, kernels, i, n_rows, flat, memory, tile_rows, transposed, gradient, adds):
    """Gradients of a hidden layer, and d of the one below."""
    lanes, layer, below = network.lanes, network.layers[i], network.layers[i - 1]
    n_panels, n_panels_below, panel = layer.width // lanes, below.width // lanes, n_rows * lanes
    d, d_below = tile_rows * layer.d, tile_rows * below.d
    for k in range(n_panels_below):
        left = Left(tile_rows * below.h + k * panel, 1, lanes, n_rows, 0, 1)
        weight = Panels(layer.weight + k * lanes * lanes, lanes, below.width * lanes)
        kernels.multiply(
            memory, left, memory, Panels(d, lanes, panel),
            gradient, weight, min(lanes, layer.fan_in - k * lanes), n_panels,
            1.0, gradient, weight, ADD_VECTORS if adds else ADD_NOTHING,
        )  # fmt: skip
    kernels.panel_sums(memory, Panels(d, lanes, panel), n_rows, n_panels, gradient, layer.bias, adds)
    kernels.multiply(
        memory, Left(d, lanes, 1, lanes, panel, n_panels),
        memory, Panels(transposed + layer.transposed, lanes, layer.width * lanes),
        memory, Panels(d_below, lanes, panel), n_rows, n_panels_below, 1.0, flat, Panels(0, 0, 0), ADD_NOTHING,
    )  # fmt: skip
    activation_backward(kernels, below, memory, tile_rows, n_rows * below.width)


@inlined
def first_layer_backward(
    network, kernels, samples, order, begin, tile, n_rows, memory, tile_rows, worker, scratch, gradient, adds
):
    lanes, layer, n_features = network.lanes, network.layers[0], samples.n_features
    d, n_panels = tile_rows * layer.d, layer.width // lanes
    if samples.row_starts.size:
        if samples.first_tiles.size:
            kernels.sparse_product_backward(
                samples.tile_values, samples.tile_rows, samples.tile_starts[tile], n_features,
                memory, d, n_rows, n_panels, gradient, layer.weight, adds,
            )  # fmt: skip
        else:
            starts = scratch.starts[worker]
            kernels.sort_by_columns(
                samples.packed_values, samples.packed_columns, samples.row_starts, order, begin, n_rows,
                starts, scratch.values[worker], scratch.rows[worker],
            )  # fmt: skip
            kernels.sparse_product_backward(
                scratch.values[worker], scratch.rows[worker], starts, n_features,
                memory, d, n_rows, n_panels, gradient, layer.weight, adds,
            )  # fmt: skip
    else:
        weight, d_z = Panels(layer.weight, lanes, n_features * lanes), Panels(d, lanes, n_rows * lanes)
        mode = ADD_VECTORS if adds else ADD_NOTHING
        if samples.numbers.size and not order.size:
            x = Left(begin * n_features, 1, n_features, n_rows, 0, 1)
            kernels.multiply(
                samples.numbers, x, memory, d_z, gradient, weight, n_features, n_panels, 1.0, gradient, weight, mode
            )
        else:
            x = Left(0, 1, n_features, n_rows, 0, 1)
            kernels.multiply(
                memory, x, memory, d_z, gradient, weight, n_features, n_panels, 1.0, gradient, weight, mode
            )
    kernels.panel_sums(memory, Panels(d, lanes, n_rows * lanes), n_rows, n_panels, gradient, layer.bias, adds)


@NativeFunction
def backward_upright(
    network, kernels, samples, order, begin, tile, n_rows, flat, memory, tile_rows, worker, scratch, gradient, adds
):
    """Gradients of all layers from d_logits (C, S) of B samples, added to `gradient` if `adds`, else put there."""
    size, n_layers = whole_vectors(n_rows, network.row_multiple), network.layers.size
    if n_layers == 1:
        d, layer = tile_rows * network.d_logits, network.layers[0]
        transpose_to_panels(memory, d, n_rows, layer.fan_out, size, network.lanes, tile_rows * layer.d)
    else:
        last_layer_backward(network, kernels, n_rows, size, flat, memory, tile_rows, gradient, adds)
        for i in range(n_layers - 2, 0, -1):
            hidden_layer_backward(
                network, kernels, i, n_rows, flat, memory, tile_rows, scratch.transposed, gradient, adds
            )
    first_layer_backward(
        network, kernels, samples, order, begin, tile, n_rows, memory, tile_rows, worker, scratch, gradient, adds
    )


@NativeFunction
def gradient_share(worker, n_workers, forward, backward, step, network, kernels, samples, order, flat, scratch, sums):
    """One worker's groups of the rows of a step; what they contribute goes to `sums`.

    The gradient of a group is that of ``scale * sum_i w_i loss_i``, for a first layer whose inputs are not scaled.
    """
    memory, tile_rows = scratch.memory[worker], scratch.tile_rows
    n_correct, label_rows = scratch.n_correct[worker], scratch.labels[worker]
    if not network.across:
        for i in range(1, network.layers.size - 1):
            layer, n_rows = network.layers[i], network.layers[i - 1].width
            place = scratch.transposed + layer.transposed
            transpose_weight(flat, layer.weight, n_rows, layer.width, network.lanes, memory, place)
    n_groups = step.n_groups
    for group in range(share_start(worker, n_workers, 0, n_groups), share_start(worker + 1, n_workers, 0, n_groups)):
        begin = share_start(group, n_groups, step.begin, step.end)
        end = share_start(group + 1, n_groups, step.begin, step.end)
        first_tile = samples.first_tiles[group] if samples.first_tiles.size else 0
        gradient = sums.gradients[group]
        loss = 0.0
        n_correct[0] = 0
        n_tiles = -(-(end - begin) // tile_rows)
        for tile in range(n_tiles):
            first = share_start(tile, n_tiles, begin, end)
            n_rows = share_start(tile + 1, n_tiles, begin, end) - first
            forward(network, kernels, samples, order, first, n_rows, flat, memory, tile_rows)
            loss += head_of_tile(
                network, kernels, samples, order, first, n_rows, step.scale, memory, tile_rows, label_rows, n_correct
            )
            backward(
                network, kernels, samples, order, first, first_tile + tile, n_rows,
                flat, memory, tile_rows, worker, scratch, gradient, tile > 0,
            )  # fmt: skip
        sums.losses[group], sums.n_correct[group] = loss, n_correct[0]
