"""scikit-learn's callbacks, from its version 1.9 on: what they are told while an estimator trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnet.parameters import Parameters

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Leave a method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "Epochs", "follow_epochs", "with_callbacks"]


class Epochs:
    """Told when each epoch, or iteration of L-BFGS, begins and ends. This one tells nobody."""

    def begin(self) -> None:
        """Tell that an epoch begins, unless one has begun."""

    def end(self, read: Callable[[], Parameters]) -> bool:  # noqa: ARG002
        """Tell that it is over; whether training shall stop. `read` gives the weights that have been reached."""
        return False

    def finish(self) -> None:
        """Tell that training is over."""


class ToldEpochs(Epochs):
    """Tells scikit-learn's callbacks.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    X, y, sample_weight
        What it was given to train on.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        self._estimator = estimator
        self._about = {
            "estimator": estimator,
            "X": X,
            "y": y,
            "metadata": {} if sample_weight is None else {"sample_weight": sample_weight},
        }
        # How often L-BFGS begins an iteration that it cannot complete is not known.
        n_epochs = None if estimator.solver == "lbfgs" else estimator.max_iter
        self._fit = estimator._init_callback_context(max_subtasks=n_epochs)
        self._fit.call_on_fit_task_begin(**self._about)
        self._epoch: Any = None

    def begin(self) -> None:
        """See :meth:`Epochs.begin`."""
        if self._epoch is None:
            self._epoch = self._fit.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self._about)

    def end(self, read: Callable[[], Parameters]) -> bool:
        """See :meth:`Epochs.end`."""

        def reached() -> dict[str, Any]:
            parameters = read()
            return {"coefs_": parameters.weights, "intercepts_": parameters.biases}

        epoch, self._epoch = self._epoch, None
        return bool(epoch.call_on_fit_task_end(**self._about, reconstruction_attributes=reached))

    def finish(self) -> None:
        """See :meth:`Epochs.finish`."""
        reached = {"coefs_": self._estimator.coefs_, "intercepts_": self._estimator.intercepts_}
        if self._epoch is not None:  # it was interrupted, or found nothing better
            self._epoch.call_on_fit_task_end(**self._about, reconstruction_attributes=reached)
        self._fit.call_on_fit_task_end(**self._about, reconstruction_attributes=reached)


def follow_epochs(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Epochs:
    """Who is told of an estimator's epochs: its callbacks, if it has any or is a part of an estimator that has."""
    has_callbacks = hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx")
    return ToldEpochs(estimator, X, y, sample_weight) if has_callbacks else Epochs()
