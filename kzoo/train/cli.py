"""The command line of a recipe: every field of it is a flag."""

import sys
from collections.abc import Sequence

from kzoo.console import parse, user_errors
from kzoo.recipe import Recipe
from kzoo.train.loop import train


def run(recipe: Recipe, args: Sequence[str], prog: str) -> dict:
    """Trains `recipe` with its fields changed by `args`; returns the contents of `report.json`."""
    with user_errors():
        return train(parse(Recipe, args, prog, default=recipe, description=f"Train the recipe {recipe.name}."))


def main(recipe: Recipe) -> None:
    """The command line of a recipe file: `python recipes/NAME.py --epochs 3`."""
    run(recipe, sys.argv[1:], sys.argv[0])
