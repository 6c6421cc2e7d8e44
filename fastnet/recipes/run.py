"""From a recipe to a network that is ready to train."""

# Legend: N samples, D features, C outputs, K classes; I fan-in, O fan-out of a layer.

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import initializers
from fastnet.backends.registry import choose_backend
from fastnet.backends.work import Work
from fastnet.datasets import Table, load
from fastnet.errors import DataError, SpecError
from fastnet.history import History
from fastnet.network import CallbackLike, Network
from fastnet.recipes.expectation import Expectation
from fastnet.recipes.recipe import Recipe, naming

__all__ = ["PreparedRun", "prepare"]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRun:
    """A network, its data, and how to train it.

    Attributes
    ----------
    network : Network
    table : Table
    fit_arguments : mapping
        Keyword arguments for ``network.fit(table.X, table.y, ...)``; what is held out is among them, for validation.
    expectations : tuple of Expectation
        Those of the recipe, or none if it was not run as written.
    """

    network: Network
    table: Table
    fit_arguments: Mapping[str, Any]
    expectations: tuple[Expectation, ...]

    def fit(
        self, *, callbacks: Iterable[CallbackLike] = (), resume_from: str | os.PathLike[str] | None = None
    ) -> History:
        """Train; errors are those of ``Network.fit``."""
        return self.network.fit(
            self.table.X, self.table.y, **self.fit_arguments, callbacks=callbacks, resume_from=resume_from
        )

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Figures of ``Network.evaluate`` on "training" and, where there is such a part, "held-out" data."""
        figures = {"training": self.network.evaluate(self.table.X, self.table.y)}
        if self.table.X_test is not None and self.table.y_test is not None:
            figures["held-out"] = self.network.evaluate(self.table.X_test, self.table.y_test)
        return figures


def prepare(
    recipe: Recipe,
    *,
    data: str | os.PathLike[str] | None = None,
    target: str | None = None,
    backend: str | None = None,
    device: str = "auto",
    n_threads: int | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    n_steps: int | None = None,
    n_epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
) -> PreparedRun:
    """Load a recipe's data and make its network.

    Parameters
    ----------
    recipe : Recipe
    data : path-like, optional
        Where MNIST lies, or a file to train on in place of the recipe's data: see :func:`fastnet.datasets.load`.
    target : str, optional
        The column of `data` to predict.
    backend, device, n_threads
        As for `fastnet.Network`.
    dtype, seed, n_steps, n_epochs, batch_size, learning_rate : optional
        In place of what the recipe says. `n_steps` and `n_epochs` replace each other.

    Raises
    ------
    SpecError
        The recipe or an argument has no meaning; the message names the recipe.
    DataError, FileFormatError, MissingPackageError
        The data are not there, cannot be used, or do not fit the network.
    BackendUnavailableError
        A backend asked for by name cannot run here.
    """
    changed = {"n_steps": n_steps, "n_epochs": n_epochs, "batch_size": batch_size}
    changed = {name: value for name, value in changed.items() if value is not None}
    as_written = not changed and seed is None and learning_rate is None and target is None and not _is_own_file(data)
    training = dict(recipe.training)
    if n_steps is not None or n_epochs is not None:
        training = {name: value for name, value in training.items() if name not in ("n_steps", "n_epochs")}
    optimizer = recipe.optimizer if learning_rate is None else replace(recipe.optimizer, learning_rate=learning_rate)

    # What is missing is told before any data are read. No device is started for work that small.
    choose_backend(backend, device, n_threads, Work((1, 1), n_rows=1, n_steps=1))
    with naming(recipe.name):
        table = load(recipe.source, recipe.data, data=data, target=target)
        arguments = dict(recipe.network) if dtype is None else {**recipe.network, "dtype": dtype}
        arguments["layer_sizes"] = _layer_sizes(arguments, table)
        table = _with_usable_labels(table, arguments)
        if isinstance(arguments.get("init"), dict):
            arguments["init"] = _draw_weights(arguments["init"], arguments["layer_sizes"], table)
        network = Network(
            **arguments,
            backend=backend,
            device=device,
            n_threads=n_threads,
            seed=recipe.seed if seed is None else seed,
        )
    network.feature_names = table.feature_names
    held_out = {} if "validation_fraction" in training else {"X_val": table.X_test, "y_val": table.y_test}
    fit_arguments = {"optimizer": optimizer, **training, **changed, **held_out}
    return PreparedRun(network, table, fit_arguments, recipe.expectations if as_written else ())


def _is_own_file(data: str | os.PathLike[str] | None) -> bool:
    return data is not None and not Path(data).expanduser().is_dir()


def _layer_sizes(arguments: Mapping[str, Any], table: Table) -> list[int]:
    """Sizes with "auto" filled in from the data."""
    sizes = list(arguments["layer_sizes"])
    n_features = table.X.shape[1]
    if sizes[0] == "auto":
        sizes[0] = n_features
    elif sizes[0] != n_features:
        raise DataError(
            f"{table.name} has {n_features} features and the network takes {sizes[0]}: "
            'in a recipe of your own, write layer_sizes = ["auto", ..., "auto"]'
        )
    if sizes[-1] == "auto":
        sizes[-1] = _n_outputs(arguments.get("output", "softmax"), table)
    return sizes


def _n_outputs(output: str, table: Table) -> int:
    """Outputs that the targets ask for."""
    if table.y.ndim == 2:
        return int(table.y.shape[1])
    if output not in ("softmax", "sigmoid"):
        return 1
    if table.y.dtype.kind == "f":
        if output == "softmax":
            value = table.y[np.argmax(table.y != np.floor(table.y))]
            raise DataError(
                f"{table.name}: the target holds values, such as {value:g}, and a softmax tells classes apart: name "
                'another column with --target, or write output = "identity" in a recipe of your own'
            )
        return 1
    classes = _classes(table)
    if len(classes) == 1:
        raise DataError(
            f"{table.name}: the target holds one class only, {classes[0].item()!r}, and nothing to tell it from: add "
            "samples of another class, or name another column with --target"
        )
    return 1 if output == "sigmoid" and len(classes) == 2 else len(classes)


def _with_usable_labels(table: Table, arguments: Mapping[str, Any]) -> Table:
    """Labels that are whole numbers, but do not count from zero, as strings: a network numbers those itself."""
    is_classifier = arguments.get("output", "softmax") in ("softmax", "sigmoid")
    if not is_classifier or table.y.ndim != 1 or table.y.dtype.kind not in "iU":
        return table
    if table.y.dtype.kind == "i":
        classes = _classes(table)
        if classes[0] >= 0 and classes[-1] < max(arguments["layer_sizes"][-1], 2):
            return table
        y_test = None if table.y_test is None else table.y_test.astype(str)
        table = replace(table, y=table.y.astype(str), y_test=y_test)
    _require_classes_to_learn(table)
    return table


def _require_classes_to_learn(table: Table) -> None:
    """Raise `DataError` if the held-out part has classes, named by strings, that the training part has not."""
    unknown = [] if table.y_test is None else np.setdiff1d(table.y_test, table.y).tolist()
    if unknown:
        raise DataError(
            f"{table.name}: the held-out part has samples of class {unknown[0]!r}, and the training part has none to "
            "learn it from: add some there, or leave the class out"
        )


def _classes(table: Table) -> NDArray:
    return np.unique(table.y if table.y_test is None else np.concatenate([table.y, table.y_test]))


def _draw_weights(init: Mapping[str, Any], layer_sizes: list[int], table: Table) -> list[NDArray[np.float64]]:
    """Weights (I, O) drawn layer by layer from NumPy's legacy generator, as the systems that recipes follow do.

    ``random_state = "data"`` goes on with the generator that drew the data. A transposed weight is drawn as (O, I).
    """
    if init["random_state"] != "data":
        random = np.random.RandomState(init["random_state"])
    elif table.random is not None:
        random = table.random
    else:
        raise SpecError(f'init: random_state = "data" needs data drawn from a generator, and {table.name} are not')
    weights = []
    for fan_in, fan_out in pairwise(layer_sizes):
        shape = (fan_out, fan_in) if init.get("transposed", False) else (fan_in, fan_out)
        weight = initializers.draw(init["scheme"], shape, random, fan_in=fan_in, fan_out=fan_out)
        weights.append(weight.T if init.get("transposed", False) else weight)
    return weights
