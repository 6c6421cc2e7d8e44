"""The powers of two by which the narrow path multiplies numbers before it splits them in halves, kept on the device."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from fastnet.backends.cupy_backend.narrow_range import LARGEST, LARGEST_EXPONENT, SMALLEST

__all__ = ["Scales"]

Array = Any

# |w| < 234 and |d_z| < 58 are in range at first, with errors below 2^-33 and 2^-35.
_WEIGHT_EXPONENT = 8
_DELTA_EXPONENT = 10

# After the largest number has left its range it is brought to between 2^11 and 2^12, from where it may grow 14-fold or
# become 2^13 times smaller.
_EXPONENT_OF_LARGEST = 12


class Scales:
    """Scales of the weights and of the hidden layer's d_z, which change when numbers have left the range of halves.

    When they change depends on the numbers alone, and not on how steps are cut into runs.

    Parameters
    ----------
    feature_exponent : int
        The smallest power of two that a feature has been multiplied by, and its weights divided by.

    Attributes
    ----------
    on_device : cupy.ndarray (4,) of float32
        Scale of weights, one by it, scale of d_z, one by it.
    """

    def __init__(self, feature_exponent: int) -> None:
        self._weight_exponent = _WEIGHT_EXPONENT + feature_exponent
        self._delta_exponent = _DELTA_EXPONENT
        self.on_device = cupy.empty(4, np.float32)
        self._upload()

    def adapt(self, largest_weight: float, largest_delta: float) -> None:
        """Choose scales for a step that could not be made, from the largest of its numbers, scaled as they were.

        If the weights were out of range, what is known of d_z means nothing.
        """
        if _leaves_range(largest_weight, self._weight_exponent):
            self._weight_exponent = _adapted(self._weight_exponent, largest_weight)
        else:
            self._delta_exponent = _adapted(self._delta_exponent, largest_delta)
        self._upload()

    def _upload(self) -> None:
        exponents = [self._weight_exponent, -self._weight_exponent, self._delta_exponent, -self._delta_exponent]
        self.on_device.set(np.exp2(exponents).astype(np.float32))


def _leaves_range(largest: float, exponent: int) -> bool:
    """As ``leaves_range`` of ``narrow_update.cu`` has it."""
    is_too_small = 0 < largest < SMALLEST and exponent < LARGEST_EXPONENT
    return LARGEST < largest < math.inf or is_too_small


def _adapted(exponent: int, largest: float) -> int:
    return min(exponent + _EXPONENT_OF_LARGEST - math.frexp(largest)[1], LARGEST_EXPONENT)
