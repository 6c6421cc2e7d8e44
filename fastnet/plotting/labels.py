"""Which classes were taken for which, counted and picture by picture."""

# Legend: N samples, D pixels, K classes.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnet.plotting.style import BLUE, INK, PALE, VERMILLION, new_figure, shades, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_confusion", "plot_images"]

_MANY_CLASSES = 20  # above which a matrix has no room for numbers
_CHARACTER = 0.088  # inches that a digit, or a letter on average, takes at the size of tick labels
_TITLE_WIDTH = 4.0  # inches that the counts of millions of samples take
_LONG_ANSWER = 14  # characters, from which on an answer takes two lines over its image


def plot_confusion(
    y_true: ArrayLike, y_pred: ArrayLike, ax: Axes | None = None, *, described_as: str = "samples"
) -> Axes:
    """Draw how often each class was taken for each other.

    Right answers and mistakes have shades of their own, so that mistakes can be told apart where they are rare.

    Parameters
    ----------
    y_true, y_pred : array-like (N,)
        Labels.
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
    from sklearn.metrics import confusion_matrix

    classes = np.unique(np.concatenate([np.asarray(y_true), np.asarray(y_pred)]))
    n_classes = len(classes)
    counts = confusion_matrix(y_true, y_pred, labels=classes)  # (K, K)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # of each true class
    right = np.eye(n_classes, dtype=bool)
    if ax is None:
        side = max(2.4 + 0.32 * min(n_classes, _MANY_CLASSES), _TITLE_WIDTH) + _CHARACTER * _longest(classes)
        ax = new_figure(side, side + 0.1).subplots()
    for mask, colour, largest in ((right, BLUE, 1.0), (~right, VERMILLION, shares[~right].max(initial=0) or 1.0)):
        ax.imshow(np.where(mask, shares, np.nan), cmap=shades("white", colour), vmin=0, vmax=largest)
        for row, column in np.argwhere(mask & (counts > 0)) if n_classes <= _MANY_CLASSES else ():
            ink = "white" if shares[row, column] > 0.8 * largest else INK
            ax.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8, color=ink)
    _name_classes(ax, classes)
    ax.spines[:].set_color(PALE)
    ax.set(xlabel="predicted class", ylabel="true class")
    title(ax, f"{np.trace(counts):,} of {counts.sum():,} {described_as} right")
    return ax


def _name_classes(ax: Axes, classes: NDArray) -> None:
    """Write the classes along both sides, or every few of them: aslant where level names would overlap."""
    shown = range(0, len(classes), -(-len(classes) // _MANY_CLASSES))
    names = [str(classes[tick]) for tick in shown]
    width = ax.get_window_extent().width / ax.figure.dpi
    overlap = len(names) * (_longest(classes) + 1) * _CHARACTER > width
    aslant: dict[str, Any] = {"rotation": 45, "horizontalalignment": "right", "rotation_mode": "anchor"}
    ax.set_xticks(shown, names, **(aslant if overlap else {}))
    ax.set_yticks(shown, names)
    ax.tick_params(length=0)


def _longest(classes: NDArray) -> int:
    """Characters of the longest name."""
    return max(len(str(name)) for name in classes)


def plot_images(
    X: NDArray,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    image_shape: tuple[int, int],
    *,
    n_rows: int = 4,
    n_columns: int = 8,
    described_as: str = "images",
) -> Figure:
    """Draw a grid of pictures with what each was taken for: mistakes first, up to half of the grid.

    Parameters
    ----------
    X : ndarray (N, D)
    y_true, y_pred : array-like (N,)
        Labels.
    image_shape : tuple of int
        (height, width).
    n_rows, n_columns : int
        Of the grid.
    described_as : str
        What the title calls them.

    Returns
    -------
    Figure

    Raises
    ------
    MissingPackageError
        matplotlib is not installed.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    n_cells = n_rows * n_columns
    wrong, right = np.flatnonzero(y_true != y_pred), np.flatnonzero(y_true == y_pred)
    n_wrong = min(len(wrong), max(n_cells // 2, n_cells - len(right)))
    shown = [*wrong[:n_wrong], *right[: n_cells - n_wrong]]
    figure = new_figure(1.05 * n_columns, 1.25 * n_rows + 0.4)
    cells = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax, sample in zip(cells, shown, strict=False):
        _draw_image(ax, X[sample].reshape(image_shape), y_true[sample], y_pred[sample])
    for ax in cells[len(shown) :]:
        ax.set_axis_off()
    heading = f"{len(right):,} of {len(y_true):,} {described_as} right{_order(n_wrong, len(wrong))}"
    figure.suptitle(heading, fontsize=11, color=INK)
    return figure


def _order(n_shown: int, n_wrong: int) -> str:
    """What a heading says of the mistakes that a grid begins with."""
    if n_shown == 0:
        return ""
    if n_wrong == 1:
        return "; the mistake comes first"
    if n_shown == n_wrong:
        return f"; {'both' if n_wrong == 2 else f'all {n_wrong:,}'} mistakes come first"
    return f"; {n_shown:,} of the {n_wrong:,} mistakes {'comes' if n_shown == 1 else 'come'} first"


def _draw_image(ax: Axes, image: NDArray, true: Any, predicted: Any) -> None:
    is_right = true == predicted
    ax.imshow(image, cmap="gray_r", interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(color=PALE if is_right else VERMILLION, linewidth=1 if is_right else 2.5)
    ax.set_title(_answer(true, predicted), fontsize=9.5, pad=4, color=INK if is_right else VERMILLION)


def _answer(true: Any, predicted: Any) -> str:
    if true == predicted:
        return f"\N{CHECK MARK} {predicted}"
    one, two = f"\N{BALLOT X} {predicted},", f"is {true}"
    return f"{one} {two}" if len(one) + len(two) < _LONG_ANSWER else f"{one}\n{two}"
