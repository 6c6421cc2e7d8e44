"""Milliseconds per step: one group per workload, fastnet's backends and the peers as rows, measured in turns.

pytest-benchmark's own figures are of whole comparisons; those of each row are in ``extra_info``.
"""

from __future__ import annotations

import pytest
from rows import OURS, find_row

from fastnet.backends.registry import backend_names
from fastnet.benchmarking import compare
from fastnet.benchmarking.peers import PEERS, AbsentError
from fastnet.workloads import WORKLOADS

# Rows have so many rounds, and more where these are short.
ROUNDS, SECONDS = 5, 90

pytestmark = pytest.mark.filterwarnings("default")  # the peers' warnings are not ours to mend


@pytest.fixture(scope="module")
def backends(left_out):
    """Names of the backends that can run here, and rows of the others with the reason."""
    able, absent = [], {}
    for name in backend_names():
        if OURS + name in left_out:
            continue
        try:
            find_row(OURS + name)
            able.append(name)
        except AbsentError as reason:
            absent[OURS + name] = str(reason)
    return able, absent


@pytest.mark.parametrize("workload", WORKLOADS)
def test_training(benchmark, workload, backends, left_out, scale, smoke, pytestconfig):
    able, absent = backends
    peers = [peer for peer in PEERS if peer not in left_out]
    rounds, seconds = (1, 0) if smoke else (ROUNDS, SECONDS)
    options = {"data": pytestconfig.getoption("data"), "scale": scale, "rounds": rounds, "at_least": seconds}
    benchmark.group = workload
    comparison = benchmark.pedantic(compare, args=(workload, able, peers), kwargs=options)
    anyone = comparison.measurements[0]
    benchmark.extra_info.update(
        title=WORKLOADS[workload].title,
        data_source=anyone.data_source,
        n_samples=anyone.n_samples,
        n_steps=anyone.n_steps,
        rows=[describe(each) for each in comparison.measurements],
        absent=absent | comparison.absent,
    )
    astray = [f"{each.backend} one of {each.loss:.8g}" for each in comparison.measurements if not each.agrees]
    assert not astray, f"NumPy in float64 reached a loss of {anyone.expected_loss:.8g}, {', '.join(astray)}"


def describe(measurement):
    """What the report needs of a row."""
    is_ours = measurement.backend in backend_names()
    figures = ("seconds", "first_call_seconds", "loss", "device", "dtype", "n_threads")
    row = OURS + measurement.backend if is_ours else measurement.backend
    return {"row": row} | {name: getattr(measurement, name) for name in figures}
