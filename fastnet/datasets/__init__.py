"""Data to train on: bundled, generated, MNIST from wherever it lies, or a user's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastnet.datasets.bundled import digits, moons, or_gate, sum_of_two
from fastnet.datasets.files import read_samples, read_table
from fastnet.datasets.mnist import mnist
from fastnet.datasets.table import Table, hold_out
from fastnet.errors import DataError, unknown_name

__all__ = ["SOURCES", "Table", "hold_out", "load", "read_samples", "read_table"]

# What a recipe may name as its source.
SOURCES: dict[str, Callable[..., Table]] = {
    "digits": digits,
    "file": read_table,
    "mnist": mnist,
    "moons": moons,
    "or-gate": or_gate,
    "sum": sum_of_two,
}

# (height, width) of a source's pictures, which a file given in its place is taken to hold as well.
_IMAGE_SHAPES = {"digits": (8, 8), "mnist": (28, 28)}


def load(
    source: str,
    options: Mapping[str, Any] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    target: str | None = None,
) -> Table:
    """Load a source's data, or a user's own in their place.

    Parameters
    ----------
    source : str
        One of `SOURCES`.
    options : mapping, optional
        Keyword arguments of that source.
    data : path-like, optional
        For MNIST, the directory where it lies. For every source, a file to take instead: all of it, held out as
        ``held_out`` and ``random_state`` of `options` say.
    target : str, optional
        What to predict in `data`: see :func:`read_table`.

    Raises
    ------
    SpecError
        The source is unknown.
    DataError, FileFormatError, MissingPackageError
        The data are not there or cannot be used; the message says what, where, and what to do.
    """
    options = dict(options or {})
    if source not in SOURCES:
        raise unknown_name("data source", source, SOURCES)
    if target is not None and data is None and source != "file":
        raise DataError(f"a target column ({target!r}) goes with a file of your own: name it with --data")
    if source == "mnist" and data is not None and not Path(data).expanduser().is_file():
        return mnist(data, **{name: value for name, value in options.items() if name != "directory"})
    if source != "file" and data is None:
        return SOURCES[source](**options)
    path = data if data is not None else options.get("path")
    if path is None:
        raise DataError("data source 'file' needs a file: name it with --data, or as path in the recipe")
    splitting = {name: options[name] for name in ("held_out", "random_state") if name in options}
    table = read_table(path, target or options.get("target"), **splitting)
    return _as_pictures(table, _IMAGE_SHAPES.get(source))


def _as_pictures(table: Table, shape: tuple[int, int] | None) -> Table:
    if shape is None or table.image_shape is not None or table.X.shape[1] != shape[0] * shape[1]:
        return table
    return replace(table, image_shape=shape)
