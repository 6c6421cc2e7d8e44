"""`Table`: the samples and targets of one problem, and what is held out of training to judge what was learned."""

# Legend: N samples, D features, C columns of targets.

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError

__all__ = ["Table", "as_pixels", "hold_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A problem's data.

    Attributes
    ----------
    name : str
        What the data are called in messages and titles.
    X : ndarray (N, D)
        uint8 where every value is a whole number from 0 to 255, else float64.
    y : ndarray (N,) or (N, C)
        Labels (int64 or strings), or values (float64).
    X_test, y_test : ndarray or None
        Held out of training; both None where nothing is.
    feature_names : tuple of str
        One name per feature, or empty where features have none.
    image_shape : tuple of int or None
        (height, width) where each sample is a picture, its pixels row by row.
    random : RandomState or None
        The generator that the data were drawn from, where initial weights may go on with its numbers.
    """

    name: str
    X: NDArray
    y: NDArray
    X_test: NDArray | None = None
    y_test: NDArray | None = None
    feature_names: tuple[str, ...] = ()
    image_shape: tuple[int, int] | None = None
    random: np.random.RandomState | None = None

    @property
    def judged_on(self) -> tuple[str, NDArray, NDArray]:
        """What predictions are best judged on: ("held-out", X, y), or ("training", X, y) where nothing is held out."""
        if self.X_test is None or self.y_test is None:
            return "training", self.X, self.y
        return "held-out", self.X_test, self.y_test


def hold_out(table: Table, size: float, random_state: int) -> Table:
    """Shuffle a table and hold part of it out; what it held out before is left behind.

    Parameters
    ----------
    table : Table
    size : float
        A share in (0, 1), or a whole number of samples.
    random_state : int
        Seed of the shuffle, as for :func:`sklearn.model_selection.train_test_split`.

    Raises
    ------
    DataError
        `size` or `random_state` has no meaning, or leaves one of the parts empty.
    """
    from sklearn.model_selection import train_test_split

    options: dict[str, Any] = {"test_size": size, "random_state": random_state}
    try:
        x, x_test, y, y_test = train_test_split(table.X, table.y, **options)
    except (TypeError, ValueError) as error:
        raise DataError(f"{table.name}: cannot hold out {size!r} of {len(table.y)} samples: {error}") from error
    return replace(table, X=x, y=y, X_test=x_test, y_test=y_test)


def as_pixels(x: NDArray) -> NDArray:
    """`x`, C-contiguous, as uint8 where that loses nothing, else as float64: small numbers are read faster."""
    small = x.min(initial=0) >= 0 and x.max(initial=0) <= 255
    whole = x.dtype.kind in "biu" or (small and (x == np.floor(x)).all())
    return x.astype(np.uint8 if small and whole else np.float64, order="C", copy=False)
