"""Multilayer perceptrons, trained as fast as the hardware allows, on CPU or GPU, chosen by a flag."""

from fastnet.backends.registry import available_backends
from fastnet.optimizers import SGD, Adam, AdamW, CosineDecay, ExponentialDecay, InverseScaling, StepDecay

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "ExponentialDecay",
    "InverseScaling",
    "StepDecay",
    "available_backends",
]

__version__ = "0.1.0"
