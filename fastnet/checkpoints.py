"""Checkpoints: how far a run is, on disk, and what a run must share with one to go on from there."""

# Legend: P parameters.

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet.callbacks import Callback
from fastnet.data import Dataset, is_sparse
from fastnet.errors import FileFormatError
from fastnet.history import History
from fastnet.optimizers import CosineDecay, optimizer_to_dict
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.persistence import load_arrays, save_arrays
from fastnet.run_settings import RunSettings
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["Reached", "SavedRun", "count_entries", "identify", "load_run", "save_run", "with_state"]

_CHECKPOINT = "fastnet.checkpoint/1"
_NETWORK_DEFAULTS = {field.name: field.default for field in fields(NetworkSpec) if field.default is not MISSING}
_LISTS_OF_HISTORY = tuple(field.name for field in fields(History) if field.default_factory is list)


@dataclass(frozen=True, slots=True)
class Reached:
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
    callback_states : sequence of dict
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


@dataclass(frozen=True, slots=True)
class SavedRun:
    """What a checkpoint holds.

    Attributes
    ----------
    reached : Reached
    history : dict
        Fields of `History`.
    first_epoch : int
        Epochs that fits before this one had seen.
    """

    reached: Reached
    history: dict[str, Any]
    first_epoch: int


def count_entries(history: History) -> dict[str, int]:
    """Length of each list of a history."""
    return {name: len(getattr(history, name)) for name in _LISTS_OF_HISTORY}


def save_run(
    path: str | os.PathLike[str], identity: dict[str, Any], reached: Reached, history: History, first_epoch: int
) -> None:
    """Write how far a run is, atomically; of the history, what belongs to `reached`.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    tensors = {"parameters": reached.parameters.flat}
    tensors |= {f"state/{name}": array for name, array in reached.optimizer_state.items()}
    for index, state in enumerate(reached.callback_states):
        tensors |= {f"callback/{index}/{name}": array for name, array in state.items()}
    recorded = asdict(history) | {"n_steps": reached.step, "stop_reason": reached.stop_reason}
    header = {
        "identity": identity,
        "epoch_sums": reached.epoch_sums.tolist(),
        "step": reached.step,
        "round_ended": reached.round_ended,
        "first_epoch": first_epoch,
        "history": recorded | {name: recorded[name][:length] for name, length in reached.n_entries.items()},
    }
    save_arrays(path, _CHECKPOINT, header, tensors)


def load_run(path: str | os.PathLike[str], identity: dict[str, Any], layout: ParameterLayout) -> SavedRun:
    """Read what :func:`save_run` wrote of a run with the same identity.

    Raises
    ------
    FileFormatError
        The file is damaged, or belongs to another run; the message says in what it differs.
    OSError
        The file cannot be read.
    """
    header, tensors = load_arrays(path, _CHECKPOINT)
    written, history = header["identity"], header["history"]
    # What the description of a network has gained since the file was written was at its default then.
    written["network"] = _NETWORK_DEFAULTS | written["network"]
    different = [name for name, value in identity.items() if written.get(name) != value]
    if different:
        raise FileFormatError(
            f"{path}: this is the checkpoint of another fit, which differs in its {', '.join(different)}: "
            "give it what it was started with, or start anew without it"
        )
    reached = Reached(
        step=header["step"],
        parameters=Parameters(layout, tensors["parameters"].copy()),
        optimizer_state=_with_prefix(tensors, "state/"),
        epoch_sums=np.array(header["epoch_sums"]),
        n_entries={name: len(history[name]) for name in _LISTS_OF_HISTORY},
        round_ended=header.get("round_ended", True),  # the first checkpoints had none inside of a round
        callback_states=[_with_prefix(tensors, f"callback/{i}/") for i in range(len(identity["callbacks"]))],
        stop_reason=history["stop_reason"],
    )
    return SavedRun(reached, history, header["first_epoch"])


def identify(
    spec: TrainingSpec, dataset: Dataset, settings: RunSettings, callbacks: Sequence[Callback]
) -> dict[str, Any]:
    """What a run must share with a checkpoint to go on from it, as JSON gives it back."""
    network = asdict(spec.network)
    return {
        "network": {name: list(value) if isinstance(value, tuple) else value for name, value in network.items()},
        "optimizer": optimizer_to_dict(spec.optimizer),
        "batch_size": spec.batch_size,
        "n_steps": settings.n_steps if isinstance(spec.optimizer.learning_rate, CosineDecay) else None,
        "seed": settings.seed,
        "shuffle": settings.shuffle,
        "data": _data_digest(dataset),
        "callbacks": [type(callback).__name__ for callback in with_state(callbacks)],
    }


def with_state(callbacks: Sequence[Callback]) -> list[Callback]:
    """Those that have something to be written down."""
    return [callback for callback in callbacks if type(callback).read_state is not Callback.read_state]


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
