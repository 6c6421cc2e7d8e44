"""Options and fixtures of the benchmarks.

``pytest benchmarks`` runs every row once on a fraction of its data, to see that all of them work and reach one loss;
``pytest benchmarks --benchmark-enable --benchmark-json=RAW.json`` measures, and ``report.py`` makes tables of it.
"""

from __future__ import annotations

import pytest

from fastnet.benchmarking import describe_machine, trials
from fastnet.workloads import SMOKE_SCALE

ABSENT = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser):
    group = parser.getgroup("fastnet")
    group.addoption("--smoke", action="store_true", help="a fraction of the data, as when benchmarking is disabled")
    group.addoption("--without", metavar="ROW", action="append", default=[], help="a row to leave out of all tables")
    group.addoption("--data", metavar="DIR", help="the MNIST files; by default FASTNET_DATA, else data like them")


def pytest_configure(config):
    config.stash[ABSENT] = {}


@pytest.fixture(scope="session")
def smoke(pytestconfig):
    """Whether to find out that everything works, rather than how fast."""
    enabled = pytestconfig.getoption("benchmark_enable") or not pytestconfig.getoption("benchmark_disable")
    return pytestconfig.getoption("smoke") or not enabled


@pytest.fixture(scope="session")
def scale(smoke):
    """Share of each workload's samples and epochs to use."""
    return SMOKE_SCALE if smoke else 1.0


@pytest.fixture(autouse=True)
def no_pauses(smoke, monkeypatch):
    """Nobody waits for others to come to rest where times do not matter."""
    if smoke:
        monkeypatch.setattr(trials, "PAUSE", 0)


@pytest.fixture(scope="session")
def left_out(pytestconfig):
    """Names of rows that nobody wants to see."""
    return pytestconfig.getoption("without")


@pytest.fixture
def absent(pytestconfig):
    """A function that skips one of the drop-in estimators' cases, and has the report say why."""

    def skip(case, reason):
        pytestconfig.stash[ABSENT][case] = str(reason)
        pytest.skip(f"{case}: {reason}")

    return skip


def pytest_benchmark_generate_machine_info(config):
    """Ours instead of pytest-benchmark's, which holds the host's name."""
    return describe_machine()


def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json["absent"] = config.stash[ABSENT]
