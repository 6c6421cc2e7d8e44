"""What all pictures share: colours, fonts, frames. Nothing here touches pyplot or its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastnet.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "DASHES",
    "INK",
    "PALE",
    "VERMILLION",
    "class_colour",
    "new_figure",
    "pyplot_figure",
    "shades",
    "tidy",
    "title",
]

# Okabe and Ito (2008): colours that people with any colour vision can tell apart.
BLUE, VERMILLION = "#0072B2", "#D55E00"
_CLASS_COLOURS = (VERMILLION, BLUE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
INK, PALE = "#222222", "#cccccc"
DASHES = (0, (4, 1.5))

# By its own name: on the public index "fastnet", and with it "fastnet[plot]", is another project.
_INSTALL = "to draw pictures, install matplotlib: pip install 'matplotlib>=3.8'"


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, that no window and no pyplot knows of.

    Raises
    ------
    MissingPackageError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(_INSTALL) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def pyplot_figure(width: float, height: float) -> Figure:
    """A figure, in inches, that pyplot shows.

    Raises
    ------
    MissingPackageError
        matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingPackageError(_INSTALL) from error
    return plt.figure(figsize=(width, height), layout="constrained")


def title(ax: Axes, text: str) -> None:
    """A title that says what is seen."""
    ax.set_title(text, fontsize=11, color=INK, loc="left")


def tidy(ax: Axes) -> None:
    """Faint lines to read values from, and no frame on the sides that have no scale."""
    ax.grid(color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(PALE)
    ax.tick_params(color=PALE)


def shades(*colours: str) -> Colormap:
    """A scale from the first colour to the last."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", list(colours))


def class_colour(index: int) -> str:
    """The colour of a class; they repeat after seven."""
    return _CLASS_COLOURS[index % len(_CLASS_COLOURS)]
