"""The loop that drives a plan: batches, learning rates, rounds, divergence, interrupts, checkpoints."""

# Legend: N samples, P parameters, S steps of one call of the plan.

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.interface import StepMetrics, TrainingPlan
from fastnet.callbacks import Callback
from fastnet.data import Dataset, is_sparse
from fastnet.errors import DivergenceError, FileFormatError
from fastnet.history import History
from fastnet.optimizers import CosineDecay, learning_rates, optimizer_to_dict
from fastnet.parameters import Parameters
from fastnet.persistence import load_arrays, save_arrays
from fastnet.run_settings import RunSettings
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["TrainingRun"]

# How long the plan may work before Ctrl-C, callbacks and progress are looked at again.
SECONDS_PER_CALL = 0.2

_CHECKPOINT = "fastnet.checkpoint/1"
_NETWORK_DEFAULTS = {field.name: field.default for field in fields(NetworkSpec) if field.default is not MISSING}

_LISTS_OF_HISTORY = tuple(field.name for field in fields(History) if field.default_factory is list)

logger = logging.getLogger("fastnet.training")

Evaluate = Callable[[Parameters], dict[str, float]]


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far a run is: what belongs together, replaced as a whole, so that Ctrl-C never finds one without the other.

    Attributes
    ----------
    step : int
        Updates made.
    parameters : Parameters
    optimizer_state : dict of str to ndarray
        As ``TrainingPlan.read_state`` returns it.
    epoch_sums : ndarray (4,)
        Loss times weight, weight, correct predictions and samples of the epoch so far.
    n_entries : dict of str to int
        Length of each list of the history. An interrupt may leave more entries there.
    round_ended : bool
        False from an update until the validation and the callbacks that end its round are done.
    callback_states : list of dict
        Of callbacks with state, when the last round ended.
    stop_reason : str
        Empty, or what a callback said.
    """

    step: int
    parameters: Parameters
    optimizer_state: dict[str, NDArray]
    epoch_sums: NDArray[np.float64]
    n_entries: dict[str, int]
    round_ended: bool = True
    callback_states: Sequence[dict[str, NDArray]] = ()
    stop_reason: str = ""


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
        self._reached = _Reached(0, plan.read_parameters(), plan.read_state(), np.zeros(4), self._count_entries())

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
            n_entries=self._count_entries(),
            round_ended=False,
        )

    def _count_entries(self) -> dict[str, int]:
        return {name: len(getattr(self.history, name)) for name in _LISTS_OF_HISTORY}

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
            n_entries=self._count_entries(),
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
            for callback in self._callbacks_with_state
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
        reached = self._reached
        tensors = {"parameters": reached.parameters.flat}
        tensors |= {f"state/{name}": array for name, array in reached.optimizer_state.items()}
        for index, state in enumerate(reached.callback_states):
            tensors |= {f"callback/{index}/{name}": array for name, array in state.items()}
        history = asdict(self.history) | {"n_steps": reached.step, "stop_reason": reached.stop_reason}
        header = {
            "identity": self.identity,
            "epoch_sums": reached.epoch_sums.tolist(),
            "step": reached.step,
            "round_ended": reached.round_ended,
            "first_epoch": self._settings.first_epoch,
            "history": history | {name: history[name][:length] for name, length in reached.n_entries.items()},
        }
        save_arrays(path, _CHECKPOINT, header, tensors)

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
        header, tensors = load_arrays(path, _CHECKPOINT)
        written = header["identity"]
        # What the description of a network has gained since the file was written was at its default then.
        written["network"] = _NETWORK_DEFAULTS | written["network"]
        different = [name for name, value in self.identity.items() if written.get(name) != value]
        if different:
            raise FileFormatError(
                f"{path}: this is the checkpoint of another fit, which differs in its {', '.join(different)}: "
                "give it what it was started with, or start anew without it"
            )
        if header["step"] > self.n_steps:
            raise FileFormatError(f"{path}: {header['step']} steps are done already, and {self.n_steps} were asked for")
        self.parameters.flat[:] = tensors["parameters"]
        self._plan.write_parameters(self.parameters)
        self._plan.write_state(_with_prefix(tensors, "state/"))
        for index, callback in enumerate(self._callbacks_with_state):
            callback.write_state(_with_prefix(tensors, f"callback/{index}/"))
        self._settings = replace(self._settings, first_epoch=header["first_epoch"])
        self.resumed = True
        epoch_sums = np.array(header["epoch_sums"])
        self._restore_history(header["history"], header["step"], epoch_sums)
        self._reached = _Reached(
            step=header["step"],
            parameters=self.parameters,
            optimizer_state=self._plan.read_state(),
            epoch_sums=epoch_sums,
            n_entries=self._count_entries(),
            round_ended=header.get("round_ended", True),  # the first checkpoints had none inside of a round
            stop_reason=self.history.stop_reason,
        )

    def _restore_history(self, recorded: dict[str, Any], step: int, epoch_sums: NDArray[np.float64]) -> None:
        this_machine = ("backend_name", "backend_reason", "backend_detail", "device_name")
        for name, value in recorded.items():
            if name not in this_machine:
                setattr(self.history, name, value)
        n_epochs, is_within_epoch = divmod(step, self._steps_per_epoch)
        if is_within_epoch:
            # A fit that ends there has an entry for part of the epoch, and one that was interrupted has none.
            for entries in (self.history.loss, self.history.learning_rate, self.history.accuracy):
                del entries[n_epochs:]
            if step == self.n_steps:
                self._record_epoch(epoch_sums, float(self._rates(step - 1, step)[0]))

    @property
    def _callbacks_with_state(self) -> list[Callback]:
        return [callback for callback in self._callbacks if type(callback).read_state is not Callback.read_state]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a run must share with a checkpoint to go on from it, as JSON gives it back."""
        network = asdict(self._spec.network)
        return {
            "network": {name: list(value) if isinstance(value, tuple) else value for name, value in network.items()},
            "optimizer": optimizer_to_dict(self._spec.optimizer),
            "batch_size": self._spec.batch_size,
            "n_steps": self.n_steps if isinstance(self._spec.optimizer.learning_rate, CosineDecay) else None,
            "seed": self._settings.seed,
            "shuffle": self._settings.shuffle,
            "data": _data_digest(self._dataset),
            "callbacks": [type(callback).__name__ for callback in self._callbacks_with_state],
        }


def _add_in_order(sums: NDArray[np.float64], summands: NDArray[np.float64]) -> NDArray[np.float64]:
    """`sums` (K,) and `summands` (S, K), added one step after the other.

    How many steps a call has depends on the clock, and ``np.sum`` and ``@`` group what they add by how much there is.
    """
    return np.add.accumulate(np.vstack([sums, summands]))[-1]


def _with_prefix(tensors: dict[str, NDArray], prefix: str) -> dict[str, NDArray]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _data_digest(dataset: Dataset) -> str:
    x = dataset.x
    arrays = [x.data, x.indices, x.indptr] if is_sparse(x) else [x]
    arrays += [dataset.targets, *([] if dataset.sample_weight is None else [dataset.sample_weight])]
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
