"""The compiled functions that Python calls: all steps of a run, and predictions."""

# Legend: N samples, C outputs, S samples of a tile in whole vectors.
# Every worker runs the same function, with its own number. What is added up belongs to a group or to a chunk of
# parameters, never to a worker, so their number changes no result.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.compiling import call, compiled, inlined
from fastnet.backends.numba_backend.partition import whole_vectors
from fastnet.backends.numba_backend.records import Step
from fastnet.backends.numba_backend.sparse import sample_at
from fastnet.backends.numba_backend.team import wait_for_all
from fastnet.backends.numba_backend.tiles import matrix_view
from fastnet.backends.numba_backend.updates import step_l2
from fastnet.backends.numba_backend.views import numbers_at

__all__ = ["predict_share", "run_steps"]


@inlined
def mean_scale(network, samples, order, begin, end, flat):
    """What turns the sum of weighted losses into the objective; 1 where all weights, and so all losses, are zero."""
    if not network.is_mean:
        return 1.0
    if not samples.weights_size:
        return 1.0 / (end - begin)
    total, weights = 0.0, numbers_at(flat, samples.weights, samples.weights_size)
    for position in range(begin, end):
        total += weights[sample_at(order, position)]
    return 1.0 / total if total != 0.0 else 1.0


@compiled
def run_steps(
    worker, n_workers, meeting, gradient_share, update_share, forward, backward,
    network, kernels, samples, optimizer, state, scratch, sums, run,
):  # fmt: skip
    """One worker's share of all steps of a run: gradients of groups of rows, then updates of chunks of parameters."""
    n_positions = run.order.size or run.batch_rows
    scale = 1.0
    for i in range(run.rates.size):
        begin = i * run.stride
        end = min(begin + run.batch_rows, n_positions)
        n_groups = run.n_groups if i < run.rates.size - 1 else run.n_groups_last
        if i == 0 or run.stride:
            scale = mean_scale(network, samples, run.order, begin, end, state.flat)
        step = Step(begin, end, n_groups, scale, run.rates[i], run.first_update + i)

        gradient_share(
            worker, n_workers, forward, backward, step, network, kernels, samples, run.order, state.flat, scratch, sums
        )
        if not wait_for_all(meeting, n_workers):
            return
        if worker == 0:  # before the groups of the next step are written
            loss, n_correct = 0.0, 0
            for group in range(n_groups):
                loss += sums.losses[group]
                n_correct += sums.n_correct[group]
            run.losses[i], run.n_correct[i] = scale * loss, n_correct
        update_share(worker, n_workers, step, network, optimizer, state, sums.gradients)
        if not wait_for_all(meeting, n_workers):
            return
        if worker == 0 and network.l2 > 0.0:
            squares = 0.0
            for chunk in range(state.penalties.size):
                squares += state.penalties[chunk]
            run.penalties[i] = 0.5 * step_l2(network, step) * squares
            run.losses[i] += run.penalties[i]


@compiled
def predict_share(worker, n_workers, forward, network, kernels, samples, order, flat, scratch, outputs):
    """One worker's tiles of the outputs (N, C) of all samples; `order` is empty."""
    n_samples, n_outputs = outputs.shape
    tile_rows, memory = scratch.tile_rows, scratch.memory[worker]
    n_tiles = -(-n_samples // tile_rows)
    for tile in range(worker * n_tiles // n_workers, (worker + 1) * n_tiles // n_workers):
        begin = tile * tile_rows
        n_rows = min(tile_rows, n_samples - begin)
        size = whole_vectors(n_rows, network.row_multiple)
        forward(network, kernels, samples, order, begin, 0, n_rows, flat, memory, tile_rows)
        p = matrix_view(memory, tile_rows * network.outputs, n_outputs, size)
        rows = matrix_view(memory, tile_rows * network.loss_rows, 2, size)
        call(kernels.output, (matrix_view(memory, tile_rows * network.logits, n_outputs, size), p, rows))
        for i in range(n_rows):
            for c in range(n_outputs):
                outputs[begin + i, c] = p[c, i]
