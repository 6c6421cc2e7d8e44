"""Every exception that fastnet raises on purpose. Each says what was wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral
from typing import Any

__all__ = [
    "BackendUnavailableError",
    "DataError",
    "DeviceMemoryError",
    "DivergenceError",
    "FastnetError",
    "FileFormatError",
    "MissingPackageError",
    "PlanClosedError",
    "SpecError",
    "UnsupportedSpecError",
    "require_count",
    "unknown_name",
]


class FastnetError(Exception):
    """Base of all errors raised by fastnet on purpose; the command line prints them without a traceback."""


class SpecError(FastnetError, ValueError):
    """A network or its training is described in a way that has no meaning (an unknown name, a size below one)."""


class DataError(FastnetError, ValueError):
    """Samples, targets or weights cannot be used: wrong shape, values that are not finite, labels out of range."""


class FileFormatError(FastnetError, ValueError):
    """A file is damaged, truncated, or was not written by fastnet. Nothing of it has been loaded."""


class MissingPackageError(FastnetError, ImportError):
    """A package that fastnet can do without is needed for this; the message says which one, and how to install it."""


class BackendUnavailableError(FastnetError, RuntimeError):
    """The backend or device asked for cannot run on this machine; the message says why and what to install."""


class DeviceMemoryError(FastnetError, MemoryError):
    """The device has too little memory for the data or for a step; the message says how much is needed and free."""


class UnsupportedSpecError(FastnetError, ValueError):
    """The backend can run here, but not this network or training; raised before any work starts."""


class PlanClosedError(FastnetError, RuntimeError):
    """A training plan was used after ``close()``."""


class DivergenceError(FastnetError, ArithmeticError):
    """The loss or the weights stopped being finite. The network keeps the last finite weights.

    Attributes
    ----------
    step : int
        Zero-based index of the first update whose loss, or whose result, was not finite.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def require_count(name: str, value: Any) -> None:
    """Raise `SpecError` unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise SpecError(f"{name} must be a whole number of at least 1, got {value!r}")


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> SpecError:
    """Return the error for a name that is not one of `allowed`, suggesting the nearest one.

    >>> str(unknown_name("activation", "rleu", ["relu", "tanh"]))
    "unknown activation 'rleu': did you mean 'relu'? Choose from relu, tanh."
    """
    names = list(allowed)
    near = get_close_matches(str(name), names, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return SpecError(f"unknown {kind} {name!r}: {suggestion}Choose from {', '.join(names)}.")
