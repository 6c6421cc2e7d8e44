"""The range in which the narrow path keeps the largest of some numbers before it splits them in halves."""

from __future__ import annotations

__all__ = ["LARGEST", "LARGEST_EXPONENT", "RANGE_MACROS", "SMALLEST"]

# Halves go up to 65504. Pieces are exact to 2^-25, which is 2^-23 of the smallest.
LARGEST = 60000.0
SMALLEST = 0.25

# Of the power of two that numbers are multiplied by. Where more would be needed they stay small: float32 is at its end.
LARGEST_EXPONENT = 100

# What ``narrow_update.cu`` is compiled with.
RANGE_MACROS: dict[str, object] = {
    "LARGEST_IN_RANGE": f"{LARGEST}f",
    "SMALLEST_IN_RANGE": f"{SMALLEST}f",
    "LARGEST_SCALE": f"{2.0**LARGEST_EXPONENT}f",
}
