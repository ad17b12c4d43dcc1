"""The command line of a recipe: every field of it is a flag."""

import argparse
import sys
from collections.abc import Sequence

from kzoo.console import parse, user_errors
from kzoo.recipe import Recipe
from kzoo.train.loop import train


def for_model(recipe: Recipe, args: Sequence[str]) -> Recipe:
    """The recipe with the model of the arguments, which decides what else they may be."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", nargs="?")
    model = parser.parse_known_args(args)[0].model
    return recipe.replace(model=model) if model else recipe


def main(recipe: Recipe) -> None:
    """The command line of a recipe file: `python recipes/NAME.py --epochs 3`."""
    prog, *args = sys.argv
    with user_errors():
        options, description = for_model(recipe, args), f"Train the recipe {recipe.name}."
        train(parse(Recipe, args, prog, default=options, description=description))
