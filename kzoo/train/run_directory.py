"""The directory of a run: fresh, gone on with, or kept aside; and the room that it needs."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import keras

from kzoo.console import show
from kzoo.data.split import ImageDataset
from kzoo.errors import InvalidValueError, OutputError, counted
from kzoo.escape import terminal
from kzoo.files import LOCK, PARTIAL, ensure_writable, exclusive, write_text
from kzoo.reading import check_type, read_json
from kzoo.recipe import Data, Recipe, stored_flags
from kzoo.train.checkpoints import KEPT, Checkpoints, build_optimizer
from kzoo.train.command import PLACES
from kzoo.train.history import AGAIN, count_rows
from kzoo.train.splits import check_splits, write_splits

RECIPE, CLASSES, HISTORY = "recipe.json", "classes.json", "history.csv"
# fields that may differ between an interrupted run and the one that goes on
FREE = ("epochs", "patience", "checkpoint_minutes", "jit_compile", "export", *PLACES)
LOGS_BYTES = 4 * 2**20  # logs and pictures
FINISHED = 4  # finished files as large as the weights


def checkpoints_of(directory: Path) -> Checkpoints:
    """The checkpoints of a run."""
    return Checkpoints(directory / "checkpoints")


def prepare(recipe: Recipe, data: ImageDataset, directory: Path) -> None:
    """Makes the directory ready for a recipe and its data: empty, or with the same one's run in it.

    Raises:
        OutputError: it holds something else, or what cannot be gone on from.
    """
    ensure_writable(directory)
    stored = directory / RECIPE
    if not stored.exists() and any(PARTIAL not in path.name and path.name != LOCK for path in directory.iterdir()):
        raise OutputError(f"{directory} holds other files and no run; choose another --output-dir")
    if not recipe.resume and stored.exists():
        _move_aside(directory)
    with exclusive(directory):
        checkpoints = checkpoints_of(directory)
        checkpoints.sweep()
        marks = checkpoints.marks()
    if marks:
        _check_settings(recipe, directory, marks[0].epochs)
        _check_classes(data.classes, directory)
        check_splits(data, directory)
    if checkpoints.epochs():
        return
    # the first epoch may have been killed behind its row and its best
    told = max(count_rows(directory / HISTORY), *checkpoints.epochs("best"), 0)
    if told > 1:
        raise OutputError(
            f"{directory} tells of {counted(told, 'epoch')} and holds no checkpoint; put it back, or {AGAIN}"
        )


def _move_aside(directory: Path) -> None:
    number = next(n for n in range(1, 10_000) if not directory.with_name(f"{directory.name}.{n}").exists())
    with exclusive(directory):
        aside = directory.rename(directory.with_name(f"{directory.name}.{number}"))
    show(f"the earlier run is kept in {terminal(str(aside))}")
    ensure_writable(directory)


def describe(recipe: Recipe, data: ImageDataset, directory: Path) -> None:
    """Writes down what a run that goes on must have again."""
    write_text(directory / RECIPE, json.dumps(recipe.to_json(), indent=2) + "\n")
    write_text(directory / CLASSES, json.dumps(data.classes, indent=2) + "\n")
    write_splits(data, directory)


def _check_classes(classes: Sequence[str], directory: Path) -> None:
    """Raises unless the run of `directory` learned these classes in this order; an older run does not tell."""
    if not (directory / CLASSES).exists():
        return
    try:
        before = read_json(directory / CLASSES)
        check_type(before, list[str], str(directory / CLASSES))
    except InvalidValueError as error:
        raise OutputError(f"{error}; put it back, or {AGAIN}") from error
    pairs = itertools.zip_longest(before, classes)
    for number, (old, new) in enumerate(pairs, start=1):
        if old != new:
            raise OutputError(
                f"{directory} holds a run on {counted(len(before), 'class', 'classes')} and the dataset has "
                f"{len(classes)}, of which number {number} was {old!r} and is {new!r}; put the dataset "
                f"back, choose another --output-dir, or {AGAIN}"
            )


def _check_settings(recipe: Recipe, directory: Path, done: int) -> None:
    """Raises unless the run of `directory` has the settings of `recipe`."""
    try:
        before = read_json(directory / RECIPE)
        if not isinstance(before, dict):
            raise InvalidValueError(f"{directory / RECIPE} holds no recipe")
    except InvalidValueError as error:
        raise OutputError(f"{error}; put it back, or {AGAIN}") from error
    now, defaults = recipe.flags(), Recipe(name="", model=recipe.model, data=Data("")).flags()
    before = defaults | stored_flags(before)  # an older run lacks newer settings
    changed = [key for key in now if key not in FREE and before[key] != now[key]]
    if changed:
        changes = ", ".join(f"{key} {before[key]!r} -> {now[key]!r}" for key in changed)
        raise OutputError(
            f"{directory} holds a run with other settings ({changes}); choose another --output-dir, or {AGAIN}"
        )
    if done > recipe.schedule.epochs:
        raise OutputError(
            f"{directory} holds a run of {counted(done, 'epoch')}, more than the {recipe.schedule.epochs} asked for; "
            f"choose another --output-dir, or {AGAIN}"
        )


def missing_bytes(model: keras.Model, directory: Path) -> int:
    """How much room a run still needs, besides what its directory takes up already.

    Args:
        model: compiled.
        directory: of the run.
    """
    build_optimizer(model)
    weights, state = (_bytes(variables) for variables in (model.weights, model.optimizer.variables))
    # each kept checkpoint of an epoch, of the best and inside an epoch, and one of each more while that is replaced
    whole = 2 * (KEPT + 2) * (weights + state) + FINISHED * weights
    taken = sum(path.stat().st_size for path in directory.rglob("*.keras") if path.is_file())
    return max(whole - taken, weights + state) + LOGS_BYTES


def _bytes(variables: list[keras.Variable]) -> int:
    return sum(4 * math.prod(variable.shape) for variable in variables)
