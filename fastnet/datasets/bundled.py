"""Data that need no file: scikit-learn's bundled digits, and problems that are drawn or written down."""

# Legend: N samples, D features.

from __future__ import annotations

import numpy as np

from fastnet.datasets.table import Table, hold_out
from fastnet.errors import DataError

__all__ = ["digits", "moons", "or_gate", "sum_of_two"]


def digits(*, held_out: float = 0.2, random_state: int = 0) -> Table:
    """Handwritten digits of 8 by 8 pixels, uint8 from 0 to 16 (Alpaydin and Kaynak 1998), bundled with scikit-learn.

    Parameters
    ----------
    held_out : float
        Share in (0, 1) or number of the 1,797 samples.
    random_state : int
        Seed of the split.

    Raises
    ------
    DataError
        `held_out` has no meaning.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table = Table("digits", bunch.data.astype(np.uint8), bunch.target.astype(np.int64), image_shape=(8, 8))
    return hold_out(table, held_out, random_state)


def moons(*, n_samples: int = 300, noise: float = 0.2, held_out: float = 0.2, random_state: int = 0) -> Table:
    """Two interleaved half circles (:func:`sklearn.datasets.make_moons`): 2 features, 2 classes.

    Parameters
    ----------
    n_samples : int
    noise : float
        Standard deviation of what is added to each coordinate.
    held_out : float
        Share in (0, 1) or number of samples.
    random_state : int
        Seed of the drawing, and again of the split.

    Raises
    ------
    DataError
        An option has no meaning.
    """
    from sklearn.datasets import make_moons

    try:
        x, y = make_moons(n_samples, noise=noise, random_state=random_state)
    except (TypeError, ValueError) as error:
        raise DataError(f"moons: {error}") from error
    return hold_out(Table("moons", x, y.astype(np.int64), feature_names=("x1", "x2")), held_out, random_state)


def or_gate() -> Table:
    """The truth table of the logical or: 4 samples, 2 features, 2 classes."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.uint8)
    return Table("or-gate", x, (x[:, 0] | x[:, 1]).astype(np.int64), feature_names=("x1", "x2"))


def sum_of_two(*, n_samples: int = 10_000, random_state: int = 4) -> Table:
    """Pairs of numbers, uniform in [0, 1), and their sum as the value to predict.

    Parameters
    ----------
    n_samples : int
    random_state : int
        Seed of the legacy generator, which initial weights may go on with.

    Raises
    ------
    DataError
        An option has no meaning.
    """
    try:
        random = np.random.RandomState(random_state)
        x = random.uniform(size=(n_samples, 2))
    except (TypeError, ValueError) as error:
        raise DataError(f"sum: {error}") from error
    return Table("sum", x, x.sum(axis=1), feature_names=("x1", "x2"), random=random)
