"""``fastnet backends`` and ``fastnet recipes``."""

from __future__ import annotations

import json
from importlib.resources import files

import click

from fastnet.errors import unknown_name

__all__ = ["backends", "recipes"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def backends(as_json: bool) -> None:
    """What can run here, and why the rest cannot."""
    from fastnet.backends.registry import available_backends

    found = available_backends()
    if as_json:
        click.echo(
            json.dumps(
                {name: {"ok": a.ok, "reason": a.reason, "devices": list(a.devices)} for name, a in found.items()}
            )
        )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("backend", "runs here", "devices", "why", box=None, pad_edge=False)
    for name, availability in found.items():
        runs = "yes" if availability.ok else "no"
        table.add_row(name, runs, ", ".join(availability.devices) or "-", Text(availability.reason))
    Console().print(table)


@click.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """The networks that `fastnet train` knows by name.

    With NAME, that recipe's text: save it as a .toml file to make a recipe of your own of it.
    """
    if name is None:
        _list_recipes()
    else:
        click.echo(_read_recipe(name), nl=False)


def _read_recipe(name: str) -> str:
    """Text of a shipped recipe."""
    from fastnet.recipes import recipe_names

    if name not in recipe_names():
        raise unknown_name("recipe", name, recipe_names())
    return files("fastnet.recipes").joinpath(f"{name}.toml").read_text("utf-8")


def _list_recipes() -> None:
    from rich.console import Console
    from rich.table import Table

    from fastnet.recipes import load_recipe, recipe_names

    table = Table("recipe", "what it is", box=None, pad_edge=False)
    for name in recipe_names():
        table.add_row(name, load_recipe(name).title)
    Console().print(table)
