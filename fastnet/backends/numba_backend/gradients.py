"""Gradients of groups of rows: each tile goes through all layers and back before the next one starts."""

# Legend: B rows of a tile, S as many in whole vectors, C outputs.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.blocks import lanes_of, load, multiply_add, sum_of_lanes, zeros
from fastnet.backends.numba_backend.compiling import NativeFunction, call, inlined, kernel
from fastnet.backends.numba_backend.partition import share_start, whole_vectors
from fastnet.backends.numba_backend.records import Sorting
from fastnet.backends.numba_backend.tiles import matrix_view
from fastnet.backends.numba_backend.views import labels_at, layers_at, numbers_at, wholes_at

__all__ = ["gradient_share"]


@kernel
def weighted_total(losses, weights):
    """``sum of losses * weights``, both (S,)."""
    total = zeros(losses, 1)
    for s in range(0, losses.size, lanes_of(losses)):
        total = multiply_add(load(total, losses, s, 0), load(total, weights, s, 0), total)
    return sum_of_lanes(total)


@inlined
def head_of_tile(network, kernels, samples, order, begin, n_rows, scale, memory, tile_rows, label_rows, n_correct):
    """Loss in nats of a tile (float64, not yet scaled); adds to ``n_correct[0]``.

    d_logits (C, S) becomes the gradient of ``scale * sum_i w_i loss_i``.
    """
    size, n_outputs = whole_vectors(n_rows, network.row_multiple), network.n_outputs
    logits = matrix_view(memory, tile_rows * network.logits, n_outputs, size)
    p = matrix_view(memory, tile_rows * network.outputs, n_outputs, size)
    d = matrix_view(memory, tile_rows * network.d_logits, n_outputs, size)
    start = tile_rows * network.loss_rows
    rows = matrix_view(memory, start, 2, size)
    losses, weights = memory[start + 2 * size : start + 3 * size], memory[start + 3 * size : start + 4 * size]
    targets = matrix_view(memory, start + 4 * size, n_outputs, size)
    labels, predicted = label_rows[0, :size], label_rows[1, :size]

    given_labels = labels_at(samples.labels, samples.labels_size)
    given_targets = numbers_at(memory, samples.targets, samples.targets_size)
    given_weights = numbers_at(memory, samples.weights, samples.weights_size)
    call(kernels.load_targets, (given_labels, given_targets, order, begin, n_rows, labels, targets))
    call(kernels.load_weights, (given_weights, order, begin, n_rows, weights))
    call(kernels.output, (logits, p, rows))
    call(kernels.head, (logits, p, labels, targets, rows, d, losses))
    call(kernels.count, (logits, p, labels, targets, predicted, n_rows, n_correct))
    factor = memory.dtype.type(scale)
    call(kernels.weigh, (d, weights, factor))
    return weighted_total(losses, weights)


@NativeFunction
def gradient_share(worker, n_workers, forward, backward, step, network, kernels, samples, order, flat, scratch, sums):
    """One worker's groups of the rows of a step; what they contribute goes to `sums`.

    The gradient of a group is that of ``scale * sum_i w_i loss_i``, for a first layer whose inputs are not scaled.
    """
    memory, tile_rows = scratch.memory[worker], scratch.tile_rows
    n_correct, label_rows = scratch.n_correct[worker], scratch.labels[worker]
    sorting = Sorting(scratch.values[worker], scratch.rows[worker], scratch.starts[worker])
    first_tiles = wholes_at(samples.first_tiles, samples.first_tiles_size)
    layers = layers_at(network.layers, network.layers_size)
    if not network.across:
        for i in range(1, layers.size - 1):
            layer, n_rows = layers[i], layers[i - 1].width
            place = scratch.transposed + layer.transposed
            call(kernels.transpose_weight, (flat, layer.weight, n_rows, layer.width, network.lanes, memory, place))
    n_groups = step.n_groups
    for group in range(share_start(worker, n_workers, 0, n_groups), share_start(worker + 1, n_workers, 0, n_groups)):
        begin = share_start(group, n_groups, step.begin, step.end)
        end = share_start(group + 1, n_groups, step.begin, step.end)
        first_tile = first_tiles[group] if first_tiles.size else 0
        gradient = sums.gradients[group]
        loss = 0.0
        n_correct[0] = 0
        n_tiles = -(-(end - begin) // tile_rows)
        for tile in range(n_tiles):
            first = share_start(tile, n_tiles, begin, end)
            n_rows = share_start(tile + 1, n_tiles, begin, end) - first
            forward(network, kernels, samples, order, first, first_tile + tile, n_rows, flat, memory, tile_rows)
            loss += head_of_tile(
                network, kernels, samples, order, first, n_rows, step.scale, memory, tile_rows, label_rows, n_correct
            )
            backward(
                network, kernels, samples, order, first, first_tile + tile, n_rows,
                flat, memory, tile_rows, scratch.transposed, sorting, gradient, tile > 0,
            )  # fmt: skip
        sums.losses[group], sums.n_correct[group] = loss, n_correct[0]
