"""What ran where, why, and for how long: one entry per fit, told to the log and to whoever listens."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastnet.errors import UnsupportedSpecError

__all__ = ["Entry", "falling_back", "listeners", "record"]

logger = logging.getLogger("fastnet")


@dataclass(frozen=True, slots=True)
class Entry:
    """One call of a method that trains or predicts.

    Attributes
    ----------
    estimator, method : str
        "MLPClassifier", "fit".
    ran_on : str
        The name of the backend, or "scikit-learn" for its own code.
    reason : str
        Why it was chosen; for scikit-learn's own code, what fastnet could not do.
    detail : str
        How the backend computed, in one line; empty for scikit-learn's own code.
    seconds : float
        Time taken, in seconds.
    """

    estimator: str
    method: str
    ran_on: str
    reason: str
    detail: str
    seconds: float

    @property
    def is_fallback(self) -> bool:
        """Whether scikit-learn's own code runs."""
        return self.ran_on == "scikit-learn"

    def __str__(self) -> str:
        where = "fell back to scikit-learn's own code" if self.is_fallback else f"ran on {self.ran_on}"
        return f"{self.estimator}.{self.method}: {where} in {self.seconds:.3g} s ({self.reason})"


# Called with each entry, in the thread that made it.
listeners: list[Callable[[Entry], None]] = []


def record(entry: Entry) -> None:
    """Log an entry, and hand it to the listeners."""
    logger.info("%s", entry)
    for listener in listeners:
        listener(entry)


@contextmanager
def falling_back(estimator: str, method: str, reason: str) -> Iterator[None]:
    """Record what is done within, by scikit-learn's own code, unless the environment forbids it.

    Raises
    ------
    UnsupportedSpecError
        ``FASTNET_ACCEL_STRICT`` is 1.
    """
    if os.environ.get("FASTNET_ACCEL_STRICT") == "1":
        raise UnsupportedSpecError(
            f"{estimator}.{method} cannot be accelerated: {reason}. Without --strict (FASTNET_ACCEL_STRICT=1), "
            "scikit-learn's own code would run."
        )
    start = time.perf_counter()
    try:
        yield
    finally:
        record(Entry(estimator, method, "scikit-learn", reason, "", time.perf_counter() - start))
