"""How long a fit lasts, where its rounds end, and in which order it sees the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import SpecError, require_count

__all__ = ["RunSettings"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings of one fit.

    Attributes
    ----------
    n_steps : int
        Updates to make.
    steps_per_round : int
        Updates between validations: with mini-batches a whole number of epochs.
    shuffle : bool
        Whether each epoch has an order of its own.
    seed : int
        The order of epoch e is drawn from ``(seed, e)`` alone, so that a resumed run needs no generator's state.
    first_epoch : int
        Epochs that the network has seen in earlier fits.
    """

    n_steps: int
    steps_per_round: int
    shuffle: bool
    seed: int
    first_epoch: int = 0

    @classmethod
    def of(
        cls,
        steps_per_epoch: int | None,
        *,
        n_steps: int | None,
        n_epochs: int | None,
        validate_every: int | None,
        shuffle: bool,
        seed: int,
        first_epoch: int,
    ) -> RunSettings:
        """Settings from the arguments of ``Network.fit``; `steps_per_epoch` is None for the full batch.

        Raises
        ------
        SpecError
            A number is not a count, or the length of training is not given once.
        """
        for name, value in (("n_steps", n_steps), ("n_epochs", n_epochs), ("validate_every", validate_every)):
            if value is not None:
                require_count(name, value)
        if (n_steps is None) == (n_epochs is None):
            raise SpecError("say how long to train: n_steps=... or n_epochs=..., one of the two")
        total = int(n_steps) if n_steps is not None else int(n_epochs or 0) * (steps_per_epoch or 1)
        every = validate_every or (1 if steps_per_epoch else max(1, total // 100))
        return cls(total, int(every) * (steps_per_epoch or 1), shuffle, seed, first_epoch)

    def epoch_order(self, epoch: int, n_samples: int) -> NDArray[np.int64]:
        """Sample indices (n_samples,) of the zero-based `epoch` of this fit."""
        if not self.shuffle:
            return np.arange(n_samples)
        return np.random.default_rng((self.seed, self.first_epoch + epoch)).permutation(n_samples)
