"""Data as points: the border a classifier draws in the plane, and predicted against true values."""

# Legend: N samples, K classes, R points along each side of a grid.

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.datasets import Table
from fastnet.errors import DataError
from fastnet.plotting.style import BLUE, DASHES, INK, PALE, VERMILLION, class_colour, new_figure, shades, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

__all__ = ["Model", "plot_boundary", "plot_predictions"]

_GRID_POINTS = 300  # R
_LEGEND_BELOW = 0.5  # inches
_MANY_POINTS = 1000  # above which points cover each other, and are counted instead


class Model(Protocol):
    """What a decision boundary needs of a trained network: `fastnet.Network` has it."""

    @property
    def classes(self) -> NDArray | None:
        """Labels in the order of the outputs; None for values."""
        ...

    def predict(self, X: Any) -> NDArray:
        """Labels or values of samples."""
        ...

    def predict_proba(self, X: Any) -> NDArray:
        """Probabilities (N, K) of samples."""
        ...


def plot_boundary(network: Model, table: Table, ax: Axes | None = None) -> Axes:
    """Draw what a classifier of two features makes of every point of the plane, and the data on top.

    Parameters
    ----------
    network : Model
        Trained, with class labels.
    table : Table
        Of two features.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        The data do not have two features, or the network has no classes.
    MissingPackageError
        matplotlib is not installed.
    """
    classes = network.classes
    if table.X.shape[1] != 2 or classes is None:
        raise DataError("a decision boundary is drawn for trained classifiers of two features")
    if ax is None:
        ax = new_figure(7.4, 4.2 + 0.2 * (len(classes) + 1)).subplots()
    sides = _sides(table.X if table.X_test is None else np.concatenate([table.X, table.X_test]))
    grid = np.stack(np.meshgrid(*sides), axis=-1)  # (R, R, 2)
    probabilities = np.reshape(network.predict_proba(grid.reshape(-1, 2)), (*grid.shape[:2], -1))  # (R, R, K)
    _draw_probabilities(ax, sides, probabilities, classes)
    parts = _parts(network, table)
    dots = [_draw_dots(ax, part, classes) for part in parts]
    rings = _draw_rings(ax, np.concatenate([part.x[part.wrong] for part in parts]))
    names = table.feature_names or ("feature 0", "feature 1")
    ax.set(xlabel=names[0], ylabel=names[1])
    ax.spines[:].set_color(PALE)
    title(ax, ", ".join(f"{np.sum(~part.wrong):,} of {len(part.y):,} {part.name} points right" for part in parts))
    _explain_below(ax, [*dots[0], *rings, *chain.from_iterable(dots[1:])], n_columns=len(parts))
    return ax


class _Part(NamedTuple):
    name: str
    marker: str
    x: NDArray
    y: NDArray
    wrong: NDArray[np.bool_]


def _parts(network: Model, table: Table) -> list[_Part]:
    parts = [_Part("training", "o", table.X, table.y, network.predict(table.X) != table.y)]
    if table.X_test is not None and table.y_test is not None:
        wrong = network.predict(table.X_test) != table.y_test
        parts.append(_Part("held-out", "D", table.X_test, table.y_test, wrong))
    return parts


def _sides(x: NDArray) -> list[NDArray[np.float64]]:
    """Coordinates (R,) along both axes, a little beyond the data."""
    low, high = x.min(axis=0).astype(float), x.max(axis=0).astype(float)
    margin = 0.15 * np.where(high > low, high - low, 1.0)
    return [np.linspace(*ends, _GRID_POINTS) for ends in zip(low - margin, high + margin, strict=True)]


def _draw_probabilities(ax: Axes, sides: list[NDArray], probabilities: NDArray, classes: NDArray) -> None:
    """Shade the plane by probability (two classes) or by the likeliest class, and draw the borders between them."""
    if len(classes) == 2:
        scale = shades(_tint(class_colour(0)), "white", _tint(class_colour(1)))
        shading = ax.contourf(*sides, probabilities[..., 1], levels=np.linspace(0, 1, 11), cmap=scale)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        bar = ax.figure.colorbar(shading, ax=ax, label=f"probability of class {classes[1]}", ticks=ticks)
        bar.outline.set_edgecolor(PALE)
        _draw_border(ax, sides, probabilities[..., 1] - 0.5)
        return
    for index in range(len(classes)):
        ahead = probabilities[..., index] - np.delete(probabilities, index, axis=2).max(axis=2)  # of all others
        ax.contourf(*sides, ahead, levels=[0, np.inf], colors=[_tint(class_colour(index))])
        _draw_border(ax, sides, ahead)


def _draw_border(ax: Axes, sides: list[NDArray], heights: NDArray) -> None:
    """The line at height zero, if there is one: matplotlib warns of lines that are nowhere to be seen."""
    if heights.min() < 0 < heights.max():
        ax.contour(*sides, heights, levels=[0], colors=INK, linewidths=1.2)


def _tint(colour: str) -> str:
    """A light version of a colour, on which points of the colour itself stand out."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = (0.55 + 0.45 * channel for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def _draw_dots(ax: Axes, part: _Part, classes: NDArray) -> list[PathCollection]:
    """Draw the points of one part of the data, class by class."""
    style: dict[str, Any] = {"marker": part.marker, "edgecolors": "white", "linewidths": 0.7, "s": 26}
    return [
        ax.scatter(*part.x[part.y == label].T, label=f"class {label}, {part.name}", color=class_colour(index), **style)
        for index, label in enumerate(classes)
    ]


def _draw_rings(ax: Axes, wrong: NDArray) -> list[PathCollection]:
    """Ring the points that are taken for another class."""
    style: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "linewidths": 1, "s": 60}
    return [ax.scatter(*wrong.T, label="wrong", **style)] if len(wrong) else []


def _explain_below(ax: Axes, handles: list[PathCollection], n_columns: int) -> None:
    """A legend below the label of the x axis, which is as far from the axes however tall they are."""
    from matplotlib.transforms import ScaledTranslation

    below = ax.transAxes + ScaledTranslation(0, -_LEGEND_BELOW, ax.figure.dpi_scale_trans)
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=below,
        ncols=n_columns,
        frameon=False,
        fontsize=9,
        borderaxespad=0,
    )


def plot_predictions(
    y_true: ArrayLike, y_pred: ArrayLike, ax: Axes | None = None, *, described_as: str = "values"
) -> Axes:
    """Draw predicted against true values of a regression; where they agree they lie on the line.

    Parameters
    ----------
    y_true, y_pred : array-like (N,) or (N, C)
        Of several outputs, all are drawn alike.
    ax : Axes, optional
    described_as : str
        What the title calls them.

    Returns
    -------
    Axes

    Raises
    ------
    MissingPackageError
        matplotlib is not installed.
    """
    from sklearn.metrics import r2_score

    true, predicted = np.ravel(y_true).astype(float), np.ravel(y_pred).astype(float)
    if ax is None:
        ax = new_figure(5.2, 4.6).subplots()
    if len(true) > _MANY_POINTS:
        cells = ax.hexbin(
            true,
            predicted,
            gridsize=50,
            extent=_extent(true, predicted),
            mincnt=1,
            cmap=shades("#d6e6f2", BLUE, "#002b45"),
            linewidths=0.2,
        )
        ax.figure.colorbar(cells, ax=ax, label="samples").outline.set_edgecolor(PALE)
    else:
        ax.scatter(true, predicted, s=14, color=BLUE, alpha=0.6, linewidths=0)
    ax.axline(
        (true.min(), true.min()), slope=1, color=VERMILLION, linewidth=1.4, linestyle=DASHES, label="predicted = true"
    )
    ax.legend(loc="lower right", frameon=False)
    ax.set(xlabel="true value", ylabel="predicted value")
    ax.locator_params("x", nbins=5)
    tidy(ax)
    title(ax, f"{len(true):,} {described_as}, R² = {r2_score(true, predicted):.3f}")
    return ax


def _extent(true: NDArray, predicted: NDArray) -> tuple[float, float, float, float] | None:
    """Where cells lie: over the true values both ways, so that they have a height even where predictions are alike."""
    if true.min() == true.max():
        return None
    both = np.concatenate([true, predicted])
    return true.min(), true.max(), both.min(), both.max()
