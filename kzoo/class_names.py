"""Names of the classes that a model tells apart: the user's, a card's, a recipe's or ImageNet's."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from kzoo.edge import read_card
from kzoo.errors import InvalidValueError
from kzoo.reading import check_type, read_json, read_text

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
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except InvalidValueError as error:
        raise InvalidValueError(f"{error}; labels are a text file in UTF-8, a class a line") from error


def check_labels(labels: Sequence[str], count: int, model: str) -> tuple[str, ...]:
    """The labels; raises `InvalidValueError` unless there is one for each class of the model."""
    if len(labels) != count:
        raise InvalidValueError(f"there are labels for {len(labels)} classes, {model} has {count}")
    return tuple(labels)


def _recipe_classes(model: Path, count: int) -> list[str] | None:
    """The classes that the recipe's report beside a model lists, if there is one."""
    classes = read_report(model).get("dataset", {}).get("classes")
    return classes if classes is not None and len(classes) == count else None


def read_report(model: Path) -> dict[str, Any]:
    """The report that a recipe left beside a model's file; empty where there is none, or somebody else's.

    Raises:
        InvalidValueError: it is no JSON, or the classes in it are no names.
    """
    path = model.with_name("report.json")
    report = read_json(path) if path.is_file() else {}
    parts = ("recipe", "dataset")
    if not isinstance(report, dict) or not all(isinstance(report.get(part, {}), dict) for part in parts):
        return {}
    if "classes" in report.get("dataset", {}):
        check_type(report["dataset"]["classes"], list[str], f"{path}: classes of the dataset")
    return report
