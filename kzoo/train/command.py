"""The commands that run a recipe again, and export what it trained."""

import shlex
from pathlib import Path

from kzoo.recipe import Hardware, Recipe, flags_of, list_recipes, load_recipe
from kzoo.train.defaults import CHOSEN, recipe_for

# where a run is, which makes no other run of it
PLACES = ("data_dir", "output_dir", "resume", *flags_of("hardware", Hardware))


def command_of(recipe: Recipe) -> str | None:
    """`kzoo train NAME` with a flag for each field in which the recipe differs from that of its name, or `kzoo train
    MODEL DATA` with a flag for what would be chosen too.

    Returns:
        The command; None for a recipe that no name and flags lead to, such as one from a file of the user's own.

    Example:
        >>> command_of(load_recipe("quickstart").replace(seed=3))
        'kzoo train quickstart --seed 3'
    """
    dataset, given = recipe.data.dataset, frozenset[str]()
    if recipe.name in list_recipes():
        named, words = load_recipe(recipe.name), ["kzoo", "train", recipe.name]
    elif recipe.name == (named := recipe_for(recipe.model, dataset)).name:
        words, given = ["kzoo", "train", recipe.model, dataset], CHOSEN
    else:
        return None
    before = named.flags()
    for name, value in recipe.flags().items():
        if name in PLACES or (value == before.get(name) and name not in given):
            continue
        if isinstance(value, dict):
            return None
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def export_command_of(recipe: Recipe, directory: Path) -> str:
    """`kzoo export` for a finished run, with the precisions of its recipe.

    Args:
        recipe: with at least one precision in `export`.
        directory: of the run.
    """
    output = directory if len(recipe.export) > 1 else directory / f"model_{recipe.export[0]}.tflite"
    words = ["kzoo", "export", str(directory / "folded.keras"), str(output), "--precision", *recipe.export]
    where = ["--data-dir", recipe.data.data_dir] if recipe.data.data_dir else []
    return shlex.join([*words, "--dataset", recipe.data.dataset, *where])
