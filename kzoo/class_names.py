"""What an opened model's output means, and the names of its classes: the user's, a card's, a recipe's, ImageNet's."""

import logging
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import keras
import numpy as np

from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError, counted
from kzoo.last_operation import BOXES
from kzoo.output import UNKNOWN, Output, Values
from kzoo.reading import read_report, read_text

_log = logging.getLogger("kzoo")
FILES = (".keras", ".tflite")


def known_output(
    name: str,
    model: keras.Model | LiteRTModel,
    class_names: Sequence[str] | None = None,
    values: Values | None = None,
) -> Output:
    """What the output of an opened model means, by all that tells: its graph, its card, its run's report, its user.

    Args:
        name: path of a file or name of the zoo.
        model: model that was opened.
        class_names: names of the classes, which go before all others.
        values: meaning of the values, of a model that does not tell.

    Raises:
        InvalidValueError: several outputs, names or values that do not fit, or a card of another output.
    """
    output = _own_output(name, model)
    if name.endswith(FILES):
        output = _told_by_report(Path(name), output)
    if values is not None:
        output = output.said(values, name)
    return output if class_names is None else output.named(check_class_names(class_names, output.num_classes, name))


def display_names(output: Output) -> tuple[str, ...]:
    """Names of the classes to show: those that are known, ImageNet's for 1000 classes, or their numbers."""
    if output.class_names is None and output.num_classes == len(imagenet := imagenet_classes()):
        return imagenet
    return output.names


def match_classes(output: Output, class_names: Sequence[str], model: str, dataset: str) -> Callable:
    """The function that turns labels of a dataset into a model's; what is no class, such as void, stays as it is.

    Of several labels (n, classes) each goes to the place of its class, and a class that the dataset lacks counts as
    absent from every image, which a warning tells.

    Classes are matched by name where the model has names, and the dataset may lack some of them; else by their order.

    Args:
        output: meaning of the model's output.
        class_names: names of the dataset's classes.
        model: name of the model in an error.
        dataset: name of the dataset in an error.

    Raises:
        InvalidValueError: names that the model does not have, or has twice; of a model without names another number of
            classes.
    """
    names = output.class_names
    if names is None and output.num_classes != len(class_names):
        raise InvalidValueError(
            f"{model} gives {output.num_classes} classes, {dataset} has "
            f"{counted(len(class_names), 'class', 'classes')}; use the dataset that the model was trained on, or name "
            "the model's classes with --labels: then some may be missing"
        )
    if names is None or names == tuple(class_names):
        return lambda labels: labels
    if unknown := [name for name in class_names if names.count(name) != 1]:
        raise InvalidValueError(
            f"{dataset} has {_listed(unknown)}, which {model} does not know, or has twice; it was made for classes "
            f"{_listed(names)}: give both the same names, or name the model's classes in the order of its output with "
            "--labels"
        )
    order = np.array([names.index(name) for name in class_names], int)
    if output.multi_label:
        if lacking := [name for name in names if name not in class_names]:
            _log.warning(f"{dataset} has no {_listed(lacking)}: these count as absent from every image")
        return lambda labels: labels @ np.eye(len(names), dtype=labels.dtype)[order]

    def relabel(labels: np.ndarray) -> np.ndarray:
        known = (labels >= 0) & (labels < len(order))
        return np.where(known, order[np.where(known, labels, 0)], labels).astype(labels.dtype)

    return relabel


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names of ImageNet-1K in the order of their WordNet numbers, as torchvision spells them."""
    file = resources.files("kzoo.weights") / "imagenet_classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def read_class_names(path: Path) -> list[str]:
    """The lines of a text file that are not empty; raises `InvalidValueError` if it cannot be read."""
    try:
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except InvalidValueError as error:
        raise InvalidValueError(
            f"cannot read the labels in {path} ({error}); give a text file, a class a line"
        ) from error


def check_class_names(class_names: Sequence[str], count: int, model: str) -> tuple[str, ...]:
    """The names; raises `InvalidValueError` unless there is one for each class of the model."""
    if len(class_names) != count:
        raise InvalidValueError(
            f"there are labels for {counted(len(class_names), 'class', 'classes')}, {model} has {count}"
        )
    return tuple(class_names)


def _own_output(name: str, model: keras.Model | LiteRTModel) -> Output:
    """What a model or file tells of its output by itself or by its card."""
    if isinstance(model, keras.Model):
        return Output.of_model(model)
    own, card = Output.of_file(model), read_card(name)
    if card is None:
        return own
    if (card.output.task, card.output.units) != (own.task, own.units):
        raise InvalidValueError(
            f"the card of {name} is of {card.output.units} units for {card.output.task}, and the file gives "
            f"{own.units} for {own.task}; remove the card or export again"
        )
    if card.output.suppression is not None:
        try:
            card.output.suppression.check_places(int(model.outputs[BOXES]["shape"][1]), "the file")
        except InvalidValueError as error:
            raise InvalidValueError(
                f"the card of {name} cannot be right: {error}; remove the card or export again"
            ) from error
    if own.values in ("softmax", "sigmoid") and card.output.values not in (own.values, UNKNOWN):
        raise InvalidValueError(
            f"the card of {name} says {card.output.values}, and the file ends in {own.values}; remove the card or "
            "export again"
        )
    return card.output


def _told_by_report(model: Path, output: Output) -> Output:
    """The output with what the report beside the model's file knows better, which the recipe that made it left."""
    report = read_report(model)
    if "output" in report:
        try:
            told = Output.from_json(report["output"])
        except InvalidValueError as error:
            raise InvalidValueError(f"{model.with_name('report.json')} cannot be right: {error}; remove it") from error
    else:  # of an older run
        classes = report.get("dataset", {}).get("classes", ())
        told = output.named(classes) if len(classes) == output.num_classes else output
    if (told.task, told.units) != (output.task, output.units):
        return output
    if output.values == UNKNOWN:
        return told.named(output.class_names or told.class_names)
    return output.named(output.class_names or told.class_names)


def _listed(names: Sequence[str]) -> str:
    """Names for an error: all of them, or the first ten."""
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
