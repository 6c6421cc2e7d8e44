"""What a recipe file may say: its tables, their keys, and what type each must have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from fastnet.datasets import SOURCES
from fastnet.errors import SpecError, unknown_name

__all__ = ["check_data", "check_keys", "check_tables"]

# Types a value may have, and how a message calls them.
Kind = tuple[tuple[type, ...], str]
_TEXT: Kind = (str,), "text"
_WHOLE: Kind = (int,), "a whole number"
_NUMBER: Kind = (int, float), "a number"
_SWITCH: Kind = (bool,), "true or false"
_LIST: Kind = (list,), "a list"

_KEYS: dict[str, dict[str, Kind]] = {
    "recipe": {"title": _TEXT, "text": _TEXT},
    "network": {
        "layer_sizes": _LIST,
        "activation": ((str, list), "text or a list"),
        "output": _TEXT,
        "loss": _TEXT,
        "bias": _SWITCH,
        "reduction": _TEXT,
        "l2": _NUMBER,
        "l2_averaged": _SWITCH,
        "input_scale": ((int, float, str), 'a number or a fraction like "1/255"'),
        "dtype": _TEXT,
        "precision": _TEXT,
        "init": ((str, dict), "text or a table"),
        "bias_init": _TEXT,
    },
    "init": {"scheme": _TEXT, "random_state": ((int, str), 'a whole number or "data"'), "transposed": _SWITCH},
    "training": {
        "n_steps": _WHOLE,
        "n_epochs": _WHOLE,
        "batch_size": _WHOLE,
        "validation_fraction": _NUMBER,
        "validate_every": _WHOLE,
        "shuffle": _SWITCH,
        "seed": _WHOLE,
    },
    "expect": {
        "metric": _TEXT,
        "on": _TEXT,
        "after_steps": _WHOLE,
        "at_least": _NUMBER,
        "at_most": _NUMBER,
        "within": _LIST,
    },
}

_DATA_KEYS: dict[str, Kind] = {
    "directory": _TEXT,
    "held_out": _NUMBER,
    "n_samples": _WHOLE,
    "noise": _NUMBER,
    "path": _TEXT,
    "random_state": _WHOLE,
    "target": _TEXT,
}

_TABLES = ("recipe", "data", "network", "optimizer", "training", "expect")
_REQUIRED = ("data", "network", "training")


def check_tables(document: Mapping[str, Any]) -> None:
    """Check that a recipe has the tables it needs and no others.

    Raises
    ------
    SpecError
        A table is missing, unknown, or not a table.
    """
    for name, value in document.items():
        if name not in _TABLES:
            raise unknown_name("table", name, _TABLES)
        if name != "expect" and not isinstance(value, dict):
            raise SpecError(f"{name} must be a table, [{name}], got {value!r}")
    for name in _REQUIRED:
        if name not in document:
            raise SpecError(f"the table [{name}] is missing")


def check_keys(table: str, given: Mapping[str, Any]) -> None:
    """Check the keys of one table and the types of their values.

    Raises
    ------
    SpecError
        A key is unknown, or its value is of the wrong type.
    """
    _check(f"[{table}]", given, _KEYS[table])


def check_data(given: Mapping[str, Any]) -> None:
    """Check the table [data]: its source, and options that this source has.

    Raises
    ------
    SpecError
        As :func:`check_keys`, or the source is unknown or missing.
    """
    if "source" not in given:
        raise SpecError(f"[data] needs a source: one of {', '.join(SOURCES)}")
    source = given["source"]
    if not isinstance(source, str) or source not in SOURCES:
        raise unknown_name("source of [data]", source, SOURCES)
    options = inspect.signature(SOURCES[source]).parameters
    _check("[data]", given, {"source": _TEXT} | {name: _DATA_KEYS[name] for name in options})


def _check(where: str, given: Mapping[str, Any], known: Mapping[str, Kind]) -> None:
    for key, value in given.items():
        if key not in known:
            raise unknown_name(f"key of {where}", key, known)
        types, described = known[key]
        is_stray_switch = isinstance(value, bool) and bool not in types  # to Python, true is also the number 1
        if is_stray_switch or not isinstance(value, types):
            raise SpecError(f"{key} of {where} must be {described}, got {value!r}")
