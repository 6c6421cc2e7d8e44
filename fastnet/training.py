"""The loop that drives a plan: batches, learning rates, rounds, divergence, interrupts, checkpoints."""

# Legend: N samples, P parameters, S steps of one call of the plan.

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields, replace
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

logger = logging.getLogger("fastnet")

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
        self._epoch_sums = np.zeros(4)  # loss times weight, weight, correct predictions, samples
        self._cached_order = (-1, np.empty(0, np.int64))
        self.history = history
        self.history.steps_per_entry = self._steps_per_epoch
        self.history.backend_detail = plan.detail
        self.step = 0
        self.n_steps = settings.n_steps
        self.parameters = plan.read_parameters()
        self.resumed = False

    def execute(self) -> None:
        """Train to the end, until a callback says stop, or until an interrupt, which is swallowed and recorded.

        Raises
        ------
        DivergenceError
            The loss or a parameter stopped being finite; `parameters` are those before that update.
        """
        earlier, start = self.history.seconds, time.perf_counter()
        try:
            self._notify("on_start")
            while self.step < self.n_steps and not self.history.stop_reason:
                self._advance_to(min(self._next_round_end(), self.n_steps))
                self.history.n_steps = self.step
                self.history.seconds = earlier + time.perf_counter() - start
                self._end_round()
            self.history.stop_reason = self.history.stop_reason or "completed"
        except KeyboardInterrupt:
            self.history.stop_reason = "interrupted"
            logger.warning("interrupted after %d of %d steps; the last weights are kept", self.step, self.n_steps)
        finally:
            self.history.n_steps = self.step
            self.history.seconds = earlier + time.perf_counter() - start
            self._notify_end()

    @property
    def n_epochs_seen(self) -> int:
        """Epochs begun so far by this fit and those before it."""
        return self._settings.first_epoch - (-self.step // self._steps_per_epoch)

    def _next_round_end(self) -> int:
        return (self.step // self._settings.steps_per_round + 1) * self._settings.steps_per_round

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
        state = self._plan.read_state()
        rates, order = self._rates(self.step, end), self._order(self.step, end)
        metrics = self._plan.run(rates, order)
        parameters = self._plan.read_parameters()
        bad = np.flatnonzero(~np.isfinite(metrics.loss))
        if len(bad) or not parameters.all_finite():
            start = self.step
            self._go_back(state, int(bad[0]) if len(bad) else len(rates))
            raise DivergenceError(
                f"training diverged: the loss or a weight stopped being finite in step {self.step + 1} of "
                f"{self.n_steps}; the network keeps the weights it had before. Try a smaller learning rate "
                f"(it was {rates[self.step - start]:.3g}), or scale the features",
                step=self.step,
            )
        self._accept(parameters, metrics, rates, order)

    def _go_back(self, state: dict[str, NDArray], n_updates: int) -> None:
        """Make the first `n_updates` of a call again, up to the last finite parameters, found by halving the stride.

        How far that is does not depend on where the call began, which depends on the time that calls take.
        """
        stride = n_updates
        while stride:
            self._plan.write_parameters(self.parameters)
            self._plan.write_state(state)
            end = self.step + stride
            rates, order = self._rates(self.step, end), self._order(self.step, end)
            metrics = self._plan.run(rates, order)
            parameters = self._plan.read_parameters()
            if parameters.all_finite():
                self._accept(parameters, metrics, rates, order)
                state = self._plan.read_state()
                n_updates -= len(rates)
                stride = min(stride, n_updates)
            else:
                stride //= 2

    def _accept(self, parameters: Parameters, metrics: StepMetrics, rates: NDArray, order: NDArray | None) -> None:
        self._record(metrics, rates, order)
        end = self.step + len(rates)
        self.parameters, self.step = parameters, end  # nothing is called between the two that Ctrl-C could come in

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

    def _record(self, metrics: StepMetrics, rates: NDArray, order: NDArray | None) -> None:
        if order is None:
            self.history.loss.extend(metrics.loss.tolist())
            self.history.learning_rate.extend(rates.tolist())
            if self._spec.task != "regression":
                self.history.accuracy.extend((metrics.n_correct / self._dataset.n_samples).tolist())
            return
        weights = self._batch_weights(order, len(rates))
        self._epoch_sums[:2] = _add_in_order(self._epoch_sums[:2], np.column_stack([metrics.loss * weights, weights]))
        self._epoch_sums[2:] += metrics.n_correct.sum(), len(order)  # whole numbers are exact in any order
        steps_done = self.step + len(rates)
        epoch_is_done = steps_done % self._steps_per_epoch == 0
        if epoch_is_done or steps_done == self.n_steps:
            self._record_epoch(float(rates[-1]))
        if epoch_is_done:
            self._epoch_sums = np.zeros_like(self._epoch_sums)

    def _record_epoch(self, rate: float) -> None:
        loss, weight, n_correct, n_seen = self._epoch_sums.tolist()
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
            figures = self._evaluate(self.parameters)
            self.history.validation_steps.append(self.step)
            self.history.validation_loss.append(figures["loss"])
            if "accuracy" in figures:
                self.history.validation_accuracy.append(figures["accuracy"])
        for callback in self._callbacks:
            if callback.on_round_end(self):
                self.history.stop_reason = self.history.stop_reason or f"stopped by {callback.name}"

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
        """Write all that is needed to go on from here, atomically.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        tensors = {"parameters": self.parameters.flat}
        tensors |= {f"state/{name}": array for name, array in self._plan.read_state().items()}
        for index, callback in enumerate(self._callbacks_with_state):
            tensors |= {f"callback/{index}/{name}": array for name, array in callback.read_state().items()}
        header = {
            "identity": self.identity,
            "epoch_sums": self._epoch_sums.tolist(),
            "step": self.step,
            "first_epoch": self._settings.first_epoch,
            "history": asdict(self.history),
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
        self.step = header["step"]
        self.resumed = True
        self._restore_history(header["history"], header["epoch_sums"])

    def _restore_history(self, recorded: dict[str, Any], epoch_sums: list[float]) -> None:
        this_machine = ("backend_name", "backend_reason", "backend_detail", "device_name")
        for name, value in recorded.items():
            if name not in this_machine:
                setattr(self.history, name, value)
        if self.step < self.n_steps and self.step % self._steps_per_epoch:
            # The earlier run ended inside an epoch, whose entry is made anew when the epoch is done.
            self._epoch_sums[:] = epoch_sums
            for entries in (self.history.loss, self.history.learning_rate, self.history.accuracy):
                del entries[-1:]

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
