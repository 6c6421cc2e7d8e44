"""Gradients of groups of rows: each tile goes through all layers and back before the next one starts."""

# Legend: B rows of a tile, S as many in whole vectors, C outputs.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.batches import copy_samples
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, inlined
from fastnet.backends.numba_backend.kernels.partition import count_tiles, share_start, tile_start, whole_vectors
from fastnet.backends.numba_backend.kernels.row_products import dot
from fastnet.backends.numba_backend.kernels.sharing import next_item
from fastnet.backends.numba_backend.kernels.views import (
    kernels_at,
    labels_at,
    layers_at,
    matrix_of,
    network_at,
    numbers_at,
    own_doubles_at,
    own_labels_at,
    own_numbers_at,
    own_wholes_at,
    part_of,
    row_of,
    run_at,
    samples_at,
    scratch_at,
    state_at,
    step_at,
    sums_at,
    wholes_at,
)

__all__ = ["gradient_share"]


@inlined
def wanted_of_tile(network, kernels, samples, order, begin, tile, n_rows, size, memory, tile_rows, label_rows):
    """Labels (S,) and targets (C, S) of a tile, and weights (S,): where they lie, or copied to its memory."""
    n_outputs, start = network.n_outputs, tile_rows * network.loss_rows
    if samples.tile_columns_size:
        labels, slot = labels_at(samples.tile_labels, samples.tile_labels_size), tile * tile_rows
        targets = numbers_at(memory, samples.tile_targets, samples.tile_targets_size)
        weights = numbers_at(memory, samples.tile_weights, samples.tile_weights_size)
        return (
            part_of(labels, slot, size),
            matrix_of(targets, slot * n_outputs, n_outputs, size),
            part_of(weights, slot, size),
        )
    labels, weights = part_of(label_rows, 0, size), part_of(memory, start + 3 * size, size)
    targets = matrix_of(memory, start + 4 * size, n_outputs, size)
    given_labels = labels_at(samples.labels, samples.labels_size)
    given_targets = numbers_at(memory, samples.targets, samples.targets_size)
    given_weights = numbers_at(memory, samples.weights, samples.weights_size)
    call(kernels.load_targets, (given_labels, given_targets, order, begin, n_rows, labels, targets))
    call(kernels.load_weights, (given_weights, order, begin, n_rows, weights))
    return labels, targets, weights


@inlined
def head_of_tile(
    network, kernels, samples, order, begin, tile, n_rows, scale, memory, tile_rows, label_rows, n_correct
):
    """Loss in nats of a tile (float64, not yet scaled); adds to ``n_correct[0]``.

    d_logits (C, S) becomes the gradient of ``scale * sum_i w_i loss_i``.
    """
    size, n_outputs = whole_vectors(n_rows, network.row_multiple), network.n_outputs
    logits = matrix_of(memory, tile_rows * network.logits, n_outputs, size)
    p = matrix_of(memory, tile_rows * network.outputs, n_outputs, size)
    d = matrix_of(memory, tile_rows * network.d_logits, n_outputs, size)
    start = tile_rows * network.loss_rows
    rows = matrix_of(memory, start, 2, size)
    losses, predicted = part_of(memory, start + 2 * size, size), part_of(label_rows, tile_rows, size)
    labels, targets, weights = wanted_of_tile(
        network, kernels, samples, order, begin, tile, n_rows, size, memory, tile_rows, label_rows
    )
    call(kernels.output, (logits, p, rows, d))
    call(kernels.head, (logits, p, labels, targets, rows, d, losses))
    call(kernels.count, (logits, p, labels, targets, predicted, n_rows, n_correct))
    factor = memory.dtype.type(scale)
    call(kernels.weigh, (d, weights, factor))
    return dot(losses, weights, size)


@inlined
def transpose_weights(network, layers, kernels, flat, transposed):
    """The weights of hidden layers as the way back needs them."""
    for i in range(1, layers.size - 1):
        layer, n_rows = layers[i], layers[i - 1].width
        place = layer.transposed
        call(kernels.transpose_weight, (flat, layer.weight, n_rows, layer.width, network.lanes, transposed, place))


@NativeFunction
def gradient_share(share, item, training):
    """One worker's items of a round: groups of the rows of a step, or samples to be copied for the next.

    What a group contributes goes to the sums. Its gradient is that of ``scale * sum_i w_i loss_i``, for a first layer
    whose inputs are not scaled.
    """
    step, worker = step_at(training.step), share.worker
    network, kernels, samples = network_at(training.network), kernels_at(training.kernels), samples_at(training.samples)
    state, scratch, run = state_at(training.state), scratch_at(training.scratch), run_at(training.run)
    flat, order = own_numbers_at(training.like, state.flat, state.flat_size), wholes_at(run.order, run.order_size)
    tile_rows = scratch.tile_rows
    transposed = row_of(own_numbers_at(flat, scratch.transposed, scratch.transposed_size), scratch.n_workers, worker)
    label_rows = row_of(own_labels_at(scratch.labels, scratch.labels_size), scratch.n_workers, worker)
    n_correct = row_of(own_wholes_at(scratch.n_correct, scratch.n_correct_size), scratch.n_workers, worker)
    sums = sums_at(training.sums)
    losses, corrects = own_doubles_at(sums.losses, sums.losses_size), own_wholes_at(sums.n_correct, sums.n_correct_size)
    gradients = own_numbers_at(flat, sums.gradients, sums.gradients_size)
    n_tiles = count_tiles(step.end - step.begin, step.n_groups, tile_rows)
    layers, is_first_group = layers_at(network.layers, network.layers_size), True
    while item >= 0:
        if item < step.n_groups:
            if is_first_group and not network.across:
                transpose_weights(network, layers, kernels, flat, transposed)
            is_first_group = False
            place = item if scratch.by_panels else worker
            memory = row_of(own_numbers_at(flat, scratch.memory, scratch.memory_size), scratch.n_places, place)
            first_tile = share_start(item, step.n_groups, 0, n_tiles)
            gradient = row_of(gradients, losses.size, item)
            loss = 0.0
            n_correct[0] = 0
            for tile in range(first_tile, share_start(item + 1, step.n_groups, 0, n_tiles)):
                begin = tile_start(tile, n_tiles, tile_rows, step.begin, step.end)
                n_rows = tile_start(tile + 1, n_tiles, tile_rows, step.begin, step.end) - begin
                call(
                    kernels.forward,
                    (network, kernels, samples, scratch, order, begin, tile, n_rows, flat, memory),
                )
                loss += head_of_tile(
                    network, kernels, samples, order, begin, tile, n_rows, step.scale, memory, tile_rows,
                    label_rows, n_correct,
                )  # fmt: skip
                call(kernels.backward, (
                    network, kernels, samples, scratch, place, order, begin, tile, n_rows,
                    flat, memory, transposed, gradient, tile > first_tile,
                ))  # fmt: skip
            losses[item], corrects[item] = loss, n_correct[0]
        else:
            copy_samples(kernels, samples, scratch, run, step.number + 1, item - step.n_groups, flat)
        item = next_item(share, item)
