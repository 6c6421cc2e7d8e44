"""NumPy's own files: a two-dimensional array (.npy), or several arrays by name (.npz). Nothing is ever unpickled."""

# Legend: N samples, D features, C columns of targets.

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError, FileFormatError

__all__ = ["ArrayFile", "NamedArrays"]

# Names under which arrays are looked for; the second kind is what Keras publishes its data under.
_NAMES = {
    "X": ("X", "x", "X_train", "x_train"),
    "y": ("y", "Y", "y_train", "Y_train"),
    "X_test": ("X_test", "x_test"),
    "y_test": ("y_test", "Y_test"),
}


class ArrayFile:
    """A two-dimensional array in an .npy file; its columns are called by their indices.

    Raises
    ------
    FileFormatError
        The file is damaged.
    DataError
        It holds something else than a two-dimensional array of numbers.
    """

    has_names = False

    def __init__(self, path: Path) -> None:
        with _loaded(path) as array:
            if not isinstance(array, np.ndarray):
                raise FileFormatError(f"{path}: holds several arrays with names: call it .npz")
        self._array = array
        if self._array.ndim != 2 or self._array.dtype.kind not in "biuf":
            raise DataError(
                f"{path}: must hold a two-dimensional array of numbers, got {self._array.dtype} of shape "
                f"{self._array.shape}"
            )
        self.names = tuple(str(index) for index in range(self._array.shape[1]))
        self.used = tuple(range(self._array.shape[1]))

    def read(self, features: Sequence[int], target: int | None) -> tuple[NDArray, NDArray | None]:
        """Columns (N, D), and the target (N,)."""
        x = self._array if len(features) == len(self.names) else self._array[:, features]
        return x, None if target is None else self._array[:, target]


class NamedArrays:
    """The arrays of an .npz file: X and y, and perhaps X_test and y_test.

    Raises
    ------
    FileFormatError
        The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _loaded(path) as archive:
            if isinstance(archive, np.ndarray):
                raise FileFormatError(f"{path}: holds a single array without a name: call it .npy")
            self._arrays = {name: archive[name] for name in archive.files}

    def has(self, role: str) -> bool:
        """Whether there is an array for `role`: "X", "y", "X_test" or "y_test"."""
        return any(name in self._arrays for name in _NAMES[role])

    def samples(self, role: str) -> tuple[NDArray, tuple[int, int] | None]:
        """Samples (N, D), and (height, width) where the array holds pictures (N, height, width).

        Raises
        ------
        DataError
            There is no such array, or it does not hold samples.
        """
        x = self._get(role, None)
        if x.ndim not in (2, 3) or x.dtype.kind not in "biuf":
            raise DataError(
                f"{self._path}: {role} must hold numbers of shape (N, D) or (N, height, width), got {x.dtype} of shape "
                f"{x.shape}"
            )
        image_shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
        return x.reshape(len(x), math.prod(x.shape[1:])), image_shape

    def targets(self, role: str, name: str | None = None) -> NDArray:
        """Targets (N,) or (N, C), from the array called `name` where one is given.

        Raises
        ------
        DataError
            There is no such array, or it does not hold targets.
        """
        y = self._get(role, name)
        if y.ndim not in (1, 2) or y.dtype.kind not in "biufU":
            raise DataError(
                f"{self._path}: {name or role} must hold numbers or strings of shape (N,) or (N, C), got {y.dtype} of "
                f"shape {y.shape}"
            )
        return y[:, 0] if y.shape[1:] == (1,) else y

    def _get(self, role: str, name: str | None) -> NDArray:
        found = [candidate for candidate in (_NAMES[role] if name is None else (name,)) if candidate in self._arrays]
        if not found:
            listed = ", ".join(f"{other} {array.shape}" for other, array in self._arrays.items()) or "none"
            raise DataError(
                f"{self._path}: holds no array called {name or role}. Arrays are: {listed}. Save samples as X, targets "
                "as y, and held-out ones as X_test and y_test: numpy.savez(path, X=..., y=...)"
            )
        return self._arrays[found[0]]


@contextmanager
def _loaded(path: Path) -> Iterator[Any]:
    """What ``numpy.load`` returns, an array or an archive; what goes wrong while it is read is told clearly."""
    try:
        with path.open("rb") as file:  # which NumPy, given the path, leaves open where it is damaged
            yield np.load(file, allow_pickle=False)
    except FileFormatError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise FileFormatError(
                f"{path}: holds Python objects, which are not read because they can run code: save plain numbers"
            ) from error
        raise FileFormatError(f"{path}: damaged, or not written by NumPy: {error}") from error
