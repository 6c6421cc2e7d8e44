"""A user's own data: CSV, NPZ, NPY and Parquet files."""

# Legend: N samples, D features.

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastnet.datasets.arrays import ArrayFile, NamedArrays
from fastnet.datasets.parquet import ParquetFile
from fastnet.datasets.table import Table, as_pixels, hold_out
from fastnet.datasets.text import TARGET_NAMES, TextFile
from fastnet.errors import DataError, FileFormatError

__all__ = ["read_samples", "read_table"]


class _Columns(Protocol):
    """A file of columns, whatever its format; `used` are the indices of those that are features or target.

    Where `has_names` is false, `names` are indices.
    """

    names: tuple[str, ...]
    has_names: bool
    used: tuple[int, ...]

    def read(self, features: Sequence[int], target: int | None) -> tuple[NDArray, NDArray | None]:
        """Columns as numbers (N, D), in this order, and the target (N,)."""
        ...


_FORMATS: dict[str, Callable[[Path], _Columns]] = {
    ".csv": TextFile,
    ".tsv": TextFile,
    ".txt": TextFile,
    ".npy": ArrayFile,
    ".parquet": ParquetFile,
}


def read_table(
    path: str | os.PathLike[str], target: str | None = None, *, held_out: float | None = None, random_state: int = 0
) -> Table:
    """Read samples and targets from a file.

    Parameters
    ----------
    path : path-like
        ``.csv``, ``.tsv`` or ``.txt`` with commas, semicolons or tabs, with or without a line of names; ``.npz`` with
        arrays ``X`` and ``y`` and perhaps ``X_test`` and ``y_test``; ``.npy`` with a two-dimensional array;
        ``.parquet``.
    target : str, optional
        Name or index of the column to predict; of an ``.npz`` file, name of the array. By default the column called
        target, label, class or y, and of an ``.npy`` file the last one.
    held_out : float, optional
        Share, or number, of the shuffled samples to hold out, unless the file brings its own held-out part.
    random_state : int
        Seed of that shuffle.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        The file does not exist, its columns cannot be used, or it is not told which one is the target.
    FileFormatError
        The file is damaged or of an unknown kind.
    MissingPackageError
        A ``.parquet`` file needs pyarrow.
    """
    path = _existing(path)
    table = _table_of_arrays(path, target) if path.suffix.lower() == ".npz" else _table_of_columns(path, target)
    if held_out is None or table.X_test is not None:
        return table
    return hold_out(table, held_out, random_state)


def read_samples(
    path: str | os.PathLike[str], n_features: int, target: str | None = None, *, feature_names: Sequence[str] = ()
) -> tuple[NDArray, NDArray | None]:
    """Read samples to predict, (N, D), and their targets where the file has them.

    Parameters
    ----------
    path : path-like
        See :func:`read_table`; an ``.npz`` file may lack ``y``.
    n_features : int
        D.
    target : str, optional
        The target's column. Without it, a file of exactly `n_features` columns is taken to have none.
    feature_names : sequence of str
        Names of the features. Where the columns of the file have names, too, they are found by these, in any order, and
        among others; one that is left over is the target.

    Raises
    ------
    DataError
        The file lacks columns, or has too many; and as :func:`read_table`.
    FileFormatError, MissingPackageError
        As :func:`read_table`.
    """
    path = _existing(path)
    if path.suffix.lower() == ".npz":
        arrays = NamedArrays(path)
        x, _ = arrays.samples("X")
        y = arrays.targets("y", target) if target is not None or arrays.has("y") else None
        return _features(path, x, ()), None if y is None else _targets(path, y, "y")
    columns = _open(path)
    if columns.has_names and feature_names and len(set(columns.names)) == len(columns.names):
        return _read_by_name(path, columns, feature_names, target)
    if target is None and len(columns.used) == n_features:
        return _read(path, columns, columns.used, None)
    if target is None and len(columns.used) != n_features + 1:
        raise DataError(f"{path}: has {len(columns.used)} columns, and the network takes {n_features} features")
    index = _find_target(path, columns, target)
    return _read(path, columns, _features_beside(columns, index), index)


def _read_by_name(
    path: Path, columns: _Columns, feature_names: Sequence[str], target: str | None
) -> tuple[NDArray, NDArray | None]:
    missing = [name for name in feature_names if name not in columns.names]
    if missing:
        raise DataError(
            f"{path}: has no column called {_shortened(missing)}, which the network was trained on. "
            f"Columns are {_listed(columns)}"
        )
    features = [columns.names.index(name) for name in feature_names]
    others = [index for index in columns.used if index not in features]
    if target is not None:
        return _read(path, columns, features, _find_target(path, columns, target))
    telling = [index for index in others if columns.names[index].lower() in TARGET_NAMES]
    likely = telling or (others if len(others) == 1 else [])
    return _read(path, columns, features, likely[0] if likely else None)


def _table_of_arrays(path: Path, target: str | None) -> Table:
    arrays = NamedArrays(path)
    x, image_shape = arrays.samples("X")
    y = arrays.targets("y", target)
    _require_same_length(path, "X", x, "y", y)
    x_test = y_test = None
    if arrays.has("X_test") or arrays.has("y_test"):
        x_test, y_test = arrays.samples("X_test")[0], arrays.targets("y_test")
        _require_same_length(path, "X_test", x_test, "y_test", y_test)
        if y_test.shape[1:] != y.shape[1:]:
            raise DataError(f"{path}: y has shape {y.shape} and y_test {y_test.shape}: save both in one form")
        x_test, y_test = _features(path, x_test, ()), _targets(path, y_test, "y_test")
    return Table(path.name, _features(path, x, ()), _targets(path, y, "y"), x_test, y_test, image_shape=image_shape)


def _table_of_columns(path: Path, target: str | None) -> Table:
    columns = _open(path)
    if len(columns.used) < 2:
        raise DataError(f"{path}: has a single column; commas, semicolons or tabs should separate features and target")
    index = _find_target(path, columns, target)
    features = _features_beside(columns, index)
    x, y = _read(path, columns, features, index)
    assert y is not None
    names = tuple(columns.names[column] for column in features) if columns.has_names else ()
    return Table(path.name, x, y, feature_names=names)


def _features_beside(columns: _Columns, target: int) -> list[int]:
    return [column for column in columns.used if column != target]


def _read(path: Path, columns: _Columns, features: Sequence[int], target: int | None) -> tuple[NDArray, NDArray | None]:
    x, y = columns.read(features, target)
    x = _features(path, x, [columns.names[column] for column in features])
    return x, None if y is None or target is None else _targets(path, y, columns.names[target])


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name a .csv, .npz, .npy or .parquet file in it")
    return path


def _open(path: Path) -> _Columns:
    if path.suffix.lower() not in _FORMATS:
        raise FileFormatError(f"{path}: cannot tell its format: call it {', '.join(_FORMATS)} or .npz")
    try:
        return _FORMATS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _find_target(path: Path, columns: _Columns, target: str | None) -> int:
    """Index of the column to predict."""
    names = columns.names
    if target is None:
        lower = [name.lower() for name in names]
        by_name = [lower.index(name) for name in TARGET_NAMES if name in lower]
        if by_name:
            return by_name[0]
        if isinstance(columns, ArrayFile):
            return len(names) - 1
        raise DataError(
            f"{path}: which column is the target? None is called {', '.join(TARGET_NAMES)}. "
            f"Give its name or index with --target (in Python, target=). Columns are {_listed(columns)}"
        )
    if names.count(target) == 1:
        return names.index(target)
    if target.removeprefix("-").isdecimal() and -len(names) <= int(target) < len(names):
        return int(target) % len(names)
    near = get_close_matches(target, names, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near and target not in names else ""
    count = "more than one" if target in names else "no"
    raise DataError(f"{path}: {count} column {target!r}: {suggestion}Columns are {_listed(columns)}")


def _listed(columns: _Columns) -> str:
    return _shortened([columns.names[column] for column in columns.used])


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} in all)"


def _features(path: Path, x: NDArray, names: Sequence[str]) -> NDArray:
    """Samples (N, D), all finite, as :class:`Table` holds them."""
    if x.size == 0:
        raise DataError(f"{path}: holds no samples: shape {x.shape}")
    finite = np.isfinite(x)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        described = f"column {names[column] if names else column}"
        raise DataError(f"{path}: {described} holds {x[row, column]} in sample {row}: remove or replace it")
    return as_pixels(x)


def _targets(path: Path, y: NDArray, name: str) -> NDArray:
    """Targets as they are if strings, as int64 if all are whole, else as float64."""
    if y.dtype.kind == "U":
        return y
    finite = np.isfinite(y)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise DataError(f"{path}: {name}, the target, holds {y[row]} in sample {row}: remove or replace it")
    return y.astype(np.int64 if (y == np.floor(y)).all() else np.float64)


def _require_same_length(path: Path, x_name: str, x: NDArray, y_name: str, y: NDArray) -> None:
    if len(x) != len(y):
        raise DataError(f"{path}: {x_name} has {len(x)} samples and {y_name} has {len(y)}")
