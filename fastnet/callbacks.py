"""What can watch a fit, stop it, and keep what it has reached.

A callback is an object with any of the methods of :class:`Callback`, or simply a function of the run, which is called
at the end of each round and stops the fit by returning True.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import SpecError, require_count, unknown_name

if TYPE_CHECKING:
    from fastnet.training import TrainingRun

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "ProgressBar", "as_callbacks"]


class Callback:
    """Base of callbacks: every method does nothing.

    The `run` passed to each is a :class:`fastnet.training.TrainingRun`: read ``run.step``, ``run.n_steps``,
    ``run.history`` and ``run.parameters``. A round is an epoch, or with the full batch some steps (``validate_every``).
    """

    runs_last = False

    @property
    def name(self) -> str:
        """What ``history.stop_reason`` calls it."""
        return type(self).__name__

    def on_start(self, run: TrainingRun) -> None:
        """Called before the first step, of a resumed run too."""

    def on_progress(self, run: TrainingRun) -> None:
        """Called several times a second, between steps."""

    def on_round_end(self, run: TrainingRun) -> bool | None:
        """Called after each round, its validation done; True stops the fit."""

    def on_interrupt(self, run: TrainingRun) -> None:
        """Called when Ctrl-C ends the fit, before :meth:`on_end`; `run` is where its last step has brought it."""

    def on_end(self, run: TrainingRun) -> None:
        """Called once at the end, also after an interrupt; what is written to ``run.parameters.flat`` is kept."""

    def read_state(self) -> dict[str, NDArray]:
        """What a checkpoint must keep for a resumed run to go on as this one would have."""
        return {}

    def write_state(self, state: dict[str, NDArray]) -> None:
        """Restore what :meth:`read_state` returned."""


class FunctionCallback(Callback):
    """A plain function of the run, called at the end of each round."""

    def __init__(self, function: Callable[[TrainingRun], bool | None]) -> None:
        self._function = function

    @property
    def name(self) -> str:
        """The function's own name."""
        return getattr(self._function, "__name__", type(self._function).__name__)

    def on_round_end(self, run: TrainingRun) -> bool | None:
        """See :meth:`Callback.on_round_end`."""
        return self._function(run)


def as_callbacks(callbacks: Iterable[Callback | Callable[[TrainingRun], bool | None]]) -> list[Callback]:
    """Callbacks in the order in which they run: as given, except that checkpoints see what the others have done.

    Raises
    ------
    SpecError
        One is neither a callback nor a function.
    """
    if not isinstance(callbacks, Iterable):
        raise SpecError(f"callbacks must be a list of callbacks, got {callbacks!r}")
    wrapped = []
    for callback in callbacks:
        if not isinstance(callback, Callback) and not callable(callback):
            raise SpecError(f"a callback must be a fastnet.callbacks.Callback or a function, got {callback!r}")
        wrapped.append(callback if isinstance(callback, Callback) else FunctionCallback(callback))
    return sorted(wrapped, key=lambda callback: callback.runs_last)


class EarlyStopping(Callback):
    """Stop when a figure has not improved for some rounds, and restore the parameters of the best round.

    Parameters
    ----------
    patience : int
        Rounds without improvement after which to stop.
    min_delta : float
        By how much the figure must improve to count.
    monitor : {"validation_loss", "validation_accuracy", "loss", "accuracy"}
        A list of the history. The two of training belong to the parameters before the last update.

    Attributes
    ----------
    best : float
        The best figure so far.

    Raises
    ------
    SpecError
        `patience` is below one or `monitor` unknown; from ``fit``, when there is nothing to monitor.
    """

    _MONITORS = ("validation_loss", "validation_accuracy", "loss", "accuracy")

    def __init__(self, patience: int = 10, min_delta: float = 0.0, monitor: str = "validation_loss") -> None:
        require_count("EarlyStopping: patience", patience)
        if not 0 <= min_delta < np.inf:
            raise SpecError(f"EarlyStopping: min_delta must be finite and not negative, got {min_delta!r}")
        if monitor not in self._MONITORS:
            raise unknown_name("monitor", monitor, self._MONITORS)
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self._reset()

    def _reset(self) -> None:
        self.best = np.inf if self.monitor.endswith("loss") else -np.inf
        self._rounds_without_improvement = 0
        self._best_flat: NDArray | None = None

    def on_start(self, run: TrainingRun) -> None:
        """Forget an earlier fit, unless this one resumes it."""
        if not run.resumed:
            self._reset()

    def on_round_end(self, run: TrainingRun) -> bool:
        """See :meth:`Callback.on_round_end`."""
        values = getattr(run.history, self.monitor)
        if not values:
            raise SpecError(
                f"EarlyStopping: there is no {self.monitor} to monitor: "
                "pass X_val and y_val or validation_fraction to fit, or another monitor"
            )
        sign = 1.0 if self.monitor.endswith("loss") else -1.0
        if sign * values[-1] < sign * self.best - self.min_delta:
            self.best = values[-1]
            self._rounds_without_improvement = 0
            self._best_flat = run.parameters.flat.copy()
        else:
            self._rounds_without_improvement += 1
        return self._rounds_without_improvement >= self.patience

    def on_end(self, run: TrainingRun) -> None:
        """Restore the best parameters."""
        if self._best_flat is not None:
            run.parameters.flat[:] = self._best_flat

    def read_state(self) -> dict[str, NDArray]:
        """See :meth:`Callback.read_state`."""
        state = {"best": np.array(self.best), "rounds": np.array(self._rounds_without_improvement)}
        return state if self._best_flat is None else state | {"best_flat": self._best_flat}

    def write_state(self, state: dict[str, NDArray]) -> None:
        """See :meth:`Callback.write_state`."""
        self.best = float(state["best"])
        self._rounds_without_improvement = int(state["rounds"])
        self._best_flat = state.get("best_flat")


class Checkpoint(Callback):
    """Write the whole state of the fit to a file now and then; ``fit(..., resume_from=path)`` goes on from there.

    The resumed run ends with the same bits as one that was never stopped. The file is replaced atomically: whenever the
    process is killed, it is a complete checkpoint.

    Parameters
    ----------
    path : path-like
    every_seconds : float
        Time in seconds between checkpoints; they are written at the ends of rounds. The last round is always written,
        and so is the last step when Ctrl-C ends the fit.

    Attributes
    ----------
    resumed_at : int or None
        The step from which the last fit went on; None if it began anew.
    """

    runs_last = True

    def __init__(self, path: str | os.PathLike[str], every_seconds: float = 30.0) -> None:
        self.path = path
        self.every_seconds = every_seconds
        self.resumed_at: int | None = None
        self._written = -np.inf

    def on_start(self, run: TrainingRun) -> None:
        """Find out before training whether this run can be written down: a schedule of your own cannot."""
        _ = run.identity
        self.resumed_at = run.step if run.resumed else None
        self._written = -np.inf

    def on_round_end(self, run: TrainingRun) -> None:
        """See :meth:`Callback.on_round_end`."""
        finished = run.step == run.n_steps or bool(run.history.stop_reason)
        if finished or time.monotonic() - self._written >= self.every_seconds:
            run.save_checkpoint(self.path)
            self._written = time.monotonic()

    def on_interrupt(self, run: TrainingRun) -> None:
        """See :meth:`Callback.on_interrupt`."""
        run.save_checkpoint(self.path)


class ProgressBar(Callback):
    """A progress bar on standard error; where that is not a terminal, a plain line every ten seconds."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._last_line = 0.0

    def on_start(self, run: TrainingRun) -> None:
        """See :meth:`Callback.on_start`."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        console = Console(stderr=True)
        self._last_line = time.monotonic()
        if not console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),  # the only column that may shrink
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("steps"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("training", total=run.n_steps, completed=run.step, figures="")

    def on_progress(self, run: TrainingRun) -> None:
        """See :meth:`Callback.on_progress`."""
        if self._progress is not None:
            room = self._progress.console.width - len(f"training ---- {run.n_steps}/{run.n_steps} steps  -:--:--")
            self._progress.update(self._task, completed=run.step, figures=_figures(run, room))
        elif time.monotonic() - self._last_line >= 10:
            self._last_line = time.monotonic()
            print(f"step {run.step} of {run.n_steps}  {_figures(run)}", file=sys.stderr)

    def on_end(self, run: TrainingRun) -> None:  # noqa: ARG002
        """See :meth:`Callback.on_end`."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _figures(run: TrainingRun, room: float = np.inf) -> str:
    """What a line of `room` characters has room for: the held-out accuracy above all, then the loss."""
    history = run.history
    parts = [f"loss {history.loss[-1]:.4f}"] if history.loss else []
    if history.accuracy:
        parts.append(f"accuracy {history.accuracy[-1]:.4f}")
    if history.validation_accuracy:
        parts.append(f"held out {history.validation_accuracy[-1]:.4f}")
    while parts and len("  ".join(parts)) > room:
        parts.pop(max(0, len(parts) - 2))
    return "  ".join(parts)
