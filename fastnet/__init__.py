"""Multilayer perceptrons, trained as fast as the hardware allows, on CPU or GPU, chosen by a flag."""

from typing import TYPE_CHECKING, Any

from fastnet.backends.registry import available_backends
from fastnet.callbacks import Callback, Checkpoint, EarlyStopping, ProgressBar
from fastnet.errors import (
    BackendUnavailableError,
    DataError,
    DeviceMemoryError,
    DivergenceError,
    FastnetError,
    FileFormatError,
    MissingPackageError,
    SpecError,
    UnsupportedSpecError,
)
from fastnet.history import History
from fastnet.network import Network
from fastnet.optimizers import SGD, Adam, AdamW, CosineDecay, ExponentialDecay, InverseScaling, StepDecay

if TYPE_CHECKING:
    from fastnet.sklearn import MLPClassifier, MLPRegressor

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BackendUnavailableError",
    "Callback",
    "Checkpoint",
    "CosineDecay",
    "DataError",
    "DeviceMemoryError",
    "DivergenceError",
    "EarlyStopping",
    "ExponentialDecay",
    "FastnetError",
    "FileFormatError",
    "History",
    "InverseScaling",
    "MLPClassifier",
    "MLPRegressor",
    "MissingPackageError",
    "Network",
    "ProgressBar",
    "SpecError",
    "StepDecay",
    "UnsupportedSpecError",
    "available_backends",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """scikit-learn's estimators, and with them scikit-learn, are loaded when they are asked for."""
    if name in ("MLPClassifier", "MLPRegressor"):
        from fastnet import sklearn

        return getattr(sklearn, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
