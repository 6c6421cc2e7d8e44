"""The samples of the workloads: MNIST where it is at hand, and drawn ones, the same for everyone."""

# Legend: N samples, D features, C outputs.

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataPath", "Samples", "read_dense", "read_mnist", "read_moons", "read_sum", "read_tabular"]

_SEED = 0

DataPath = str | os.PathLike[str]
Samples = tuple[NDArray, NDArray, str]  # X (N, D), y (N,) or (N, C), where they are from


def read_mnist(n_samples: int, data: DataPath | None) -> Samples:
    """The first training images of MNIST as bytes, or what looks like them to whoever trains on them."""
    if data is None and not os.environ.get("FASTNET_DATA"):
        return _like_mnist(n_samples)
    from fastnet.datasets.mnist import mnist

    table = mnist(data, n_samples=n_samples)
    return table.X, table.y, "MNIST training images"


def _like_mnist(n_samples: int) -> Samples:
    """Bytes of which 81 % are zero; each class lights every pixel with a probability of its own."""
    random = np.random.default_rng(_SEED)
    y = random.integers(0, 10, n_samples)
    chance = 2 * 0.19 * 256 * random.random((10, 784))
    lit = random.integers(0, 256, (n_samples, 784), np.uint8) < chance.astype(np.uint8)[y]
    x = np.where(lit, random.integers(1, 256, (n_samples, 784), np.uint8), np.uint8(0))
    return x, y, "synthetic, with MNIST's shape and share of zeros"


def _normal(n_samples: int, n_features: int, n_outputs: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Standard normal X (N, D), none of it zero, and a function of it to learn (N, C): sines of random mixtures."""
    random = np.random.default_rng(_SEED)
    x = random.standard_normal((n_samples, n_features), np.float32)
    mixture = random.standard_normal((n_features, n_outputs)) / math.sqrt(n_features)
    return x, np.sin(2 * x @ mixture)


def read_dense(n_samples: int, _: DataPath | None) -> Samples:
    """784 features, none of them zero, and 10 classes."""
    x, values = _normal(n_samples, 784, 10)
    return x, values.argmax(axis=1), "synthetic, standard normal"


def read_tabular(n_samples: int, _: DataPath | None) -> Samples:
    """30 features and two values to predict."""
    return *_normal(n_samples, 30, 2), "synthetic, standard normal"


def read_moons(n_samples: int, _: DataPath | None) -> Samples:
    """Two interleaved half circles."""
    from fastnet.datasets.bundled import moons

    table = moons(n_samples=n_samples * 5 // 4)  # of which a fifth is held out
    return table.X, table.y, "make_moons of scikit-learn"


def read_sum(n_samples: int, _: DataPath | None) -> Samples:
    """Pairs of numbers and their sum."""
    from fastnet.datasets.bundled import sum_of_two

    table = sum_of_two(n_samples=n_samples)
    return table.X, table.y, "synthetic, uniform"
