"""What a fit did, step by step or epoch by epoch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History"]


@dataclass
class History:
    """Record of one fit. With the full batch there is one entry per step, with mini-batches one per epoch.

    Attributes
    ----------
    loss : list of float
        Objective at the parameters before each update, the l2 penalty included; over an epoch, the mean over its
        samples (for reduction "sum", the sum). In nats, but for the absolute error and the squared error, which is half
        the squared difference.
    accuracy : list of float
        Share of correct predictions in the same steps; empty for regression.
    learning_rate : list of float
        Of each step, or of the last step of each epoch.
    validation_loss, validation_accuracy : list of float
        On held-out data, without penalty, after `validation_steps` updates; accuracy is empty for regression.
    validation_steps : list of int
    n_steps : int
        Updates made.
    steps_per_entry : int
        Updates that one entry of `loss` stands for; the last entry may stand for fewer.
    seconds : float
        Time spent in training, validation and callbacks, a resumed run's earlier parts included.
    stop_reason : str
        "completed", "interrupted", or what a callback said.
    backend_name, backend_reason, device_name : str
        What ran, and why it was chosen.
    backend_detail : str
        How the backend computed this fit, in one line.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_steps: list[int] = field(default_factory=list)
    n_steps: int = 0
    steps_per_entry: int = 1
    seconds: float = 0.0
    stop_reason: str = ""
    backend_name: str = ""
    backend_reason: str = ""
    backend_detail: str = ""
    device_name: str = ""

    def __repr__(self) -> str:
        last = f", loss={self.loss[-1]:.6g}" if self.loss else ""
        return f"History(n_steps={self.n_steps}{last}, seconds={self.seconds:.3g}, backend_name={self.backend_name!r})"

    def plot(self, ax: Any = None) -> Any:
        """Draw loss and accuracy on `ax`, or on a new figure; returns a list of Axes. matplotlib is an extra."""
        # By name, as backends are: pictures stand above the model, which works without them.
        return importlib.import_module("fastnet.plotting").plot_history(self, ax)
