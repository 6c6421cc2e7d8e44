"""Milliseconds per step: one group per workload, fastnet's backends and the peers as rows."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import pytest
from rows import ROWS, find_row

from fastnet.benchmarking import time_first_call
from fastnet.benchmarking.peers import AbsentError
from fastnet.workloads import WORKLOADS, load

ROUNDS = 5

pytestmark = pytest.mark.filterwarnings("default")  # the peers' warnings are not ours to mend


@pytest.fixture(scope="module", params=WORKLOADS)
def loaded(request, scale):
    """Each workload, read once for all its rows."""
    return load(request.param, request.config.getoption("data"), scale)


@pytest.mark.parametrize("row", ROWS)
def test_training(benchmark, loaded, row, absent):
    workload = loaded.workload
    try:
        open_trial = find_row(row)
        trial, first_call_seconds = time_first_call(partial(open_trial, loaded))
    except AbsentError as reason:
        absent(workload.name, row, reason)
    with closing(trial):
        benchmark.group = workload.name
        benchmark.pedantic(trial.run, setup=trial.reset, rounds=ROUNDS)
        loss = loaded.loss(trial.parameters())
        benchmark.extra_info.update(
            row=row,
            title=workload.title,
            data_source=loaded.data_source,
            n_samples=loaded.dataset.n_samples,
            n_steps=loaded.n_steps,
            device=trial.device,
            dtype=trial.dtype,
            n_threads=trial.n_threads,
            loss=loss,
            first_call_seconds=first_call_seconds,
        )
    assert loaded.agrees(loss), f"{row} reached a loss of {loss:.8g}, NumPy in float64 {loaded.expected_loss:.8g}"
