"""Options that several commands share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastnet.errors import SpecError

__all__ = ["ExistingOrNot", "backend_options", "check_output", "data_options", "quiet_option", "to_json"]

ExistingOrNot: Any = click.Path(path_type=Path)  # whether it exists is for the reader to say, in its own words


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--backend``, ``--device`` and ``--threads``."""
    for option in (
        click.option("--threads", "n_threads", type=click.IntRange(min=1), help="CPU threads [FASTNET_NUM_THREADS]."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:1."),
        click.option("--backend", help="numpy, numba, cupy, or auto [FASTNET_BACKEND, else auto]."),
    ):
        command = option(command)
    return command


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--data`` and ``--target``."""
    for option in (
        click.option("--target", metavar="COLUMN", help="Column to predict, by name or index."),
        click.option(
            "--data",
            type=ExistingOrNot,
            metavar="PATH",
            help="A .csv, .npz, .npy or .parquet file, or the folder of MNIST's files [FASTNET_DATA].",
        ),
    ):
        command = option(command)
    return command


def check_output(path: Path) -> None:
    """Find out before work is done, not after, that a file could not be written.

    Raises
    ------
    SpecError
        The message says why.
    """
    from fastnet.persistence import check_writable

    if path.is_dir():
        raise SpecError(f"{path}: is a folder, and a file is to be written")
    if not path.absolute().parent.is_dir():
        raise SpecError(f"{path}: there is no folder {path.parent} to write it to")
    try:
        check_writable(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be written: {error.strerror or error}; name another file") from error


def to_json(value: Any) -> str:
    """JSON for machines; what is no finite number, which JSON has no word for, is null."""
    return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, and no more output than the result.")
