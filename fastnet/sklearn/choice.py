"""Which backend an estimator trains on when it is left to choose: the one that is likely to be done first.

Compiled kernels must be loaded once in every process, which takes about as long as many a small fit, and compiled once
on every machine. Whether that is worth while cannot be known at the first of many small fits. So work is done by NumPy
until what it has taken comes to what starting would have cost: that is never more than twice as long as the best that
could have been done. All of this is reckoned from the sizes of the work, not from a clock: the same calls in one
process choose the same backends, once a machine has its kernels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise

from fastnet.backends import work as any_work
from fastnet.backends.registry import Choice, choose_backend, seconds_to_start

__all__ = ["Work", "choose", "choose_for_prediction"]

# What NumPy takes, in seconds, measured on two cores of an EPYC with OpenBLAS in float64. Only its ratio to the two
# costs below matters, and that to a factor of two.
_SECONDS_PER_STEP = 1.5e-4
_SECONDS_PER_MULTIPLY_ADD = 1e-10
_SECONDS_PER_UNIT = 1e-8

# What it costs to use compiled kernels in one call.
_CALLING_SECONDS = 1e-3

# What it costs at least, and at most, to start using them in a process. Compiling takes several seconds more, but later
# processes have something of that, too.
_LEAST_SECONDS_TO_START, _MOST_SECONDS_TO_START = 0.1, 1.0

# Fits end when the loss has stopped improving, mostly long before ``max_iter``.
_SHARE_OF_PASSES = 0.25


@dataclass(frozen=True, slots=True)
class Work:
    """How much there is to do in one call.

    Attributes
    ----------
    layer_sizes : tuple of int
    n_samples : int
    batch_size : int
        Samples that pass through the network at once.
    most_passes : int
        Passes over all samples, at most.
    """

    layer_sizes: tuple[int, ...]
    n_samples: int
    batch_size: int
    most_passes: int = 1

    @property
    def numpy_seconds(self) -> float:
        """About how many seconds NumPy would take to train."""
        multiply_adds = sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.layer_sizes))
        per_sample = multiply_adds * _SECONDS_PER_MULTIPLY_ADD + sum(self.layer_sizes[1:]) * _SECONDS_PER_UNIT
        return (self.n_steps * _SECONDS_PER_STEP + self.n_samples * per_sample) * self.n_passes

    @property
    def n_steps(self) -> int:
        """Steps of one pass."""
        return -(-self.n_samples // self.batch_size)

    @property
    def n_passes(self) -> float:
        """Passes that are likely."""
        return max(1.0, self.most_passes * _SHARE_OF_PASSES)


class _Account:
    """What NumPy has taken in this process, in seconds as :class:`Work` reckons, until compiled kernels were used."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.is_closed = False

    def covers(self, seconds: float, seconds_to_start: float) -> bool:
        """Whether NumPy has not yet taken so long, even with `seconds` more, which are then added."""
        if self.is_closed or self.seconds + seconds >= seconds_to_start:
            return False
        self.seconds += seconds
        return True


_account = _Account()


def choose(backend: str, device: str, n_threads: int | None, work: Work) -> Choice:
    """Backend to train on: the one asked for, else NumPy for what is small, else what the registry finds.

    Raises
    ------
    BackendUnavailableError
        A backend or a device that was asked for cannot be used here.
    SpecError
        A name or number has no meaning.
    """
    if _is_asked_for(backend, device):
        return choose_backend(backend, device, n_threads)
    if _is_small(work.numpy_seconds):
        return Choice(choose_backend("numpy", device, n_threads).backend, "too little work for compiled kernels")
    n_steps = round(work.n_steps * work.n_passes)
    return choose_backend(backend, device, n_threads, any_work.Work(work.layer_sizes, work.batch_size, n_steps))


def choose_for_prediction(backend: str, device: str, n_threads: int | None, work: Work) -> Choice | None:
    """Backend to predict on; None where scikit-learn's own code is done as soon."""
    if not _is_asked_for(backend, device) and _is_small(work.numpy_seconds / 3):  # gradients are two more products
        return None
    return choose_backend(backend, device, n_threads, any_work.Work.of_prediction(work.layer_sizes, work.n_samples))


def _is_asked_for(backend: str, device: str) -> bool:
    return backend != "auto" or device.startswith("cuda") or bool(os.environ.get("FASTNET_BACKEND"))


def _is_small(seconds: float) -> bool:
    """Whether NumPy shall do what takes it `seconds`."""
    if seconds < _CALLING_SECONDS or _account.covers(seconds, _LEAST_SECONDS_TO_START):
        return True
    if not _account.is_closed and _account.covers(seconds, min(seconds_to_start(), _MOST_SECONDS_TO_START)):
        return True
    _account.is_closed = True
    return False
