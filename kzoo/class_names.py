"""Names of the classes that a model tells apart: the user's, a card's, a recipe's or ImageNet's."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from kzoo.edge import read_card
from kzoo.errors import InvalidValueError

FILES = (".keras", ".tflite")


def known_classes(model: str, count: int) -> tuple[str, ...] | None:
    """Names of the classes of a file or a name of the zoo, where somebody told them.

    They are in the card of a LiteRT file, in the report of the recipe that wrote the file, or, for 1000 classes,
    ImageNet's.
    """
    if model.endswith(".tflite") and (card := read_card(model)) and card.classes and len(card.classes) == count:
        return card.classes
    recipes = _recipe_classes(Path(model), count) if model.endswith(FILES) else None
    imagenet = imagenet_classes()
    return tuple(recipes) if recipes else imagenet if len(imagenet) == count else None


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names of ImageNet-1K in the order of their WordNet numbers, as torchvision spells them."""
    file = resources.files("kzoo.weights") / "imagenet_classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def read_labels(path: Path) -> list[str]:
    """The lines of a text file that are not empty; raises `InvalidValueError` if it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(
            f"cannot read the labels in {path} ({error}); give a text file, a class a line"
        ) from error


def check_labels(labels: Sequence[str], count: int, model: str) -> tuple[str, ...]:
    """The labels; raises `InvalidValueError` unless there is one for each class of the model."""
    if len(labels) != count:
        raise InvalidValueError(f"there are labels for {len(labels)} classes, {model} has {count}")
    return tuple(labels)


def _recipe_classes(model: Path, count: int) -> list[str] | None:
    """The classes that the recipe's report beside a model lists, if there is one."""
    try:
        classes = json.loads(model.with_name("report.json").read_text(encoding="utf-8"))["dataset"]["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return classes if isinstance(classes, list) and len(classes) == count else None
