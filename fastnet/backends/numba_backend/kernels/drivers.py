"""What Python calls, by way of ``team.py``: all steps of a run, and predictions."""

# Legend: N samples, C outputs, S samples of a tile in whole vectors.
# What is added up belongs to a group of rows or to a chunk of parameters, never to a worker: neither their number nor
# who does what changes a result.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.batches import batch_of_step, count_copies
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, inlined
from fastnet.backends.numba_backend.kernels.panels import count_panel_parts
from fastnet.backends.numba_backend.kernels.partition import count_chunks, whole_vectors
from fastnet.backends.numba_backend.kernels.sharing import next_item, share_out
from fastnet.backends.numba_backend.kernels.sparse import sample_at
from fastnet.backends.numba_backend.kernels.updates import step_l2
from fastnet.backends.numba_backend.kernels.views import (
    address_of,
    doubles_at,
    kernels_at,
    matrix_of,
    network_at,
    numbers_at,
    own_doubles_at,
    own_numbers_at,
    row_of,
    run_at,
    samples_at,
    scratch_at,
    state_at,
    step_at,
    sums_at,
    wholes_at,
)

__all__ = ["predict", "predict_share", "run_steps"]

# Items for each worker that an update is cut into: the more, the less the workers wait for each other at the end, and
# the more often they have to look for another one.
UPDATE_ITEMS = 4


@inlined
def mean_scale(training, network, order, begin, end):
    """What turns the sum of weighted losses into the objective; 1 where all weights, and so all losses, are zero."""
    samples = samples_at(training.samples)
    if not network.is_mean:
        return 1.0
    if not samples.weights_size:
        return 1.0 / (end - begin)
    total, weights = 0.0, numbers_at(training.like, samples.weights, samples.weights_size)
    for position in range(begin, end):
        total += weights[sample_at(order, position)]
    return 1.0 / total if total != 0.0 else 1.0


@inlined
def note_losses(sums, step, figures, i):
    """Put the loss of a step, without its penalty, and its right predictions where the run collects them."""
    group_losses = doubles_at(sums.losses, sums.losses_size)
    group_corrects = wholes_at(sums.n_correct, sums.n_correct_size)
    loss, n_correct = 0.0, 0
    for group in range(step.n_groups):
        loss += group_losses[group]
        n_correct += group_corrects[group]
    figures[0, i], figures[2, i] = step.scale * loss, n_correct


@inlined
def note_penalty(network, state, step, n_parts, figures, i):
    """The same for the penalty, of which there are so many parts."""
    penalties, squares = doubles_at(state.penalties, state.penalties_size), 0.0
    for part in range(n_parts):
        squares += penalties[part]
    figures[1, i] = 0.5 * step_l2(network, step) * squares
    figures[0, i] += figures[1, i]


@NativeFunction
def run_steps(board, n_workers, training):
    """All steps of a run: gradients of groups of rows, then updates of parts of the parameters.

    Where the first layer is divided by panels, what belongs to them is done along with their updates, the first product
    of the next step included. That of the first step comes before all others.
    """
    network, kernels, state = network_at(training.network), kernels_at(training.kernels), state_at(training.state)
    sums, run, step, record = sums_at(training.sums), run_at(training.run), step_at(training.step), address_of(training)
    scratch = scratch_at(training.scratch)
    order, rates = wholes_at(run.order, run.order_size), doubles_at(run.rates, run.rates_size)
    figures = matrix_of(own_doubles_at(run.figures, run.figures_size), 0, 3, rates.size)
    if scratch.by_panels:
        update_share, n_parts = kernels.panel_share, count_panel_parts(network)
        n_items, step.number, step.n_groups = n_parts, -1, 0
        share_out(board, n_workers, kernels.gradient_share, count_copies(scratch, run, 0), record)
        share_out(board, n_workers, update_share, n_items, record)
    else:
        update_share, n_parts = kernels.update_share, count_chunks(network.n_parameters)
        n_items = min(n_parts, UPDATE_ITEMS * n_workers)
    for i in range(rates.size):
        step.number, step.rate, step.n_updates = i, rates[i], run.first_update + i
        step.begin, step.end, step.n_groups = batch_of_step(run, i)
        if i == 0 or run.stride:
            step.scale = mean_scale(training, network, order, step.begin, step.end)
        n_row_items = step.n_groups + count_copies(scratch, run, i + 1)
        share_out(board, n_workers, kernels.gradient_share, n_row_items, record)
        note_losses(sums, step, figures, i)
        # What is one item is done before a helper could have begun with it.
        share_out(board if n_items > 1 else 0, n_workers, update_share, n_items, record)
        if network.l2 > 0.0:
            note_penalty(network, state, step, n_parts, figures, i)


@NativeFunction
def predict(board, n_workers, prediction):
    """The outputs (N, C) of all samples, tile by tile."""
    network, kernels = network_at(prediction.network), kernels_at(prediction.kernels)
    tile_rows = scratch_at(prediction.scratch).tile_rows
    n_tiles = -(-prediction.outputs_size // (network.n_outputs * tile_rows))
    share_out(board, n_workers, kernels.predict_share, n_tiles, address_of(prediction))


@NativeFunction
def predict_share(share, tile, prediction):
    """One worker's tiles, `tile` first."""
    network, kernels = network_at(prediction.network), kernels_at(prediction.kernels)
    samples, scratch = samples_at(prediction.samples), scratch_at(prediction.scratch)
    flat = own_numbers_at(prediction.like, prediction.flat, prediction.flat_size)
    outputs = own_numbers_at(flat, prediction.outputs, prediction.outputs_size)
    memory = row_of(own_numbers_at(flat, scratch.memory, scratch.memory_size), scratch.n_workers, share.worker)
    order, tile_rows, n_outputs = wholes_at(0, 0), scratch.tile_rows, network.n_outputs
    n_samples = outputs.size // n_outputs
    while tile >= 0:
        begin = tile * tile_rows
        n_rows = min(tile_rows, n_samples - begin)
        size = whole_vectors(n_rows, network.row_multiple)
        call(kernels.forward, (network, kernels, samples, scratch, order, begin, 0, n_rows, flat, memory))
        p = matrix_of(memory, tile_rows * network.outputs, n_outputs, size)
        rows = matrix_of(memory, tile_rows * network.loss_rows, 2, size)
        logits = matrix_of(memory, tile_rows * network.logits, n_outputs, size)
        d = matrix_of(memory, tile_rows * network.d_logits, n_outputs, size)
        call(kernels.output, (logits, p, rows, d))
        for i in range(n_rows):
            for c in range(n_outputs):
                outputs[(begin + i) * n_outputs + c] = p[c, i]
        tile = next_item(share, tile)
