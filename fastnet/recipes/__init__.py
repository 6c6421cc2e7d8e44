"""Recipes: networks to train by name, shipped as TOML files, or a user's own."""

from fastnet.recipes.expectation import Expectation, Finding, check_expectations
from fastnet.recipes.recipe import Recipe, load_recipe, recipe_names
from fastnet.recipes.run import PreparedRun, prepare

__all__ = [
    "Expectation",
    "Finding",
    "PreparedRun",
    "Recipe",
    "check_expectations",
    "load_recipe",
    "prepare",
    "recipe_names",
]
