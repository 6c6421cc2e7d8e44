"""The batches of a run; and where a first layer is divided by panels, copies of their samples, if those are dense.

They are read by all who have some of the panels, and copied while the step before is not done with its own.
"""

# Legend: D features.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.compiling import call, inlined
from fastnet.backends.numba_backend.kernels.views import (
    bytes_at,
    numbers_at,
    own_numbers_at,
    part_of,
    row_of,
    wholes_at,
)

__all__ = ["batch_of_step", "copied_batch", "copy_samples", "count_copies"]

# Samples that are copied together: few, so that whoever waits for others has something to do meanwhile.
_ROWS_OF_COPY = 16


@inlined
def batch_of_step(run, number):
    """Positions [begin, end) of a step of the run, and how many groups they are divided into."""
    begin = number * run.stride
    end = min(begin + run.batch_rows, run.order_size or run.batch_rows)
    return begin, end, run.n_groups if number < run.rates_size - 1 else run.n_groups_last


@inlined
def count_copies(scratch, run, number):
    """Items that the samples of a step are copied in."""
    if not scratch.batches_size or number >= run.rates_size:
        return 0
    begin, end, _ = batch_of_step(run, number)
    return -(-(end - begin) // _ROWS_OF_COPY)


@inlined
def copied_batch(scratch, number, like):
    """The samples of a step, one (D,) after the other."""
    return row_of(own_numbers_at(like, scratch.batches, scratch.batches_size), 2, number % 2)


@inlined
def copy_samples(kernels, samples, scratch, run, number, item, like):
    """Copy those of an item."""
    begin, end, _ = batch_of_step(run, number)
    first, n_features = item * _ROWS_OF_COPY, samples.n_features
    n_rows = min(_ROWS_OF_COPY, end - begin - first)
    batch = copied_batch(scratch, number, like)
    call(kernels.load_rows, (
        numbers_at(like, samples.numbers, samples.numbers_size), bytes_at(samples.bytes, samples.bytes_size),
        wholes_at(run.order, run.order_size), begin + first, n_rows, n_features,
        part_of(batch, first * n_features, n_rows * n_features),
    ))  # fmt: skip
