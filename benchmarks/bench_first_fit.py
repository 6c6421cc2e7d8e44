"""Seconds of a whole process that reads a workload and trains it: imports, compiling, and all."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from processes import run_script
from rows import ROWS, find_row

from fastnet.benchmarking.peers import AbsentError
from fastnet.parameters import Parameters
from fastnet.workloads import load

ROUNDS = 3
WORKLOAD = "mnist-16"
GROUP = "first-fit"

# Those that keep what they compiled on disk, and the variables that say where.
KEEPERS = ("fastnet numba", "fastnet cupy", "PyTorch compiled")
CACHES = ("NUMBA_CACHE_DIR", "CUPY_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")

NOTHING, KERNELS = "nothing cached", "kernels cached"
OMITTED = ("NumPy script, float32",)  # differs from the float64 row in nothing that a process does once
CASES = [
    (row, cached) for row in ROWS if row not in OMITTED for cached in ((NOTHING, KERNELS) if row in KEEPERS else ("",))
]

pytestmark = pytest.mark.filterwarnings("default")  # the peers' warnings are not ours to mend


class Process:
    """A row's fit in a new process, as often as it is run.

    Parameters
    ----------
    loaded : LoadedWorkload
    row : str
    directory : Path
        For its files, and for caches.
    """

    def __init__(self, loaded, row, directory):
        self.source, self.target = directory / "workload.pickle", directory / "parameters.npy"
        self.source.write_bytes(pickle.dumps(loaded))
        self.row, self.directory, self.layout = row, directory, loaded.start.layout
        self.caches = {}  # variable -> directory, where it is not the usual one
        self.n_caches = 0

    def empty_cache(self):
        """What is compiled from here on goes into a new directory."""
        self.n_caches += 1
        cache = self.directory / f"cache-{self.n_caches}"
        self.caches = {variable: str(cache / variable) for variable in CACHES}

    def run(self):
        """Start the process and wait for its end."""
        run_script("first_fit.py", self.source, self.row, self.target, **self.caches)

    def parameters(self):
        """The parameters that the latest process reached."""
        return Parameters(self.layout, np.load(self.target))


@pytest.fixture(scope="module")
def loaded(pytestconfig, scale):
    return load(WORKLOAD, pytestconfig.getoption("data"), scale)


@pytest.mark.parametrize(("row", "cached"), CASES)
def test_first_fit(benchmark, loaded, row, cached, smoke, absent, tmp_path):
    name = f"{row}, {cached}" if cached else row
    if smoke and cached == NOTHING:
        pytest.skip("compiling anew is for measuring")
    try:
        find_row(row)(loaded).close()
    except AbsentError as reason:
        absent(GROUP, name, reason)
    process = Process(loaded, row, tmp_path)
    if not smoke:
        process.empty_cache()
        if cached == KERNELS:
            process.run()
    benchmark.group = GROUP
    setup = process.empty_cache if cached == NOTHING else None
    benchmark.pedantic(process.run, setup=setup, rounds=ROUNDS)
    loss = loaded.loss(process.parameters())
    benchmark.extra_info.update(
        row=name,
        title=f"{loaded.workload.title}: the first fit in a fresh process",
        data_source=loaded.data_source,
        n_samples=loaded.dataset.n_samples,
        n_steps=loaded.n_steps,
        loss=loss,
    )
    assert loaded.agrees(loss), f"{name} reached a loss of {loss:.8g}, NumPy in float64 {loaded.expected_loss:.8g}"
