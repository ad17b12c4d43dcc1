"""What outputs mean to training and to people: loss, metrics, scores and pictures of each task."""

from kzoo.errors import InvalidValueError
from kzoo.output import UNKNOWN, Output
from kzoo.recipe import Recipe
from kzoo.registry import DETECTION, SEGMENTATION, lookup
from kzoo.tasks.classification import Classification
from kzoo.tasks.detection import Detection
from kzoo.tasks.multi_label import MultiLabel
from kzoo.tasks.segmentation import Segmentation
from kzoo.tasks.task import Column, Evaluated, Task

__all__ = [
    "Classification",
    "Column",
    "Detection",
    "Evaluated",
    "MultiLabel",
    "Segmentation",
    "Task",
    "task_of",
    "task_of_output",
]


def task_of(recipe: Recipe) -> Task:
    """The task of a recipe's model on its data."""
    return _named(lookup(recipe.model).task, recipe.data.label_separator is not None)


def task_of_output(output: Output, model: str) -> Task:
    """The task of an output; `model` begins the `InvalidValueError` if it has none."""
    if output.task == UNKNOWN:
        raise InvalidValueError(
            f"{model} gives neither (images, classes) nor maps (images, height, width, classes), nor boxes and scores"
        )
    return _named(output.task, output.multi_label)


def _named(task: str, multi_label: bool) -> Task:
    if task == SEGMENTATION:
        return Segmentation()
    if task == DETECTION:
        return Detection()
    return MultiLabel() if multi_label else Classification()
