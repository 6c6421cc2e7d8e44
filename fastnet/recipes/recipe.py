"""Recipes: TOML files that say what to train, on what, how, and what should come of it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastnet.errors import DataError, FileFormatError, SpecError, unknown_name
from fastnet.optimizers import SGD, Optimizer, optimizer_from_dict
from fastnet.recipes.expectation import Expectation
from fastnet.recipes.schema import check_data, check_keys, check_tables

__all__ = ["Recipe", "load_recipe", "naming", "recipe_names"]

_SUFFIX = ".toml"
_PATH_KEYS = ("directory", "path")
_FRACTION = re.compile(r"\s*([0-9.]+)\s*/\s*([0-9.]+)\s*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe, its keys checked; what depends on the data is settled by :func:`fastnet.recipes.prepare`.

    Attributes
    ----------
    name : str
        Of a shipped recipe, or the path of a file.
    title, text : str
        One line, and what a reader should know.
    source : str
        One of `fastnet.datasets.SOURCES`.
    data : mapping
        Options of the source.
    network : mapping
        Keyword arguments of `fastnet.Network`. "auto" may stand for the first and last of ``layer_sizes``, and a table
        for ``init``.
    optimizer : SGD, Adam or AdamW
    training : mapping
        Keyword arguments of ``Network.fit``.
    seed : int
        0 where the recipe has none: a run that is killed is to be resumed with the same one.
    expectations : tuple of Expectation
    """

    name: str
    title: str
    text: str
    source: str
    data: Mapping[str, Any]
    network: Mapping[str, Any]
    optimizer: Optimizer
    training: Mapping[str, Any]
    seed: int
    expectations: tuple[Expectation, ...]


def recipe_names() -> list[str]:
    """Names of the recipes shipped with fastnet, in alphabetical order."""
    shipped = files("fastnet.recipes").iterdir()
    return sorted(entry.name.removesuffix(_SUFFIX) for entry in shipped if entry.name.endswith(_SUFFIX))


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """Read a shipped recipe by its name, or a file by its path.

    Parameters
    ----------
    name_or_path : str or path-like
        What ends in ``.toml`` is a path.

    Raises
    ------
    SpecError
        No recipe has this name, or the recipe says something that has no meaning; the message says where.
    DataError
        There is no such file.
    FileFormatError
        The file is not TOML; the message names the line.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() != _SUFFIX:
        name = str(name_or_path)
        if name not in recipe_names():
            raise SpecError(f"{unknown_name('recipe', name, recipe_names())} Or name a .toml file of your own.")
        text = files("fastnet.recipes").joinpath(name + _SUFFIX).read_text("utf-8")
        return _parse(text, name, Path())
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; shipped recipes are {', '.join(recipe_names())}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not text in UTF-8: {error.reason}, byte {error.start}") from error
    return _parse(text, str(path), path.parent)


@contextmanager
def naming(recipe: str) -> Iterator[None]:
    """Put the name of a recipe before the message of a `SpecError` that it caused."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{recipe}: {error}") from error


def _parse(text: str, name: str, directory: Path) -> Recipe:
    """Recipe from TOML; paths in it are relative to `directory`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileFormatError(f"{name}: not TOML: {error}") from error
    with naming(name):
        check_tables(document)
        head, data = document.get("recipe", {}), dict(document["data"])
        network, training = dict(document["network"]), dict(document["training"])
        check_keys("recipe", head)
        check_data(data)
        check_keys("network", network)
        check_keys("training", training)
        _check_network(network)
        if ("n_steps" in training) == ("n_epochs" in training):
            raise SpecError("[training] says how long: n_steps or n_epochs, one of the two")
        if "input_scale" in network:
            network["input_scale"] = _fraction(network["input_scale"])
        return Recipe(
            name=name,
            title=head.get("title", name),
            text=" ".join(head.get("text", "").split()),
            source=data.pop("source"),
            data={
                key: _below(directory, value) if key in ("directory", "path") else value for key, value in data.items()
            },
            network=network,
            optimizer=optimizer_from_dict(document["optimizer"]) if "optimizer" in document else SGD(),
            seed=training.pop("seed", 0),
            training=training,
            expectations=tuple(map(Expectation.from_dict, _expect_tables(document))),
        )


def _check_network(network: dict[str, Any]) -> None:
    sizes = network.get("layer_sizes")
    if sizes is None:
        raise SpecError('[network] needs layer_sizes, for example ["auto", 32, "auto"]')
    if len(sizes) < 2 or "auto" in sizes[1:-1]:
        raise SpecError(f'layer_sizes needs features and outputs, and only these two may be "auto", got {sizes}')
    init = network.get("init")
    if isinstance(init, dict):
        check_keys("init", init)
        if "scheme" not in init or "random_state" not in init:
            raise SpecError('init, written as a table, needs scheme and random_state (a whole number, or "data")')
        state = init["random_state"]
        if state != "data" and not (isinstance(state, int) and 0 <= state < 2**32):
            raise SpecError(
                f'random_state of init must be a whole number from 0 to 2**32 - 1, or "data", got {state!r}'
            )


def _expect_tables(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """[expect] once, or [[expect]] any number of times."""
    expect = document.get("expect", [])
    tables = expect if isinstance(expect, list) else [expect]
    for table in tables:
        if not isinstance(table, dict):
            raise SpecError(f"expect must be a table, [expect] or [[expect]], got {table!r}")
    return tables


def _fraction(value: float | str) -> float:
    """A number, or two with a slash between them: TOML has no fractions."""
    if not isinstance(value, str):
        return value
    match = _FRACTION.fullmatch(value)
    try:
        return float(match[1]) / float(match[2]) if match else float(value)
    except (ValueError, ZeroDivisionError):
        raise SpecError(f'input_scale must be a number or a fraction like "1/255", got {value!r}') from None


def _below(directory: Path, path: str) -> str:
    """A path as the recipe means it, seen from the working directory."""
    return str(directory / Path(path).expanduser())
