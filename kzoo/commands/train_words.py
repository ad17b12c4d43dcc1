"""The words of `kzoo train`: what they cannot mean is said from the catalogue, before anything heavy is loaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kzoo.commands.catalogue import read_catalogue
from kzoo.console import fail
from kzoo.data.tables import is_table
from kzoo.errors import (
    DatasetError,
    InvalidValueError,
    KzooError,
    UnknownNameError,
    UnknownOptionError,
    did_you_mean,
)
from kzoo.recipe import flag_types, is_recipe, list_recipes
from kzoo.registry import CLASSIFICATION

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


def own_options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """`--json` and `--save-recipe` of the words behind the first, and the others: perhaps DATA, and settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save-recipe", type=Path)
    return parser.parse_known_args(words)


def check_words(words: Sequence[str]) -> None:
    """Ends the process, with the usage or one line, where the words behind `kzoo train` cannot be right.

    Raises:
        UnknownNameError: the first is no recipe and no model.
        InvalidValueError: a model without pictures, a recipe with some, or both the wrong way round.
        DatasetError: pictures by a path that is not there.
        UnknownOptionError: an option that no recipe has.
    """
    recipes = ", ".join(list_recipes())
    if not words:
        print(USAGE.format(recipes=recipes))
        raise SystemExit(2)
    first, *rest = words
    if first in ("-h", "--help"):
        return
    check_first(words, "train", "a recipe or a model")
    _, options = own_options(rest)
    data = options[0] if options and not options[0].startswith("-") else None
    tasks = {model.name: model.task for model in read_catalogue()}
    if is_recipe(first):
        if data is not None:
            raise InvalidValueError(f"{first} is a recipe, which has its data; kzoo train {first} --dataset {data}")
    elif first not in tasks:
        raise _unknown(first, data, list(tasks))
    elif data is None:
        raise InvalidValueError(
            f"{first} is a model; say what to train it on: kzoo train {first} DATA, a folder of pictures or a dataset"
        )
    else:
        _check_data(data, tasks[first])
    check_flags(options, " ".join(["kzoo train", first, *([data] if data else [])]))


def check_first(words: Sequence[str], command: str, what: str) -> None:
    """Ends the process with one line if an option stands where `what` a command is about must, or nothing does."""
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        usage = " ".join(["kzoo", command, "RECIPE", *words])
        fail(f"{what} comes first: {usage}; recipes are {', '.join(list_recipes())}")


def _unknown(first: str, data: str | None, models: Sequence[str]) -> KzooError:
    """What is wrong with a first word that is neither a recipe nor a model."""
    if data in models:
        return InvalidValueError(f"the model comes first, then the pictures: kzoo train {data} {first}")
    if Path(first).is_dir() or is_table(first):
        return InvalidValueError(f"{first} are pictures; the model comes first: kzoo train MODEL {first}")
    if data is not None:
        return UnknownNameError(f"unknown model {first!r}{did_you_mean(first, models) or '; kzoo list shows all'}")
    return UnknownNameError(
        f"unknown recipe or model {first!r}{did_you_mean(first, [*list_recipes(), *models])}; recipes are "
        f"{', '.join(list_recipes())}, and kzoo list shows the models"
    )


def _check_data(data: str, task: str) -> None:
    """Raises if pictures are given by a path that is not there; what may be a name is looked up later."""
    if is_table(data) and not Path(data).is_file():
        raise DatasetError(f"no table at {data!r}")
    # with a slash at its end, masks may be in a folder of that name in --data-dir
    is_path = data.startswith(("/", ".", "~")) or (data.endswith("/") and task == CLASSIFICATION)
    if is_path and not is_table(data) and not Path(data).is_dir():
        raise DatasetError(f"no folder at {data!r}")


def check_flags(options: Sequence[str], command: str) -> None:
    """Raises if an option is one of no recipe, whatever its task.

    Raises:
        UnknownOptionError: it is.
    """
    flags = [f"--{name.replace('_', '-')}" for name in flag_types()]
    known = {"--help", *flags, *(flag.replace("--", "--no-", 1) for flag in flags)}
    for word in options:
        flag = word.split("=")[0].replace("_", "-")
        if word.startswith("--") and flag not in known:
            raise UnknownOptionError(f"unknown option {flag}{did_you_mean(flag, flags)} (see {command} --help)")
