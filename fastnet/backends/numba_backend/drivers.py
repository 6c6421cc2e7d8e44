"""The compiled functions that Python calls: all steps of a run, and predictions."""

# Legend: N samples, C outputs.
# A worker is a share of the work and a row of scratch memory. What is added up belongs to a group or to a chunk of
# parameters, never to a worker, so their number changes no result. One worker alone enters no parallel region, which
# can take longer than a small step; it calls the same machine code.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import prange

from fastnet.backends.numba_backend.compiling import NativeFunction, driver, inlined
from fastnet.backends.numba_backend.gradients import forward, tile_view
from fastnet.backends.numba_backend.heads import outputs_of
from fastnet.backends.numba_backend.records import Step
from fastnet.backends.numba_backend.sparse import sample_at

__all__ = ["predict_all", "predict_share", "run_steps"]


@inlined
def mean_scale(network, samples, order, begin, end):
    """What turns the sum of weighted losses into the objective; 1 where all weights, and so all losses, are zero."""
    if not network.is_mean:
        return 1.0
    if not samples.weights.size:
        return 1.0 / (end - begin)
    total = 0.0
    for position in range(begin, end):
        total += samples.weights[sample_at(order, position)]
    return 1.0 / total if total != 0.0 else 1.0


@driver
def run_steps(gradient_share, update_share, network, samples, optimizer, state, scratch, sums, run, n_workers):
    """Make all steps of a run: the gradients of groups of rows, then the updates of chunks of parameters."""
    n_positions = run.order.size or run.batch_rows
    for i in range(run.rates.size):
        begin = i * run.stride
        end = min(begin + run.batch_rows, n_positions)
        n_groups = run.n_groups if i < run.rates.size - 1 else run.n_groups_last
        if i == 0 or run.stride:
            scale = mean_scale(network, samples, run.order, begin, end)
        step = Step(begin, end, n_groups, scale, run.rates[i], run.first_update + i)

        if n_workers == 1:
            gradient_share(0, 1, step, network, samples, run.order, state.flat, scratch, sums)
            update_share(0, 1, step, network, optimizer, state, sums.gradients)
        else:
            for k in prange(n_workers):
                gradient_share(np.int64(k), n_workers, step, network, samples, run.order, state.flat, scratch, sums)
            for k in prange(n_workers):
                update_share(np.int64(k), n_workers, step, network, optimizer, state, sums.gradients)

        loss, n_correct, squares = 0.0, 0, 0.0
        for group in range(n_groups):
            loss += sums.losses[group]
            n_correct += sums.n_correct[group]
        for chunk in range(state.penalties.size):
            squares += state.penalties[chunk]
        run.losses[i] = scale * loss + 0.5 * network.l2 * squares
        run.n_correct[i] = n_correct


@NativeFunction
def predict_share(worker, n_workers, network, samples, order, flat, scratch, outputs):
    """One worker's tiles of the outputs (N, C) of all samples; `order` is empty."""
    n_samples, tile_rows, memory = outputs.shape[0], scratch.tile_rows, scratch.memory[worker]
    last, n_tiles = network.layers[-1], -(-n_samples // tile_rows)
    for tile in range(worker * n_tiles // n_workers, (worker + 1) * n_tiles // n_workers):
        begin = tile * tile_rows
        n_rows = min(tile_rows, n_samples - begin)
        forward(network, samples, order, begin, flat, memory, tile_rows, n_rows)
        logits = tile_view(memory, last.z, last.fan_out, tile_rows, n_rows)
        outputs_of(network.output, logits, outputs[begin : begin + n_rows])


@driver
def predict_all(predict_share, network, samples, order, flat, scratch, outputs, n_workers):
    """Fill `outputs` (N, C)."""
    if n_workers == 1:
        predict_share(0, 1, network, samples, order, flat, scratch, outputs)
    else:
        for k in prange(n_workers):
            predict_share(np.int64(k), n_workers, network, samples, order, flat, scratch, outputs)
