"""Rounds of items that workers share, with items that do next to nothing, so that what is between them counts."""

from __future__ import annotations

import time

import numpy as np
import pytest
from test_numba_team import run_check

from fastnet.backends.numba_backend import team
from fastnet.backends.numba_backend.kernels.atomics import load
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction
from fastnet.backends.numba_backend.kernels.sharing import Share, next_item, share_out
from fastnet.backends.numba_backend.kernels.views import own_wholes_at
from fastnet.backends.numba_backend.team import run_team


@NativeFunction
def write_round(share, item, record):
    """Each item writes the number of the round to its place, after it has seen that of the round before in all.

    Helpers take their time, so that the others have to wait for them.
    """
    memory = own_wholes_at(record, 64)
    while item >= 0:
        for _ in range(2000 if share.worker else 100):
            load(record)
        for other in range(4, 4 + share.n_items):
            memory[2] += memory[other] not in (memory[3] - 1, memory[3])
        memory[4 + item] += 1
        item = next_item(share, item)


@NativeFunction
def write_rounds(board, n_workers, record):
    """Rounds of so many items each; every item of a round is done once, and before any of the next."""
    memory = own_wholes_at(record, 64)
    for number in range(memory[0]):
        memory[3] = number + 1
        share_out(board, n_workers, memory[63], memory[1], record)


def run_rounds(n_workers, n_rounds, n_items):
    """Memory that the rounds have used."""
    memory = np.zeros(64, np.int64)
    memory[:2], memory[63] = (n_rounds, n_items), write_round.compile(Share(0, 0, 0, 0, 0), 0, 0).address
    run_team(n_workers, write_rounds.compile(0, 0, 0).address, memory.ctypes.data)
    assert memory[2] == 0
    assert memory[4 : 4 + n_items].tolist() == [n_rounds] * n_items
    return memory


def check_that_every_item_of_a_round_is_done_once_and_before_the_next_round():
    for n_workers in (1, 2, 5):
        for n_rounds, n_items in ((3000, 1), (3000, 2), (3000, 7), (300, 50), (10, 0), (0, 5)):
            run_rounds(n_workers, n_rounds, n_items)


def check_that_nothing_is_touched_after_the_last_round():
    """Teams of many sizes one after the other, some of whose helpers come too late."""
    random = np.random.default_rng(0)
    used = [run_rounds(*random.integers((1, 0, 0), (7, 20, 40))) for _ in range(3000)]
    as_left = [memory.copy() for memory in used]
    time.sleep(0.1)
    np.testing.assert_array_equal(used, as_left)
    assert len(team._teams) <= 6


@pytest.mark.parametrize(
    "check",
    [
        check_that_every_item_of_a_round_is_done_once_and_before_the_next_round,
        check_that_nothing_is_touched_after_the_last_round,
    ],
    ids=lambda check: check.__name__.removeprefix("check_that_"),
)
def test_sharing(check):
    run_check(check)
