"""The compiled functions that Python calls: all steps of a run, and predictions."""

# Legend: S steps, K workers, G groups of rows, N samples, C outputs.
# A worker is a number of scratch memory and of a share of the work. What is added up belongs to a group or a chunk,
# never to a worker, so their number changes no result.

from __future__ import annotations

import numpy as np
from numba import prange

from fastnet.backends.numba_backend.compiling import entry_point, kernel
from fastnet.backends.numba_backend.gradients import forward, group_gradients, tile_view
from fastnet.backends.numba_backend.heads import output_row
from fastnet.backends.numba_backend.layers import sample_at
from fastnet.backends.numba_backend.updates import update_chunk

__all__ = ["predict_rows", "run_steps"]


@kernel
def mean_scale(network, samples, order, begin, end):
    """What turns the sum of weighted losses into the objective; 1 where all weights are zero, as all losses then are."""
    if not network.is_mean:
        return 1.0
    if not samples.weights.size:
        return 1.0 / (end - begin)
    total = 0.0
    for position in range(begin, end):
        total += samples.weights[sample_at(order, position)]
    return 1.0 / total if total != 0.0 else 1.0


@kernel
def gradient_share(worker, n_workers, network, samples, order, begin, end, scale, flat, scratch, sums, n_groups):
    """One worker's groups of the rows at positions [begin, end)."""
    for group in range(worker * n_groups // n_workers, (worker + 1) * n_groups // n_workers):
        first = begin + group * (end - begin) // n_groups
        last = begin + (group + 1) * (end - begin) // n_groups
        sums.losses[group], sums.n_correct[group] = group_gradients(
            network, samples, order, first, last, scale, flat, scratch, worker, sums.gradients[group]
        )


@kernel
def update_share(worker, n_workers, network, optimizer, state, gradients, n_groups, rate, n_updates):
    """One worker's chunks of the parameters."""
    n_chunks = state.penalties.size
    for chunk in range(worker * n_chunks // n_workers, (worker + 1) * n_chunks // n_workers):
        update_chunk(network, optimizer, state, gradients, n_groups, rate, n_updates, chunk)


@entry_point
def run_steps(network, samples, optimizer, state, scratch, sums, steps, n_workers):
    """Make all steps: gradients of the groups, then the update, each shared out among the workers."""
    n_steps, n_positions = steps.rates.size, steps.order.size if steps.order.size else steps.batch_rows
    for step in range(n_steps):
        begin = step * steps.stride
        end = min(begin + steps.batch_rows, n_positions)
        n_groups = steps.n_groups if step < n_steps - 1 else steps.n_groups_last
        rate, n_updates = steps.rates[step], steps.first_update + step
        if step == 0 or steps.stride:
            scale = mean_scale(network, samples, steps.order, begin, end)
        for worker in prange(n_workers):
            gradient_share(
                np.int64(worker), n_workers, network, samples, steps.order, begin, end, scale, state.flat, scratch, sums, n_groups
            )
        for worker in prange(n_workers):
            update_share(np.int64(worker), n_workers, network, optimizer, state, sums.gradients, n_groups, rate, n_updates)

        loss, n_correct, squares = 0.0, 0, 0.0
        for group in range(n_groups):
            loss += sums.losses[group]
            n_correct += sums.n_correct[group]
        for chunk in range(state.penalties.size):
            squares += state.penalties[chunk]
        steps.losses[step] = scale * loss + 0.5 * network.l2 * squares
        steps.n_correct[step] = n_correct


@kernel
def predict_share(worker, n_workers, network, samples, order, flat, scratch, outputs):
    """One worker's tiles of the outputs (N, C)."""
    n_samples, rows = outputs.shape[0], scratch.tile_rows
    n_tiles = -(-n_samples // rows)
    for tile in range(worker * n_tiles // n_workers, (worker + 1) * n_tiles // n_workers):
        begin = tile * rows
        n_rows = min(rows, n_samples - begin)
        forward(network, samples, order, begin, n_rows, flat, scratch, worker)
        logits = tile_view(scratch.z[worker], network, network.sizes.size - 2, rows, n_rows)
        for i in range(n_rows):
            output_row(network.output, logits[i], outputs[begin + i])


@entry_point
def predict_rows(network, samples, order, flat, scratch, outputs, n_workers):
    """Fill `outputs` (N, C) for all samples; `order` is empty."""
    for worker in prange(n_workers):
        predict_share(np.int64(worker), n_workers, network, samples, order, flat, scratch, outputs)
