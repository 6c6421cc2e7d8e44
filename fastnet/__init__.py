"""Multilayer perceptrons, trained as fast as the hardware allows, on CPU or GPU, chosen by a flag."""

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
    "MissingPackageError",
    "Network",
    "ProgressBar",
    "SpecError",
    "StepDecay",
    "UnsupportedSpecError",
    "available_backends",
]

__version__ = "0.1.0"
