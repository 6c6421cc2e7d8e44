"""Which backend an estimator trains on when it is left to choose: the one that is likely to be done first.

Compiled kernels must be loaded once in every process, which takes about as long as many a small fit. Whether that is
worth while cannot be known at the first of many small fits. So work is done by NumPy until what it has taken comes to
what loading would have cost: that is never more than twice as long as the best that could have been done. All of this
is reckoned from the sizes of the work, not from a clock: the same calls in one process choose the same backends.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import pairwise

from fastnet.backends import work as any_work
from fastnet.backends.registry import Choice, choose_backend

__all__ = ["Work", "choose", "choose_for_prediction"]

# What NumPy takes, in seconds, measured on two cores of an EPYC with OpenBLAS in float64. Only its ratio to the two
# costs below matters, and that to a factor of two.
_SECONDS_PER_STEP = 1.5e-4
_SECONDS_PER_MULTIPLY_ADD = 1e-10
_SECONDS_PER_UNIT = 1e-8

# What it costs to use compiled kernels at all: once in a process, and then once in every call.
_LOADING_SECONDS = 1.0
_CALLING_SECONDS = 1e-3

# Fits end when the loss has stopped to improve, mostly long before ``max_iter``.
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
    """What NumPy has taken in this process, in seconds as :class:`Work` reckons."""

    def __init__(self) -> None:
        self.seconds = 0.0


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
    """Whether NumPy shall do what takes it `seconds`, which are then added to the account."""
    if "fastnet.backends.numba_backend.plan" in sys.modules:
        return seconds < _CALLING_SECONDS
    if _account.seconds + seconds >= _LOADING_SECONDS:
        return False
    _account.seconds += seconds
    return True
