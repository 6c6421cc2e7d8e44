"""The first layer of steps with small batches, divided by panels of its weight instead of by rows.

Who has some panels does all that belongs to them: the gradient of all groups of rows, the update, and, with the weights
that come out, the product of the next step. No processor ever reads another's gradients, and what an update needs is
still in its cache. In between, the groups have their turn, from the first activation on and back to it: see
``gradients.py``. Sums have the same terms in the same order as where the groups do everything.
"""

# Legend: w numbers of a vector. Z of the first layer and its gradient d lie in panels, those of each group by
# themselves; see ``layout.py``.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.batches import batch_of_step, copied_batch
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, inlined
from fastnet.backends.numba_backend.kernels.partition import count_chunks, count_panel_items, share_start
from fastnet.backends.numba_backend.kernels.products import Left, Panels
from fastnet.backends.numba_backend.kernels.sharing import next_item
from fastnet.backends.numba_backend.kernels.updates import add_groups, update_part
from fastnet.backends.numba_backend.kernels.views import (
    bytes_at,
    kernels_at,
    layers_at,
    network_at,
    optimizer_at,
    own_bytes_at,
    own_doubles_at,
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
from fastnet.backends.numba_backend.partition import CHUNK, PANELS_OF_ITEM

__all__ = ["count_panel_parts", "panel_share"]


@inlined
def end_of_others(network):
    """Where the parameters of the other layers end, which begin after the first weight; the first bias comes next."""
    return min(layers_at(network.layers, network.layers_size)[0].bias, network.n_parameters)


@inlined
def count_panel_parts(network):
    """Items of a round: first those of the panels, then chunks of the parameters of other layers."""
    width = layers_at(network.layers, network.layers_size)[0].width
    others = end_of_others(network) - network.first_weight_size
    return count_panel_items(width, network.lanes) + count_chunks(others)


@inlined
def add_gradients(network, kernels, samples, scratch, step, memories, gradient, panel, n_panels):
    """Gradients of some panels of the first weight and bias, from all groups in their order."""
    layer, lanes, n_features = layers_at(network.layers, network.layers_size)[0], network.lanes, samples.n_features
    weight, bias = layer.weight + panel * n_features * lanes, layer.bias + panel * lanes
    for group in range(step.n_groups):
        first = share_start(group, step.n_groups, step.begin, step.end)
        n_rows = share_start(group + 1, step.n_groups, step.begin, step.end) - first
        d = scratch.tile_rows * layer.d + panel * n_rows * lanes
        memory = row_of(memories, scratch.n_places, group)
        d_z = Panels(d, lanes, n_rows * lanes)
        if samples.row_starts_size:
            call(kernels.sparse_product_backward, (
                row_of(own_bytes_at(scratch.values, scratch.values_size), scratch.n_places, group),
                row_of(own_bytes_at(scratch.rows, scratch.rows_size), scratch.n_places, group),
                row_of(own_wholes_at(scratch.starts, scratch.starts_size), scratch.n_places, group), n_features,
                memory, d, n_rows, n_panels, gradient, weight, group > 0,
            ))  # fmt: skip
        else:
            batch, out = copied_batch(scratch, step.number, gradient), Panels(weight, lanes, n_features * lanes)
            x = Left((first - step.begin) * n_features, 1, n_features, n_rows, 0, 1)
            call(
                kernels.multiply,
                (batch, x, memory, d_z, gradient, out, n_features, n_panels, 1.0, gradient, out, group > 0),
            )
        call(kernels.panel_sums, (memory, d_z, n_rows, n_panels, gradient, bias, group > 0))


@inlined
def update_panels(network, kernels, samples, optimizer, state, step, gradient, panel, n_panels):
    """Update what :func:`add_gradients` has gradients of; returns the sum of squared weights."""
    layer, lanes = layers_at(network.layers, network.layers_size)[0], network.lanes
    size = n_panels * samples.n_features * lanes
    n_chunks, squares = count_chunks(size), 0.0
    for part in range(n_chunks + (layer.bias < network.n_parameters)):
        if part < n_chunks:
            begin = layer.weight + panel * samples.n_features * lanes + part * CHUNK
            part_size = min(CHUNK, size - part * CHUNK)
        else:
            begin, part_size = layer.bias + panel * lanes, n_panels * lanes
        part_gradient = part_of(gradient, begin, part_size)
        squares += update_part(network, kernels, optimizer, state, step, begin, part_gradient)
    return squares


@inlined
def multiply_next(network, kernels, samples, scratch, run, number, flat, memories, panel, n_panels, fetches):
    """Some panels of Z of the first layer for the batch of a step, whose packed samples are fetched if so told."""
    layer, lanes, n_features = layers_at(network.layers, network.layers_size)[0], network.lanes, samples.n_features
    begin, end, n_groups = batch_of_step(run, number)
    for turn in range(n_groups):
        # Not everybody begins with the same group, so that its samples are fetched from memory once, and not by all.
        group = (turn + panel * n_groups * lanes // layer.width) % n_groups
        first = share_start(group, n_groups, begin, end)
        n_rows = share_start(group + 1, n_groups, begin, end) - first
        memory, z = row_of(memories, scratch.n_places, group), scratch.tile_rows * layer.h + panel * n_rows * lanes
        weight, bias = layer.weight + panel * n_features * lanes, layer.bias + panel * lanes
        if samples.row_starts_size:
            call(kernels.sparse_product, (
                bytes_at(samples.packed_values, samples.packed_values_size),
                bytes_at(samples.packed_columns, samples.packed_columns_size),
                wholes_at(samples.row_starts, samples.row_starts_size), wholes_at(run.order, run.order_size),
                first, n_rows, n_features, flat, weight, bias, network.input_scale, n_panels, memory, z, fetches,
            ))  # fmt: skip
        else:
            x = Left((first - begin) * n_features, n_features, 1, n_features, 0, 1)
            call(kernels.multiply, (
                copied_batch(scratch, number, flat), x, flat, Panels(weight, lanes, n_features * lanes),
                memory, Panels(z, lanes, n_rows * lanes), n_rows, n_panels,
                network.input_scale, flat, Panels(bias, 0, lanes), True,
            ))  # fmt: skip


@NativeFunction
def panel_share(share, item, training):
    """One worker's items of a round: panels of the first layer, or chunks of other layers' parameters."""
    network, kernels, step = network_at(training.network), kernels_at(training.kernels), step_at(training.step)
    samples, scratch, run = samples_at(training.samples), scratch_at(training.scratch), run_at(training.run)
    optimizer, state, sums = optimizer_at(training.optimizer), state_at(training.state), sums_at(training.sums)
    flat = own_numbers_at(training.like, state.flat, state.flat_size)
    memories = own_numbers_at(flat, scratch.memory, scratch.memory_size)
    gradients = own_numbers_at(flat, sums.gradients, sums.gradients_size)
    others = own_numbers_at(flat, state.gradient, state.gradient_size)
    penalties = own_doubles_at(state.penalties, state.penalties_size)
    width = layers_at(network.layers, network.layers_size)[0].width
    n_panel_items = count_panel_items(width, network.lanes)
    is_first = True
    while item >= 0:
        if item < n_panel_items:
            # If the items are not all of one size, the first is the smallest, as its worker has more of the rest to do.
            end = width // network.lanes - (n_panel_items - 1 - item) * PANELS_OF_ITEM
            panel = max(end - PANELS_OF_ITEM, 0)
            n_panels = end - panel
            if step.number >= 0:
                gradient = row_of(gradients, sums.losses_size, 0)
                add_gradients(network, kernels, samples, scratch, step, memories, gradient, panel, n_panels)
                penalties[item] = update_panels(
                    network, kernels, samples, optimizer, state, step, gradient, panel, n_panels
                )
            if step.number + 1 < run.rates_size:
                multiply_next(
                    network, kernels, samples, scratch, run, step.number + 1, flat, memories, panel, n_panels, is_first
                )
            is_first = False
        elif step.number >= 0:
            begin = network.first_weight_size + (item - n_panel_items) * CHUNK
            gradient = part_of(others, begin, min(CHUNK, end_of_others(network) - begin))
            add_groups(sums, step, begin, gradient)
            penalties[item] = update_part(network, kernels, optimizer, state, step, begin, gradient)
        item = next_item(share, item)
