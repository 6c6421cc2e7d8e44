"""Those who train a workload, and how they are timed. Times are in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fastnet.backends.interface import Backend
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload

__all__ = ["BackendTrial", "OpenTrial", "Repeatable", "Trial", "time_alternately", "time_first_call"]

# Seconds between two trials. The threads of OpenBLAS, which NumPy and so scikit-learn have, look for more to do for a
# tenth of a second after the last product, and take the processor from others meanwhile.
PAUSE = 0.25


class Repeatable(Protocol):
    """Work that can be timed again and again."""

    def reset(self) -> None:
        """Go back to the start. Not timed."""
        ...

    def run(self) -> None:
        """Do it, to the end. Timed."""
        ...


class Trial(Repeatable, Protocol):
    """Someone who trains a workload: a backend, or a peer.

    Attributes
    ----------
    device, dtype : str
        Where and in which precision it computes.
    n_threads : int
        CPU threads it may use.
    detail : str
        One line of English on how it computes.
    """

    device: str
    dtype: str
    n_threads: int
    detail: str

    def reset(self) -> None:
        """Go back to the initial weights. Not timed."""
        ...

    def run(self) -> None:
        """Train for the workload's epochs, to the end. Timed."""
        ...

    def parameters(self) -> Parameters:
        """The parameters reached."""
        ...

    def close(self) -> None:
        """Release memory."""
        ...


class BackendTrial:
    """One of fastnet's backends as a `Trial`; what it times is the plan alone, not validation or callbacks.

    Parameters
    ----------
    loaded : LoadedWorkload
    backend : Backend
    n_threads : int
        CPU threads that `backend` was made with.

    Raises
    ------
    UnsupportedSpecError
        The backend cannot train this workload.
    """

    def __init__(self, loaded: LoadedWorkload, backend: Backend, n_threads: int) -> None:
        backend.check_support(loaded.spec)
        self.device = next(iter(backend.availability().devices), "cpu")
        self.dtype = loaded.spec.network.dtype
        self.n_threads = n_threads
        self._loaded = loaded
        self._plan = backend.plan_training(loaded.spec, loaded.start, loaded.dataset)
        self.detail = self._plan.detail
        self._start_state = self._plan.read_state()

    def reset(self) -> None:
        """See :meth:`Trial.reset`."""
        self._plan.write_parameters(self._loaded.start)
        self._plan.write_state(self._start_state)
        self._plan.synchronize()  # copies to a device may be under way yet

    def run(self) -> None:
        """See :meth:`Trial.run`."""
        self._loaded.train(self._plan)

    def parameters(self) -> Parameters:
        """See :meth:`Trial.parameters`."""
        return self._plan.read_parameters()

    def close(self) -> None:
        """See :meth:`Trial.close`."""
        self._plan.close()


# Binds someone to a workload. Importing what they need is another matter, and another time.
OpenTrial = Callable[[LoadedWorkload], Trial]


def time_first_call(make: Callable[[], Trial]) -> tuple[Trial, float]:
    """A new trial that has run once, and the seconds that both took together."""
    start = time.perf_counter()
    trial = make()
    trial.run()
    return trial, time.perf_counter() - start


def time_alternately(
    trials: Sequence[Repeatable], rounds: int, *, at_least: float = 0.0, warms_up: bool = False
) -> list[tuple[float, ...]]:
    """Seconds of each run of each trial, as many of one as of another; everyone runs once before anyone runs again.

    Between their turns is a pause, so that nobody is measured while the threads of the one before still spin.

    Parameters
    ----------
    trials : sequence of Repeatable
    rounds : int
        How often each trial runs, unless `at_least` makes it more.
    at_least : float
        Seconds for which rounds go on: the median of a few short ones says little on a machine that has good seconds
        and bad ones.
    warms_up : bool
        Whether each run comes right after another of the same trial that is not timed. Else short runs suffer most
        from what those before them have left, such as caches full of other data.
    """
    seconds: list[list[float]] = [[] for _ in trials]
    n_rounds, begin = 0, time.perf_counter()
    while n_rounds < rounds or time.perf_counter() - begin < at_least:
        n_rounds += 1
        for trial, times in zip(trials, seconds, strict=True):
            if len(trials) > 1:
                time.sleep(PAUSE)
            if warms_up:
                trial.reset()
                trial.run()
            trial.reset()
            start = time.perf_counter()
            trial.run()
            times.append(time.perf_counter() - start)
    return [tuple(times) for times in seconds]
