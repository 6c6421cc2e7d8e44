"""Pictures of a fit and of what it has learned.

Every function but `plot_history` draws on a figure of its own, apart from pyplot and its state, unless it is given axes
to draw on.
Colours can be told apart with any colour vision, and nothing rests on colour alone.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastnet.datasets import Table
from fastnet.errors import DataError
from fastnet.history import History
from fastnet.network import Network
from fastnet.plotting.curves import history_figure, plot_history
from fastnet.plotting.labels import plot_confusion, plot_images
from fastnet.plotting.points import Model, plot_boundary, plot_predictions
from fastnet.plotting.style import new_figure

__all__ = [
    "Model",
    "history_figure",
    "image_suffixes",
    "plot_boundary",
    "plot_confusion",
    "plot_history",
    "plot_images",
    "plot_predictions",
    "save_pictures",
]


def image_suffixes() -> list[str]:
    """File suffixes that pictures can be written with, such as ".png".

    Raises
    ------
    MissingPackageError
        matplotlib is not installed.
    """
    return sorted(f".{kind}" for kind in new_figure(1, 1).canvas.get_supported_filetypes())


def save_pictures(directory: str | os.PathLike[str], network: Network, history: History, table: Table) -> list[Path]:
    """Write the pictures that suit a problem, as PNG files.

    ``curves.png`` always; for classes ``confusion.png``, with pictures for samples ``images.png``, with two features
    ``boundary.png``; for values ``predictions.png``. They show held-out data where there are any.

    Parameters
    ----------
    directory : path-like
        Made if it does not exist; files in it are replaced.
    network : Network
        Trained.
    history : History
        Of its fit.
    table : Table
        What it was trained on.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    DataError
        The directory cannot be written to.
    MissingPackageError
        matplotlib is not installed.
    """
    figures = _figures(network, history, table)
    directory = Path(directory).expanduser()
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            paths.append(directory / f"{name}.png")
            figure.savefig(paths[-1])
    except OSError as error:
        raise DataError(f"{directory}: pictures cannot be written there: {error.strerror or error}") from error
    return paths


def _figures(network: Network, history: History, table: Table) -> dict[str, Any]:
    drawn: dict[str, Any] = {"curves": history_figure(history, loss=network.spec.loss)}
    if network.classes is not None:
        table = _with_labels(table, network.classes)
    part, x, y = table.judged_on
    predicted = network.predict(x)
    if network.classes is not None:
        drawn["confusion"] = plot_confusion(y, predicted, described_as=f"{part} samples").figure
        if table.image_shape is not None:
            drawn["images"] = plot_images(x, y, predicted, table.image_shape, described_as=f"{part} images")
        if table.X.shape[1] == 2:
            drawn["boundary"] = plot_boundary(network, table).figure
    elif not history.accuracy:  # values; multilabel indicators have neither one class nor one value to show
        drawn["predictions"] = plot_predictions(y, predicted, described_as=f"{part} values").figure
    return drawn


def _with_labels(table: Table, classes: NDArray) -> Table:
    """The same table, its targets labels (N,) where they were one-hot rows (N, K)."""
    if table.y.ndim == 1:
        return table
    y_test = None if table.y_test is None else classes[table.y_test.argmax(axis=1)]
    return replace(table, y=classes[table.y.argmax(axis=1)], y_test=y_test)
