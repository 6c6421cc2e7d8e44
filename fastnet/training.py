"""The loop that drives a plan: batches, learning rates, rounds, divergence, interrupts, checkpoints."""

# Legend: N samples, P parameters, S steps of one call of the plan.

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.interface import StepMetrics, TrainingPlan
from fastnet.callbacks import Callback
from fastnet.checkpoints import Reached, count_entries, identify, load_run, save_run, with_state
from fastnet.data import Dataset
from fastnet.errors import DivergenceError, FileFormatError
from fastnet.history import History
from fastnet.optimizers import learning_rates
from fastnet.parameters import Parameters
from fastnet.run_settings import RunSettings
from fastnet.spec import TrainingSpec

__all__ = ["TrainingRun"]

# How long the plan may work before Ctrl-C, callbacks and progress are looked at again.
SECONDS_PER_CALL = 0.2

logger = logging.getLogger("fastnet.training")

Evaluate = Callable[[Parameters], dict[str, float]]


class TrainingRun:
    """One fit in progress; what callbacks are given.

    Parameters
    ----------
    spec : TrainingSpec
    plan : TrainingPlan
    dataset : Dataset
    settings : RunSettings
    history : History
        Filled as the run goes on.
    evaluate : callable or None
        Maps parameters to ``{"loss": ..., "accuracy": ...}`` on held-out data.
    callbacks : sequence of Callback

    Attributes
    ----------
    step : int
        Updates made so far.
    n_steps : int
        Updates to make.
    parameters : Parameters
        The parameters after `step` updates, always finite.
    history : History
    resumed : bool
        Whether this run goes on from a checkpoint.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan,
        dataset: Dataset,
        settings: RunSettings,
        history: History,
        evaluate: Evaluate | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._dataset = dataset
        self._settings = settings
        self._evaluate = evaluate
        self._callbacks = callbacks
        self._steps_per_epoch = spec.n_steps(dataset.n_samples)
        self._steps_per_call = 1
        self._cached_order = (-1, np.empty(0, np.int64))
        self.history = history
        self.history.steps_per_entry = self._steps_per_epoch
        self.history.backend_detail = plan.detail
        self.n_steps = settings.n_steps
        self.resumed = False
        self._reached = Reached(0, plan.read_parameters(), plan.read_state(), np.zeros(4), count_entries(history))

    def execute(self) -> None:
        """Train to the end, until a callback says stop, or until an interrupt, which is swallowed and recorded.

        Raises
        ------
        DivergenceError
            The loss or a parameter stopped being finite; `parameters` are those before that update.
        """
        self._start = time.perf_counter() - self.history.seconds
        try:
            self._notify("on_start")
            self._make_rounds()
            self.history.stop_reason = self.history.stop_reason or "completed"
        except KeyboardInterrupt:
            self.history.stop_reason = "interrupted"
            logger.warning("interrupted after %d of %d steps; the last weights are kept", self.step, self.n_steps)
        finally:
            self._record_progress()
            self._notify_end()

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._reached.step

    @property
    def parameters(self) -> Parameters:
        """The parameters after `step` updates, always finite."""
        return self._reached.parameters

    @property
    def n_epochs_seen(self) -> int:
        """Epochs begun so far by this fit and those before it."""
        return self._settings.first_epoch - (-self.step // self._steps_per_epoch)

    def _make_rounds(self) -> None:
        self._reached = replace(self._reached, callback_states=self._read_callbacks())
        try:
            while (self.step < self.n_steps or not self._reached.round_ended) and not self.history.stop_reason:
                self._advance_to(self._next_round_end())
                self._record_progress()
                self._end_round()
        except KeyboardInterrupt:
            self._record_progress()
            self._notify("on_interrupt")
            raise

    def _next_round_end(self) -> int:
        """The step at which a round ends next: this one, if an interrupt came before the end of its round was done."""
        every = self._settings.steps_per_round
        ended = self.step if self._reached.round_ended else self.step - 1
        return min((ended // every + 1) * every, self.n_steps)

    def _record_progress(self) -> None:
        self.history.n_steps = self.step
        self.history.seconds = time.perf_counter() - self._start

    def _advance_to(self, end: int) -> None:
        """Make the updates up to step `end`, in calls of the plan that are short enough to stay responsive."""
        while self.step < end:
            call_end = min(end, self.step + self._steps_per_call)
            if self._spec.batch_size:
                call_end = min(call_end, (self.step // self._steps_per_epoch + 1) * self._steps_per_epoch)
            start = time.perf_counter()
            self._call_plan(call_end)
            seconds = time.perf_counter() - start
            if seconds < 0.5 * SECONDS_PER_CALL:
                self._steps_per_call *= 2
            elif seconds > 2 * SECONDS_PER_CALL:
                self._steps_per_call = max(1, self._steps_per_call // 2)
            self._notify("on_progress")

    def _call_plan(self, end: int) -> None:
        rates, order = self._rates(self.step, end), self._order(self.step, end)
        metrics = self._plan.run(rates, order)
        if end < self.n_steps:
            self._order(end, end)  # the next epoch's is drawn while a device may still be at work
        parameters = self._plan.read_parameters()
        bad = np.flatnonzero(~np.isfinite(metrics.loss))
        if len(bad) or not parameters.all_finite():
            start = self.step
            self._go_back(int(bad[0]) if len(bad) else len(rates))
            raise DivergenceError(
                f"training diverged: the loss or a weight stopped being finite in step {self.step + 1} of "
                f"{self.n_steps}; the network keeps the weights it had before. Try a smaller learning rate "
                f"(it was {rates[self.step - start]:.3g}), or scale the features",
                step=self.step,
            )
        self._accept(parameters, metrics, rates, order)

    def _go_back(self, n_updates: int) -> None:
        """Make the first `n_updates` of a call again, up to the last finite parameters, found by halving the stride.

        How far that is does not depend on where the call began, which depends on the time that calls take.
        """
        stride = n_updates
        while stride:
            self._plan.write_parameters(self.parameters)
            self._plan.write_state(self._reached.optimizer_state)
            end = self.step + stride
            rates, order = self._rates(self.step, end), self._order(self.step, end)
            metrics = self._plan.run(rates, order)
            parameters = self._plan.read_parameters()
            if parameters.all_finite():
                self._accept(parameters, metrics, rates, order)
                n_updates -= len(rates)
                stride = min(stride, n_updates)
            else:
                stride //= 2

    def _accept(self, parameters: Parameters, metrics: StepMetrics, rates: NDArray, order: NDArray | None) -> None:
        epoch_sums = self._record(metrics, rates, order)
        self._reached = replace(
            self._reached,
            step=self.step + len(rates),
            parameters=parameters,
            optimizer_state=self._plan.read_state(),
            epoch_sums=epoch_sums,
            n_entries=count_entries(self.history),
            round_ended=False,
        )

    def _rates(self, start: int, end: int) -> NDArray[np.float64]:
        return learning_rates(self._spec.optimizer.learning_rate, np.arange(start, end), self.n_steps)

    def _order(self, start: int, end: int) -> NDArray[np.int64] | None:
        """Sample indices of the steps from `start` to `end`, which lie in one epoch; None for the full batch."""
        if self._spec.batch_size is None:
            return None
        epoch, first = divmod(start, self._steps_per_epoch)
        last = first + end - start
        return self._epoch_order(epoch)[first * self._spec.batch_size : last * self._spec.batch_size]

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if self._cached_order[0] != epoch:
            self._cached_order = (epoch, self._settings.epoch_order(epoch, self._dataset.n_samples))
        return self._cached_order[1]

    def _record(self, metrics: StepMetrics, rates: NDArray, order: NDArray | None) -> NDArray[np.float64]:
        """Add to the history, and return the sums (4,) of the epoch so far."""
        sums = self._reached.epoch_sums.copy()
        if order is None:
            self.history.loss.extend(metrics.loss.tolist())
            self.history.learning_rate.extend(rates.tolist())
            if self._spec.task != "regression":
                self.history.accuracy.extend((metrics.n_correct / self._dataset.n_samples).tolist())
            return sums
        weights = self._batch_weights(order, len(rates))
        sums[:2] = _add_in_order(sums[:2], np.column_stack([metrics.loss * weights, weights]))
        sums[2:] += metrics.n_correct.sum(), len(order)  # whole numbers are exact in any order
        steps_done = self.step + len(rates)
        epoch_is_done = steps_done % self._steps_per_epoch == 0
        if epoch_is_done or steps_done == self.n_steps:
            self._record_epoch(sums, float(rates[-1]))
        return np.zeros_like(sums) if epoch_is_done else sums

    def _record_epoch(self, sums: NDArray[np.float64], rate: float) -> None:
        loss, weight, n_correct, n_seen = sums.tolist()
        is_mean = self._spec.network.reduction == "mean"
        self.history.loss.append(loss / weight if is_mean and weight else loss)
        self.history.learning_rate.append(rate)
        if self._spec.task != "regression":
            self.history.accuracy.append(n_correct / n_seen)

    def _batch_weights(self, order: NDArray, n_steps: int) -> NDArray[np.float64]:
        """By how much the loss of each step (S,) counts in the epoch's: its samples' weights, or 1 for sums."""
        if self._spec.network.reduction == "sum":
            return np.ones(n_steps)
        starts = np.arange(n_steps) * (self._spec.batch_size or 0)
        if self._dataset.sample_weight is None:
            return np.diff([*starts, len(order)]).astype(np.float64)
        return np.add.reduceat(self._dataset.sample_weight[order].astype(np.float64), starts)

    def _end_round(self) -> None:
        if self._evaluate is not None:
            self._validate(self._evaluate)
        self._ask_whether_to_stop([callback for callback in self._callbacks if not callback.runs_last])
        self._reached = replace(
            self._reached,
            n_entries=count_entries(self.history),
            round_ended=True,
            callback_states=self._read_callbacks(),
            stop_reason=self.history.stop_reason,
        )
        self._ask_whether_to_stop([callback for callback in self._callbacks if callback.runs_last])

    def _validate(self, evaluate: Evaluate) -> None:
        figures = evaluate(self.parameters)
        self.history.validation_steps.append(self.step)
        self.history.validation_loss.append(figures["loss"])
        if "accuracy" in figures:
            self.history.validation_accuracy.append(figures["accuracy"])

    def _ask_whether_to_stop(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if callback.on_round_end(self):
                self.history.stop_reason = self.history.stop_reason or f"stopped by {callback.name}"

    def _read_callbacks(self) -> list[dict[str, NDArray]]:
        return [
            {name: np.array(array) for name, array in callback.read_state().items()}
            for callback in with_state(self._callbacks)
        ]

    def _notify(self, event: str) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(self)

    def _notify_end(self) -> None:
        """Tell every callback, whatever becomes of the others: one may have a terminal to restore."""
        errors = []
        for callback in self._callbacks:
            try:
                callback.on_end(self)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write all that is needed to go on from the last step, atomically.

        Whether the end of its round is to be done again then, the file says: a callback that `runs_last` finds it done.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        save_run(path, self.identity, self._reached, self.history, self._settings.first_epoch)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint of the same network, data, optimizer and callbacks.

        More steps may be asked for, unless the learning rate depends on their number.

        Raises
        ------
        FileFormatError
            The file is damaged, or belongs to another run; the message says in what it differs.
        OSError
            The file cannot be read.
        """
        saved = load_run(path, self.identity, self.parameters.layout)
        reached = saved.reached
        if reached.step > self.n_steps:
            raise FileFormatError(f"{path}: {reached.step} steps are done already, and {self.n_steps} were asked for")
        self._plan.write_parameters(reached.parameters)
        self._plan.write_state(reached.optimizer_state)
        for callback, state in zip(with_state(self._callbacks), reached.callback_states, strict=True):
            callback.write_state(state)
        self._settings = replace(self._settings, first_epoch=saved.first_epoch)
        self.resumed = True
        self._restore_history(saved.history, reached)
        self._reached = replace(reached, n_entries=count_entries(self.history))

    def _restore_history(self, recorded: dict[str, Any], reached: Reached) -> None:
        this_machine = ("backend_name", "backend_reason", "backend_detail", "device_name")
        for name, value in recorded.items():
            if name not in this_machine:
                setattr(self.history, name, value)
        n_epochs, is_within_epoch = divmod(reached.step, self._steps_per_epoch)
        if is_within_epoch:
            # A fit that ends there has an entry for part of the epoch, and one that was interrupted has none.
            for entries in (self.history.loss, self.history.learning_rate, self.history.accuracy):
                del entries[n_epochs:]
            if reached.step == self.n_steps:
                self._record_epoch(reached.epoch_sums, float(self._rates(reached.step - 1, reached.step)[0]))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a run must share with a checkpoint to go on from it, as JSON gives it back."""
        return identify(self._spec, self._dataset, self._settings, self._callbacks)


def _add_in_order(sums: NDArray[np.float64], summands: NDArray[np.float64]) -> NDArray[np.float64]:
    """`sums` (K,) and `summands` (S, K), added one step after the other.

    How many steps a call has depends on the clock, and ``np.sum`` and ``@`` group what they add by how much there is.
    """
    return np.add.accumulate(np.vstack([sums, summands]))[-1]
