"""`kzoo train`: a recipe, or a model and pictures with settings chosen for them."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kzoo.console import fail, make_table, parse, show, show_json
from kzoo.errors import InvalidValueError, OutputError, UnknownNameError, did_you_mean
from kzoo.escape import terminal
from kzoo.files import write_text
from kzoo.recipe import Recipe, is_recipe, list_recipes, load_recipe, to_python
from kzoo.registry import list_models
from kzoo.tasks import task_of
from kzoo.train.cli import for_model
from kzoo.train.defaults import Choice, choose, choose_size, recipe_for
from kzoo.train.loop import fetch_weights, train

USAGE = """usage: kzoo train RECIPE [OPTIONS]
       kzoo train MODEL DATA [OPTIONS]

RECIPE is one of {recipes}; or the path of a recipe file.
A recipe file is Python code and is run: give one that you have read, or whose author you trust.
MODEL is a name of `kzoo list`, DATA a folder of pictures or a dataset by name. What no option says is chosen for them
and shown before training; --weights imagenet fine-tunes public weights.

  --json              print the run's report as JSON, and progress to standard error
  --save-recipe FILE  write the recipe to a Python file, and train nothing

Each setting of a recipe is an option; a model for segmentation has others for its task (kzoo train unet DATA --help).
"""


def run(args: Sequence[str]) -> None:
    recipes = ", ".join(list_recipes())
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(recipes=recipes))
        if not args:
            raise SystemExit(2)
        args = ["quickstart", "--help"]
    if args[0].startswith("-"):
        fail(f"a recipe or a model comes first: kzoo train RECIPE {' '.join(args)}; recipes are {recipes}")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save-recipe", type=Path)
    own, options = parser.parse_known_args(args[1:])
    with contextlib.redirect_stdout(sys.stderr) if own.json else contextlib.nullcontext():
        with_data = options and not options[0].startswith("-")
        recipe = _chosen(args[0], *options, fetch=own.save_recipe is None) if with_data else _named(args[0], options)
        report = None if own.save_recipe else train(recipe)
    if own.save_recipe:
        _save(recipe, own.save_recipe)
    elif own.json:
        show_json(report)


def _named(name: str, options: Sequence[str]) -> Recipe:
    """A recipe with its settings changed by options."""
    if not is_recipe(name) and name in list_models():
        raise InvalidValueError(
            f"{name} is a model; say what to train it on: kzoo train {name} DATA, a folder of pictures or a dataset"
        )
    try:
        recipe = load_recipe(name)
    except UnknownNameError:
        raise UnknownNameError(
            f"unknown recipe or model {name!r}{did_you_mean(name, [*list_recipes(), *list_models()])}; recipes are "
            f"{', '.join(list_recipes())}, and kzoo list shows the models"
        ) from None
    return parse(Recipe, options, f"kzoo train {name}", default=for_model(recipe, options), description=_about(recipe))


def _chosen(model: str, dataset: str, *options: str, fetch: bool) -> Recipe:
    """The recipe for a model and pictures: what the options say, and what is chosen for the rest.

    With `fetch` the weights are had before the pictures are looked at.
    """
    if is_recipe(model):
        raise InvalidValueError(f"{model} is a recipe, which has its data; kzoo train {model} --dataset {dataset}")
    prog, base = f"kzoo train {model} {dataset}", recipe_for(model, dataset)

    def said(default: Recipe) -> Recipe:
        return parse(Recipe, options, prog, default=default, description=_about(base))

    sizes = choose_size(said(base))
    base = _with(base, sizes)
    recipe = said(base)
    if fetch:
        fetch_weights(recipe)
    data = task_of(model).load(recipe.data, recipe.task, recipe.seed)
    choices = choose(recipe, data)
    recipe = said(_with(base, choices))
    flags = recipe.flags()
    table = make_table("setting", "chosen", "why")
    for choice in (*sizes, *choices):
        value = list(choice.value) if isinstance(choice.value, tuple) else choice.value
        if flags[choice.flag] == value:
            shown = " ".join(value) if isinstance(value, list) else str(value)
            table.add_row(f"--{choice.flag.replace('_', '-')}", shown, choice.reason)
    show(table)
    return recipe


def _with(recipe: Recipe, choices: Sequence[Choice]) -> Recipe:
    return recipe.replace(**{choice.flag: choice.value for choice in choices})


def _about(recipe: Recipe) -> str:
    return f"Train the recipe {recipe.name}." if is_recipe(recipe.name) else f"Train {recipe.model}."


def _save(recipe: Recipe, path: Path) -> None:
    if path.suffix != ".py":
        raise InvalidValueError(f"--save-recipe {path} must end in .py")
    if path.exists():
        raise OutputError(f"{path} exists; give another name, or remove it")
    write_text(path, to_python(recipe, f"{recipe.model} on {recipe.data.dataset}.\n\n    kzoo train {path}\n"))
    show(f"written; train it with: kzoo train {terminal(str(path))}")
