"""`kzoo train`: a recipe, or a model and pictures with settings chosen for them."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kzoo.commands.train_words import USAGE, own_options
from kzoo.console import make_table, parse, show, show_json
from kzoo.errors import InvalidValueError, OutputError
from kzoo.escape import terminal
from kzoo.files import write_text
from kzoo.recipe import Recipe, is_recipe, list_recipes, load_recipe, to_python
from kzoo.tasks import task_of
from kzoo.train.cli import for_model
from kzoo.train.defaults import Choice, choose, choose_size, recipe_for
from kzoo.train.devices import find_devices
from kzoo.train.loop import fetch_weights, train


def run(args: Sequence[str]) -> None:
    if args[0] in ("-h", "--help"):
        print(USAGE.format(recipes=", ".join(list_recipes())))
        args = ["quickstart", "--help"]
    own, options = own_options(args[1:])
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
    recipe = load_recipe(name)
    return parse(Recipe, options, f"kzoo train {name}", default=for_model(recipe, options), description=_about(recipe))


def _chosen(model: str, dataset: str, *options: str, fetch: bool) -> Recipe:
    """The recipe for a model and pictures: what the options say, and what is chosen for the rest.

    With `fetch` the weights are had before the pictures are looked at.
    """
    prog, base = f"kzoo train {model} {dataset}", recipe_for(model, dataset)

    def said(default: Recipe) -> Recipe:
        return parse(Recipe, options, prog, default=default, description=_about(base))

    sizes = choose_size(said(base))
    base = _with(base, sizes)
    recipe = said(base)
    if fetch:
        if recipe.hardware.coordinator is None:  # else they are found together
            find_devices(recipe.hardware)
        fetch_weights(recipe)
    data = task_of(recipe).load(recipe.data, recipe.task, recipe.seed)
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
