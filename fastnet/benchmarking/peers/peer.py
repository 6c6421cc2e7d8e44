"""What the peers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload

__all__ = ["AbsentError", "Peer", "limited_blas", "n_blas_threads"]


class AbsentError(Exception):
    """Someone has nothing to show for a workload on this machine; the message says why."""


class Peer(ABC):
    """A `fastnet.benchmarking.Trial` of another library.

    Peers get X as floats, scaled, and targets in their own form before the clock starts, and compute only what an
    update needs: the loss of each step, which fastnet reports, is theirs to skip.

    Parameters
    ----------
    loaded : LoadedWorkload
    """

    device = "cpu"
    dtype = "float32"
    n_threads: int
    detail: str

    def __init__(self, loaded: LoadedWorkload) -> None:
        self.loaded = loaded
        self.network = loaded.spec.network
        self.batch_size = loaded.spec.batch_size

    @abstractmethod
    def reset(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.reset`."""

    @abstractmethod
    def run(self) -> None:
        """See :meth:`fastnet.benchmarking.Trial.run`."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """See :meth:`fastnet.benchmarking.Trial.parameters`."""

    def close(self) -> None:  # noqa: B027, there is a default
        """Nothing is held that the garbage collector would not find."""


def n_blas_threads(n_threads: int | None) -> int:
    """Threads that the BLAS takes under :func:`limited_blas`."""
    from threadpoolctl import threadpool_info

    return n_threads or max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


def limited_blas(n_threads: int | None) -> AbstractContextManager[Any]:
    """Limits BLAS threads where a number was asked for."""
    if n_threads is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(n_threads, user_api="blas")
    return limits
