"""How many threads the Numba backend uses."""

from __future__ import annotations

import logging

import numba
import pytest

from fastnet.backends.numba_backend import NumbaBackend, threads
from fastnet.backends.numba_backend.threads import resolve_thread_count
from fastnet.testing import make_problem

LIMIT = numba.config.NUMBA_NUM_THREADS


@pytest.fixture(autouse=True)
def _nothing_told_yet():
    threads._log_thread_limit.cache_clear()


def test_all_threads_that_numba_starts_are_used_unless_fewer_are_asked_for(caplog):
    with caplog.at_level(logging.WARNING, "fastnet"):
        assert resolve_thread_count(None) == LIMIT
        assert [resolve_thread_count(n_threads) for n_threads in range(1, LIMIT + 1)] == list(range(1, LIMIT + 1))
    assert not caplog.records


def test_the_number_of_threads_is_bounded_and_the_bound_is_told_once(caplog):
    with caplog.at_level(logging.WARNING, "fastnet"):
        assert [resolve_thread_count(LIMIT + 1), resolve_thread_count(LIMIT + 1)] == [LIMIT, LIMIT]
    assert len(caplog.records) == 1
    assert "NUMBA_NUM_THREADS" in caplog.text
    assert str(LIMIT + 1) in caplog.text


def test_the_bound_is_what_numba_was_started_with(monkeypatch):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    assert resolve_thread_count(None) == 3
    assert resolve_thread_count(5) == 3


def test_plans_have_as_many_workers_as_there_is_work_for(monkeypatch):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    large, small = make_problem((40, 33, 9, 4), 4000), make_problem()
    for n_threads, n_workers in ((1, 1), (2, 2), (3, 3), (9, 3)):
        assert large.plan(NumbaBackend(n_threads=n_threads))._workspace.n_workers == n_workers
    assert small.plan(NumbaBackend())._workspace.n_workers == 1
