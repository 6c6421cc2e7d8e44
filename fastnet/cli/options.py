"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["ExistingOrNot", "backend_options", "data_options", "quiet_option"]

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


quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, and no more output than the result.")
