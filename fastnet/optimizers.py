"""Optimizers and learning-rate schedules: frozen descriptions, never callables, so that every backend can compile them.

The formulas themselves stand in :mod:`fastnet.reference`.
"""

# Legend: t zero-based step, T number of steps of the fit.

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, fields
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import SpecError, require_count, unknown_name

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "ExponentialDecay",
    "InverseScaling",
    "LearningRate",
    "Optimizer",
    "Schedule",
    "StepDecay",
    "learning_rates",
    "optimizer_from_dict",
    "optimizer_to_dict",
]


class Schedule(Protocol):
    """A learning rate that changes from step to step."""

    def rates(self, steps: NDArray[np.int64], n_steps: int) -> NDArray[np.float64]:
        """Learning rates of the zero-based `steps` (n,) in a fit of `n_steps` steps, as float64 (n,)."""
        ...


LearningRate = float | Schedule


@dataclass(frozen=True, slots=True)
class StepDecay:
    """``initial * factor ** (t // every)``: the rate falls by `factor` after each `every` steps."""

    initial: float
    factor: float = 0.5
    every: int = 1000

    def __post_init__(self) -> None:
        _take_python_scalars(self)
        _require_positive(self, "initial", "factor")
        require_count("StepDecay: every", self.every)

    def rates(self, steps: NDArray[np.int64], n_steps: int) -> NDArray[np.float64]:
        """See :meth:`Schedule.rates`."""
        return self.initial * self.factor ** (steps // self.every).astype(np.float64)


@dataclass(frozen=True, slots=True)
class ExponentialDecay:
    """``initial * factor ** t``: the rate falls by `factor` at every step."""

    initial: float
    factor: float = 0.999

    def __post_init__(self) -> None:
        _take_python_scalars(self)
        _require_positive(self, "initial", "factor")

    def rates(self, steps: NDArray[np.int64], n_steps: int) -> NDArray[np.float64]:
        """See :meth:`Schedule.rates`."""
        return self.initial * self.factor ** steps.astype(np.float64)


@dataclass(frozen=True, slots=True)
class CosineDecay:
    """Half a cosine from `initial` at the first step towards `final` at the end of the fit.

    ``final + (initial - final) * (1 + cos(pi * t / T)) / 2`` (Loshchilov and Hutter 2017, equation 5).
    """

    initial: float
    final: float = 0.0

    def __post_init__(self) -> None:
        _take_python_scalars(self)
        _require_positive(self, "initial")
        _require_not_negative(self, "final")

    def rates(self, steps: NDArray[np.int64], n_steps: int) -> NDArray[np.float64]:
        """See :meth:`Schedule.rates`."""
        return self.final + (self.initial - self.final) * 0.5 * (1.0 + np.cos(np.pi * steps / n_steps))


@dataclass(frozen=True, slots=True)
class InverseScaling:
    """``initial / (t + 1) ** power``."""

    initial: float
    power: float = 0.5

    def __post_init__(self) -> None:
        _take_python_scalars(self)
        _require_positive(self, "initial", "power")

    def rates(self, steps: NDArray[np.int64], n_steps: int) -> NDArray[np.float64]:
        """See :meth:`Schedule.rates`."""
        return np.asarray(self.initial / (steps + 1.0) ** self.power, np.float64)


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent, with momentum or Nesterov's variant of it if asked for.

    Parameters
    ----------
    learning_rate : float or schedule
        Step length, or one of the schedules of this module.
    momentum : float
        In [0, 1]. Zero is plain gradient descent; one never forgets a gradient.
    nesterov : bool
        Look ahead along the momentum (Sutskever et al. 2013). Needs ``momentum > 0``.

    Raises
    ------
    SpecError
        A value is out of range.
    """

    learning_rate: LearningRate = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _take_python_scalars(self)
        _require_learning_rate(self)
        if not (_is_number(self.momentum) and 0 <= self.momentum <= 1):
            raise SpecError(f"SGD: momentum must be in [0, 1], got {self.momentum!r}")
        if not isinstance(self.nesterov, bool):
            raise SpecError(f"SGD: nesterov must be True or False, got {self.nesterov!r}")
        if self.nesterov and self.momentum == 0:
            raise SpecError("SGD: nesterov=True needs momentum > 0, for example momentum=0.9")


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015), in the efficient form of the end of their section 2, as scikit-learn has it.

    There `epsilon` is added to the square root of the uncorrected second moment; PyTorch adds it to the corrected one.

    Parameters
    ----------
    learning_rate : float or schedule
    beta_1, beta_2 : float
        Decay of the first and second moments, each in [0, 1).
    epsilon : float
        Added to the denominator; positive.

    Raises
    ------
    SpecError
        A value is out of range.
    """

    learning_rate: LearningRate = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _take_python_scalars(self)
        _require_learning_rate(self)
        _require_fraction(self, "beta_1", "beta_2")
        _require_positive(self, "epsilon")


@dataclass(frozen=True, slots=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Each step first takes ``learning_rate * weight_decay * weight`` off every weight; biases do not decay.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As for :class:`Adam`.
    weight_decay : float
        Not negative.

    Raises
    ------
    SpecError
        A value is out of range.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        Adam.__post_init__(self)  # a class with slots is made anew, which super() without arguments does not survive
        _require_not_negative(self, "weight_decay")


Optimizer = SGD | Adam | AdamW

_OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
_SCHEDULES: dict[str, type[Any]] = {
    "step": StepDecay,
    "exponential": ExponentialDecay,
    "cosine": CosineDecay,
    "inverse_scaling": InverseScaling,
}


def learning_rates(rate: LearningRate, steps: NDArray[np.int64], n_steps: int) -> NDArray[np.float64]:
    """Learning rates of the zero-based `steps` (n,) of a fit of `n_steps` steps, as float64 (n,)."""
    if isinstance(rate, float | int):
        return np.full(len(steps), float(rate))
    return rate.rates(steps, n_steps)


def optimizer_to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Plain description of an optimizer, for TOML and JSON; the inverse of :func:`optimizer_from_dict`."""
    described: dict[str, Any] = {"name": _name_of(optimizer, _OPTIMIZERS)} | _fields_of(optimizer)
    rate = optimizer.learning_rate
    if not isinstance(rate, float | int):
        described["learning_rate"] = {"schedule": _name_of(rate, _SCHEDULES)} | _fields_of(rate)
    return described


def optimizer_from_dict(described: dict[str, Any]) -> Optimizer:
    """Optimizer from ``{"name": "adam", "learning_rate": 0.001, ...}``.

    A schedule is written as a table in place of the number: ``{"schedule": "cosine", "initial": 0.1}``.

    Raises
    ------
    SpecError
        A name or an option is unknown, an option is missing, or a value is out of range.
    """
    options = dict(described)
    optimizer_type = _look_up("optimizer", options.pop("name", "sgd"), _OPTIMIZERS)
    rate = options.get("learning_rate")
    if isinstance(rate, dict):
        rate = dict(rate)
        options["learning_rate"] = _build(_look_up("schedule", rate.pop("schedule", None), _SCHEDULES), rate)
    return _build(optimizer_type, options)


def _look_up(kind: str, name: object, table: dict[str, type[Any]]) -> type[Any]:
    if not isinstance(name, str) or name not in table:
        raise unknown_name(kind, name, table)
    return table[name]


def _build(described_type: type[Any], options: dict[str, Any]) -> Any:
    known = [field.name for field in fields(described_type)]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {described_type.__name__}", option, known)
    missing = [field.name for field in fields(described_type) if field.default is MISSING and field.name not in options]
    if missing:
        raise SpecError(f"{described_type.__name__} needs {' and '.join(missing)}: for example {missing[0]} = 0.1")
    return described_type(**options)


def _name_of(described: object, table: dict[str, type[Any]]) -> str:
    for name, described_type in table.items():
        if type(described) is described_type:
            return name
    raise SpecError(f"{described!r} cannot be written down: it is none of fastnet's own ({', '.join(table)})")


def _fields_of(described: Any) -> dict[str, Any]:
    return {field.name: getattr(described, field.name) for field in fields(described)}


def _take_python_scalars(described: Any) -> None:
    """Make scalars of NumPy those of Python: the others cannot be written down as JSON."""
    for name, value in _fields_of(described).items():
        if isinstance(value, np.generic):
            object.__setattr__(described, name, value.item())


def _require_learning_rate(optimizer: Optimizer) -> None:
    rate = optimizer.learning_rate
    if isinstance(rate, float | int) and not isinstance(rate, bool):
        _require_positive(optimizer, "learning_rate")
    elif isinstance(rate, type) or not hasattr(rate, "rates"):
        raise SpecError(f"learning_rate must be a positive number or a schedule, got {rate!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite_number(value: Any) -> bool:
    return _is_number(value) and abs(value) <= sys.float_info.max  # a whole number may be larger than any float


def _require_positive(described: object, *names: str) -> None:
    for name in names:
        value = getattr(described, name)
        if not (_is_finite_number(value) and value > 0):
            raise SpecError(f"{type(described).__name__}: {name} must be positive and finite, got {value!r}")


def _require_not_negative(described: object, *names: str) -> None:
    for name in names:
        value = getattr(described, name)
        if not (_is_finite_number(value) and value >= 0):
            raise SpecError(f"{type(described).__name__}: {name} must be finite and not negative, got {value!r}")


def _require_fraction(described: object, *names: str) -> None:
    for name in names:
        value = getattr(described, name)
        if not (_is_number(value) and 0 <= value < 1):
            raise SpecError(f"{type(described).__name__}: {name} must be in [0, 1), got {value!r}")
