"""Every backend that can run here against the conformance kit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastnet.testing import conformance_checks

CHECKS = conformance_checks()


@pytest.mark.parametrize("name", CHECKS)
def test_backend_conforms(backend, name):
    CHECKS[name](backend)


THREADS_SCRIPT = """
import hashlib
import numpy as np
from fastnet import Adam
from fastnet.backends.registry import create_backend
from fastnet.testing import make_problem

def bits(n_threads, **options):
    problem = make_problem((40, 33, 9, 4), 700, optimizer=Adam(), **options)
    plan = problem.plan(create_backend("numba", "cpu", n_threads))
    order = np.random.default_rng(0).permutation(700) if options.get("batch_size") else None
    n_steps = 7 if order is not None else 3
    losses = plan.run(np.full(n_steps, 0.01), order).loss
    loss, gradients = plan.loss_and_gradients()
    parts = (losses, np.float64(loss), gradients.flat, plan.read_parameters().flat)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

forms = {"storage": "csr"}, {"storage": "uint8", "dtype": "float64"}, {"storage": "pixels"}
for options in ({}, {"batch_size": 100}, *forms):
    digests = {n_threads: bits(n_threads, **options) for n_threads in (1, 2, 4, 1)}
    assert len(set(digests.values())) == 1, (options, digests)
print("same bits")
"""


def test_numba_gives_the_same_bits_on_1_2_and_4_threads():
    result = subprocess.run([sys.executable, "-c", THREADS_SCRIPT], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "same bits", result.stderr
