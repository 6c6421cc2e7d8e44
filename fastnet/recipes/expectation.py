"""Figures that a recipe is expected to reach, and whether a run has reached them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastnet.errors import SpecError, unknown_name
from fastnet.history import History
from fastnet.recipes.schema import check_keys

__all__ = ["Expectation", "Finding", "check_expectations"]

_METRICS = ("accuracy", "loss", "r2")
_PARTS = ("training", "held-out")


@dataclass(frozen=True, slots=True)
class Expectation:
    """A figure and the range it should end in.

    Attributes
    ----------
    metric : {"accuracy", "loss", "r2"}
        As `fastnet.Network.evaluate` calls it.
    on : {"training", "held-out"}
        The part of the data it is taken on.
    low, high : float
        The range, both ends included.
    after_steps : int or None
        Updates after which it is taken; None for the end of training.
    """

    metric: str
    on: str
    low: float = -math.inf
    high: float = math.inf
    after_steps: int | None = None

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Expectation:
        """Expectation from a table [[expect]] of a recipe.

        Raises
        ------
        SpecError
            A key is unknown or missing, or the range is empty.
        """
        check_keys("expect", described)
        metric, on = described.get("metric"), described.get("on", "training")
        if metric not in _METRICS:
            raise unknown_name("metric of [expect]", metric, _METRICS)
        if on not in _PARTS:
            raise unknown_name("part of the data (on) of [expect]", on, _PARTS)
        low, high = _range(described)
        after_steps = described.get("after_steps")
        if after_steps is not None and (on != "training" or metric == "r2" or after_steps < 0):
            raise SpecError(
                "after_steps of [expect] goes with the loss or accuracy on training data, and is at least 0"
            )
        return cls(metric, on, low, high, after_steps)

    def __str__(self) -> str:
        when = "" if self.after_steps is None else f" after {self.after_steps} step{'s' * (self.after_steps != 1)}"
        if math.isinf(self.low):
            wanted = f"at most {self.high:.10g}"
        elif math.isinf(self.high):
            wanted = f"at least {self.low:.10g}"
        else:
            wanted = f"between {self.low:.10g} and {self.high:.10g}"
        return f"{self.on} {self.metric}{when} {wanted}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of an expectation."""

    expectation: Expectation
    value: float

    @property
    def met(self) -> bool:
        """Whether the value lies in the range; NaN does not."""
        return self.expectation.low <= self.value <= self.expectation.high

    def __str__(self) -> str:
        return f"{'reached' if self.met else 'MISSED'}: {self.expectation}; it is {self.value:.10g}"


def check_expectations(
    expectations: tuple[Expectation, ...], history: History, figures: Mapping[str, Mapping[str, float]]
) -> list[Finding]:
    """Compare a run with what was expected of it.

    Parameters
    ----------
    expectations : tuple of Expectation
    history : History
        Of the run.
    figures : mapping
        Of "training", and "held-out" where there is such a part, to what ``Network.evaluate`` returned for it.

    Returns
    -------
    list of Finding
        One per expectation that the run can answer: a part that was not at hand, or a step that was not reached, is
        left out.
    """
    findings = []
    for expectation in expectations:
        after_steps = expectation.after_steps
        if after_steps is None:
            value = figures.get(expectation.on, {}).get(expectation.metric)
        else:  # where each step has its entry, entry n is at the parameters after n updates
            recorded = getattr(history, expectation.metric) if history.steps_per_entry == 1 else []
            value = recorded[after_steps] if after_steps < len(recorded) else None
        if value is not None:
            findings.append(Finding(expectation, value))
    return findings


def _range(described: Mapping[str, Any]) -> tuple[float, float]:
    if "within" in described:
        within = described["within"]
        if "at_least" in described or "at_most" in described:
            raise SpecError("[expect] takes within, or at_least and at_most, not both")
        if len(within) != 2 or not all(isinstance(end, int | float) for end in within) or not within[0] <= within[1]:
            raise SpecError(f"within of [expect] must be two numbers, the smaller one first, got {within}")
        return float(within[0]), float(within[1])
    low, high = float(described.get("at_least", -math.inf)), float(described.get("at_most", math.inf))
    if math.isinf(low) and math.isinf(high):
        raise SpecError("[expect] needs at_least, at_most, or within = [low, high]")
    return low, high
