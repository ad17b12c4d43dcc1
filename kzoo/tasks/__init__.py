"""What outputs mean to training and to people: loss, metrics, scores and pictures of each task."""

from kzoo.errors import InvalidValueError
from kzoo.output import UNKNOWN, Output
from kzoo.registry import lookup
from kzoo.tasks.classification import Classification
from kzoo.tasks.segmentation import Segmentation
from kzoo.tasks.task import Column, Evaluated, Task

__all__ = ["Classification", "Column", "Evaluated", "Segmentation", "Task", "named", "task_of", "task_of_output"]


def task_of(model: str) -> Task:
    """The task of a model of the zoo."""
    return named(lookup(model).task)


def task_of_output(output: Output, model: str) -> Task:
    """The task of an output; `model` begins the `InvalidValueError` if it has none."""
    if output.task == UNKNOWN:
        raise InvalidValueError(f"{model} gives neither (images, classes) nor maps (images, height, width, classes)")
    return named(output.task)


def named(task: str) -> Task:
    """`"classification"` or `"segmentation"`."""
    return {one.name: one for one in (Classification(), Segmentation())}[task]
