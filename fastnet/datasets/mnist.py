"""MNIST, from wherever it is: IDX files, Kaggle's train.csv, or OpenML."""

# Legend: N images of H by W pixels, D = H * W.

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnet.datasets.files import read_table
from fastnet.datasets.idx import read_idx
from fastnet.datasets.table import Table, hold_out
from fastnet.errors import DataError

__all__ = ["mnist"]

# Part of the data, and the stems under which its images and labels are published.
_TRAIN, _TEST = "train", "t10k"
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
_KAGGLE = "train.csv"
_N_TRAIN = 60_000  # in OpenML's table the test images follow the training images

_WHERE_TO_PUT_IT = (
    f"Put {_TRAIN}-{_IMAGES}.gz, {_TRAIN}-{_LABELS}.gz, {_TEST}-{_IMAGES}.gz and {_TEST}-{_LABELS}.gz "
    f"(unpacked or not), or Kaggle's {_KAGGLE}, into a directory, and name it with --data DIR or the environment "
    "variable FASTNET_DATA"
)


def mnist(
    directory: str | os.PathLike[str] | None = None,
    *,
    n_samples: int | None = None,
    held_out: float | None = None,
    random_state: int = 0,
) -> Table:
    """Handwritten digits of 28 by 28 pixels (LeCun, Cortes and Burges 1998), uint8.

    Parameters
    ----------
    directory : path-like, optional
        Where the IDX files or Kaggle's ``train.csv`` lie. By default the directory that ``FASTNET_DATA`` names, and
        without it OpenML, from where scikit-learn fetches them once and keeps them.
    n_samples : int, optional
        Keep the first so many training images.
    held_out : float, optional
        Hold out this share, or number, of the shuffled training images, in place of the 10,000 test images.
    random_state : int
        Seed of that shuffle.

    Raises
    ------
    DataError
        There are no data, or an option has no meaning; the message says what to put where.
    FileFormatError
        A file is damaged.
    """
    asked_for = directory if directory is not None else os.environ.get("FASTNET_DATA") or None
    table = _from_openml() if asked_for is None else _from_directory(Path(asked_for).expanduser())
    if n_samples is not None:
        if not 1 <= n_samples <= len(table.y):
            raise DataError(f"{table.name}: n_samples must be between 1 and {len(table.y)}, got {n_samples}")
        table = replace(table, X=table.X[:n_samples], y=table.y[:n_samples])
    return table if held_out is None else hold_out(table, held_out, random_state)


def _from_directory(directory: Path) -> Table:
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory. {_WHERE_TO_PUT_IT}")
    training, test = _images_and_labels(directory, _TRAIN), _images_and_labels(directory, _TEST)
    if training is not None:
        x_test, y_test = test or (None, None)
        return Table("MNIST", *training, x_test, y_test, image_shape=(28, 28))
    if (directory / _KAGGLE).exists():
        return replace(read_table(directory / _KAGGLE), image_shape=(28, 28))
    raise DataError(f"{directory}: holds neither MNIST's training files nor {_KAGGLE}. {_WHERE_TO_PUT_IT}")


def _images_and_labels(directory: Path, part: str) -> tuple[NDArray, NDArray] | None:
    """Images (N, D) uint8 and labels (N,) int64 of one part; None where the directory has neither."""
    image_file, label_file = _find(directory, f"{part}-{_IMAGES}"), _find(directory, f"{part}-{_LABELS}")
    if image_file is None and label_file is None:
        return None
    if image_file is None or label_file is None:
        missing = _IMAGES if image_file is None else _LABELS
        raise DataError(f"{directory}: {part}-{missing} is missing, plain or with .gz; its other half is there")
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{directory}: {image_file.name} has shape {images.shape} and {label_file.name} {labels.shape}; "
            "expected (N, 28, 28) and (N,)"
        )
    return images.reshape(len(images), 784), labels.astype(np.int64)


def _find(directory: Path, name: str) -> Path | None:
    """The file called `name`, in either of the two spellings in use, compressed or not."""
    spellings = [name, name.replace("-idx", ".idx")]
    candidates = (directory / f"{spelling}{suffix}" for spelling in spellings for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _from_openml() -> Table:
    from sklearn.datasets import fetch_openml

    parser = "pandas" if find_spec("pandas") else "liac-arff"  # the first is faster, the second needs nothing
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the network; told once, below
            bunch = fetch_openml("mnist_784", version=1, as_frame=False, parser=parser, n_retries=1)
    except (OSError, ValueError) as error:
        raise DataError(f"MNIST is not on this machine and cannot be fetched: {error}. {_WHERE_TO_PUT_IT}") from error
    x, y = bunch.data.astype(np.uint8), bunch.target.astype(np.int64)
    return Table("MNIST", x[:_N_TRAIN], y[:_N_TRAIN], x[_N_TRAIN:], y[_N_TRAIN:], image_shape=(28, 28))
