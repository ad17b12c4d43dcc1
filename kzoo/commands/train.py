"""`kzoo train`: a recipe, every field of which is a flag."""

import contextlib
import sys
from collections.abc import Sequence

from kzoo.console import fail, show_json
from kzoo.recipe import list_recipes, load_recipe
from kzoo.train.cli import run as train

JSON = "--json"


def run(args: Sequence[str]) -> None:
    recipes = ", ".join(list_recipes())
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: kzoo train RECIPE [{JSON}] [OPTIONS]\n\nRecipes: {recipes}; or the path of a recipe file.")
        print("A recipe file is Python code and is run: give one that you have read, or whose author you trust.")
        print(f"{JSON} prints the run's report as JSON, and progress to standard error.\n")
        if not args:
            print("kzoo train RECIPE --help shows the options.")
            raise SystemExit(2)
        args = ["quickstart", "--help"]
    if args[0].startswith("-"):
        fail(f"the recipe comes first: kzoo train RECIPE {' '.join(args)}; there are {recipes}")
    recipe, prog, options = load_recipe(args[0]), f"kzoo train {args[0]}", list(args[1:])
    if JSON not in options:
        train(recipe, options, prog)
        return
    options.remove(JSON)
    with contextlib.redirect_stdout(sys.stderr):
        report = train(recipe, options, prog)
    show_json(report)
