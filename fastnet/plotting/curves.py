"""Loss and accuracy over the steps or epochs of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError
from fastnet.history import History
from fastnet.plotting.style import BLUE, DASHES, VERMILLION, new_figure, pyplot_figure, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["history_figure", "plot_history"]

# Minus the logarithm of a probability, or a difference of such. Other losses have the unit of what is predicted.
_IN_NATS = ("cross_entropy", "poisson", "gamma")

_THREE_DECADES = 1000.0  # below which powers of ten alone are too few numbers to read values from


def history_figure(history: History, *, loss: str | None = None) -> Figure:
    """:func:`plot_history` on a figure that no window and no pyplot knows of."""
    figure = new_figure(*_size(history))
    plot_history(history, _panels(figure, history), loss=loss)
    return figure


def _size(history: History) -> tuple[float, float]:
    """Width and height in inches: a panel for the loss, and one for the accuracy if there is one."""
    return (10.0 if history.accuracy else 5.0), 3.6


def _panels(figure: Figure, history: History) -> list[Axes]:
    return list(figure.subplots(1, 2 if history.accuracy else 1, squeeze=False)[0])


def plot_history(history: History, ax: Axes | Sequence[Axes] | None = None, *, loss: str | None = None) -> list[Axes]:
    """Draw the loss and, for classifiers, the accuracy of a fit.

    The loss has a logarithmic scale where it falls to a tenth or less.

    Parameters
    ----------
    history : History
    ax : Axes or sequence of Axes, optional
        Where to draw: the loss on the first, the accuracy on the second if there is one. By default on a new figure of
        pyplot's, which a notebook shows by itself and a script by ``pyplot.show()``.
    loss : str, optional
        What was trained for, as in ``network.spec.loss``: the scale of one in nats says so.

    Returns
    -------
    list of Axes

    Raises
    ------
    DataError
        The history is empty.
    MissingPackageError
        matplotlib is not installed.
    """
    if not history.loss:
        raise DataError("this history is empty: there is nothing to draw before the first step")
    if ax is None:
        ax = _panels(pyplot_figure(*_size(history)), history)
    axes = list(ax) if isinstance(ax, Sequence | np.ndarray) else [ax]

    _draw(axes[0], history, history.loss, history.validation_loss)
    axes[0].set_ylabel("loss (nats)" if loss in _IN_NATS else "loss")
    title(axes[0], f"Loss: from {_four_digits(history.loss[0])} to {_four_digits(history.loss[-1])}")
    if min(history.loss + history.validation_loss) > 0 and max(history.loss) > 10 * min(history.loss):
        _use_logarithms(axes[0], max(history.loss) / min(history.loss))
    if len(axes) > 1 and history.accuracy:
        _draw(axes[1], history, history.accuracy, history.validation_accuracy)
        axes[1].set_ylabel("accuracy (share of samples right)")
        part = "held-out" if history.validation_accuracy else "training"
        title(axes[1], f"Accuracy: {(history.validation_accuracy or history.accuracy)[-1]:.1%} of {part} data right")
    return axes


def _four_digits(value: float) -> str:
    """A number to four significant digits, zeros at the end included."""
    return f"{value:#.4g}".removesuffix(".")


def _use_logarithms(ax: Axes, ratio: float) -> None:
    """A logarithmic scale for values of which the largest is `ratio` times the smallest."""
    from matplotlib.ticker import LogLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < _THREE_DECADES else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")  # its own would write powers of ten beside the plain numbers


def _draw(ax: Axes, history: History, training: list[float], held_out: list[float]) -> None:
    by_step = history.steps_per_entry == 1
    # A step's figure is taken before its update, so the first one stands at 0; an epoch's is over the whole epoch.
    at = np.arange(len(training)) if by_step else _ends_of_epochs(history)
    ax.plot(at, training, color=BLUE, linewidth=1.8, label="training")
    if held_out:
        held_out_at = np.array(history.validation_steps) / history.steps_per_entry
        ax.plot(held_out_at, held_out, color=VERMILLION, linewidth=1.8, linestyle=DASHES, label="held out")
        ax.legend(frameon=False)
    ax.set_xlabel("step" if by_step else "epoch")
    ax.locator_params("x", nbins=6, integer=True)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    tidy(ax)


def _ends_of_epochs(history: History) -> NDArray[np.float64]:
    """Where each epoch ends, in epochs: the last one may have been cut short."""
    n_entries = len(history.loss)
    ends = np.arange(1.0, n_entries + 1)
    n_epochs = history.n_steps / history.steps_per_entry
    if n_entries - 1 < n_epochs < n_entries:  # callbacks see fewer updates, interrupted fits have made more
        ends[-1] = n_epochs
    return ends
