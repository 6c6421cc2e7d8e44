"""Putting fastnet's estimators in the place of scikit-learn's, and making sure that nobody has the old ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

__all__ = ["CLASSES", "NotReplacedError", "Replacement"]

ESTIMATORS = ("MLPClassifier", "MLPRegressor")


class NotReplacedError(Exception):
    """Tests would run on scikit-learn's own classes."""


def _place_estimators() -> None:
    from sklearn import neural_network
    from sklearn.neural_network import _multilayer_perceptron

    import fastnet.sklearn

    for name in ESTIMATORS:
        for module in (neural_network, _multilayer_perceptron):
            setattr(module, name, getattr(fastnet.sklearn, name))


def _place_accelerated() -> None:
    import fastnet.accel

    fastnet.accel.install()


# Which classes stand in for scikit-learn's, and how they get there.
CLASSES: dict[str, Callable[[], None]] = {"fastnet.sklearn": _place_estimators, "fastnet.accel": _place_accelerated}


@dataclass(frozen=True, slots=True)
class Replacement:
    """What was done.

    Attributes
    ----------
    originals : tuple of type
        scikit-learn's own classes.
    """

    originals: tuple[type, ...]

    @classmethod
    def make(cls, classes: str) -> Replacement:
        """Replace scikit-learn's classes by those of `classes`, a key of `CLASSES`.

        Raises
        ------
        NotReplacedError
            Afterwards, ``sklearn.neural_network`` has other classes than fastnet's.
        """
        CLASSES[classes]()
        from sklearn import neural_network

        from fastnet.sklearn.plan_trained import PlanTrained

        originals = []
        for name in ESTIMATORS:
            placed = getattr(neural_network, name)
            if not issubclass(placed, PlanTrained):
                raise NotReplacedError(f"sklearn.neural_network.{name} is none of {classes}, but {placed!r}")
            theirs = (base for base in placed.__mro__ if base.__name__ == name and not issubclass(base, PlanTrained))
            originals.append(next(theirs))
        return cls(tuple(originals))

    def check(self) -> None:
        """Make sure that no module has the classes that were replaced.

        Raises
        ------
        NotReplacedError
            A module has: it was imported before they were replaced, or got them in another way.
        """
        holders = sorted(name for name, module in list(sys.modules.items()) if self._is_held_by(module))
        if holders:
            raise NotReplacedError(f"scikit-learn's own classes are in {', '.join(holders)}")

    def _is_held_by(self, module: ModuleType) -> bool:
        values = list(getattr(module, "__dict__", {}).values())
        return any(value is original for value in values for original in self.originals)
