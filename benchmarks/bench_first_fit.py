"""Seconds of a whole process that reads a workload and trains it: imports, compiling, and all."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from processes import run_script
from rows import ROWS, find_row

from fastnet.benchmarking import time_alternately
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
    row : str
    cached : str
        `NOTHING`, `KERNELS`, or nothing for who keeps nothing.
    source : Path
        The workload's file.
    folder : Path
        For files of its own, and for caches.
    """

    def __init__(self, row, cached, source, folder):
        self.row, self.cached, self.source, self.folder = row, cached, source, folder
        self.target = folder / "parameters.npy"
        self.caches = {}  # variable -> folder, where it is not the usual one
        self.n_caches = 0

    @property
    def name(self):
        """What the row is called in the table."""
        return f"{self.row}, {self.cached}" if self.cached else self.row

    def warm_up(self):
        """Let it compile what it keeps, unless it is about compiling."""
        self.empty_cache()
        if self.cached == KERNELS:
            self.run()

    def empty_cache(self):
        """What is compiled from here on goes into a new folder."""
        self.n_caches += 1
        cache = self.folder / f"cache-{self.n_caches}"
        self.caches = {variable: str(cache / variable) for variable in CACHES}

    def reset(self):
        """Forget what the last process compiled, if it is about that. Not timed."""
        if self.cached == NOTHING:
            self.empty_cache()

    def run(self):
        """Start the process and wait for its end. Timed."""
        run_script("first_fit.py", self.source, self.row, self.target, **self.caches)


def open_processes(loaded, smoke, left_out, folder):
    """The processes of all rows that can take part, and the others with the reason."""
    source = folder / "workload.pickle"
    source.write_bytes(pickle.dumps(loaded))
    processes, absent = [], {}
    for number, (row, cached) in enumerate(CASES):
        if row in left_out or (smoke and cached == NOTHING):  # compiling anew is for measuring
            continue
        own_folder = folder / str(number)
        own_folder.mkdir()
        process = Process(row, cached, source, own_folder)
        try:
            find_row(row)(loaded).close()
            processes.append(process)
        except AbsentError as reason:
            absent[process.name] = str(reason)
    return processes, absent


def test_first_fit(benchmark, smoke, scale, left_out, pytestconfig, tmp_path):
    loaded = load(WORKLOAD, pytestconfig.getoption("data"), scale)
    processes, absent = open_processes(loaded, smoke, left_out, tmp_path)
    if not smoke:
        for process in processes:
            process.warm_up()
    benchmark.group = GROUP
    times = benchmark.pedantic(time_alternately, args=(processes, 1 if smoke else ROUNDS))
    losses = [loaded.loss(Parameters(loaded.start.layout, np.load(process.target))) for process in processes]
    benchmark.extra_info.update(
        title=f"{loaded.workload.title}: the first fit in a fresh process",
        data_source=loaded.data_source,
        n_samples=loaded.dataset.n_samples,
        n_steps=loaded.n_steps,
        rows=[
            {"row": process.name, "seconds": seconds, "loss": loss}
            for process, seconds, loss in zip(processes, times, losses, strict=True)
        ],
        absent=absent,
    )
    for process, loss in zip(processes, losses, strict=True):
        assert loaded.agrees(loss), f"{process.name}: a loss of {loss:.8g}, not {loaded.expected_loss:.8g}"
