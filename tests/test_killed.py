"""A fit that is killed, again and again and at any moment, and resumed each time, ends with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from fastnet import Network

# One process that loads everything once, and forks a child for each attempt at the fit.
ATTEMPTS = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import safetensors.numpy, sklearn.model_selection, sklearn.utils
from fastnet import Adam, Checkpoint, EarlyStopping, Network

def fit(checkpoint):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(120, 8)).astype(np.float32), random.integers(0, 3, 120)
    net = Network([8, 40, 3], backend="numpy", seed=0)
    net.fit(x, y, optimizer=Adam(0.01), n_epochs=200, batch_size=32, validation_fraction=0.2,
            callbacks=[EarlyStopping(patience=1000), Checkpoint(checkpoint, every_seconds=0)],
            resume_from=checkpoint if checkpoint.exists() else None)
    net.save(checkpoint.with_suffix(".net"))

def die_in_write(number):
    fsync, written = os.fsync, []
    def fsync_or_die(descriptor):
        written.append(descriptor)
        if len(written) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)
    os.fsync = fsync_or_die

def attempt(checkpoint, kill_after=None, kill_in_write=None):
    child = os.fork()
    if not child:
        if kill_in_write:
            die_in_write(kill_in_write)
        fit(checkpoint)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

directory, moments = Path(sys.argv[1]), random.Random(0)
start = time.perf_counter()
assert attempt(directory / "undisturbed") == 0
seconds = time.perf_counter() - start
exits = [attempt(directory / "killed", kill_in_write=number) for number in (1, 2, 30)]
while exits[-1] and len(exits) < 50:
    exits.append(attempt(directory / "killed", kill_after=moments.uniform(0, seconds / 8)))
assert attempt(directory / "killed") == 0
print(exits.count(-signal.SIGKILL))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made in another way there")
def test_a_fit_killed_at_any_moment_resumes_to_the_same_bits(tmp_path):
    command = [sys.executable, "-c", ATTEMPTS, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # forks want one thread
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 6, "three in a write, and as many elsewhere"
    expected, resumed = (Network.load(tmp_path / f"{name}.net") for name in ("undisturbed", "killed"))
    for ours, theirs in zip(resumed.weights + resumed.biases, expected.weights + expected.biases, strict=True):
        np.testing.assert_array_equal(ours, theirs)
