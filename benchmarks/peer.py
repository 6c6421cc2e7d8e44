"""What the peers have in common."""

from __future__ import annotations

from fastnet.workloads import LoadedWorkload


class AbsentError(Exception):
    """A row has nothing to show for a workload on this machine; the message says why."""


class Peer:
    """A `fastnet.benchmarking.Trial` of another library; subclasses add `reset`, `run` and `parameters`.

    Peers get X as floats, scaled, and targets in their own form before the clock starts, and compute only what an
    update needs: the loss of each step, which fastnet reports, is theirs to skip.
    """

    device = "cpu"
    dtype = "float32"
    n_threads: int

    def __init__(self, loaded: LoadedWorkload) -> None:
        self.loaded = loaded
        self.network = loaded.spec.network
        self.batch_size = loaded.spec.batch_size

    def close(self) -> None:
        """Nothing is held that the garbage collector would not find."""
