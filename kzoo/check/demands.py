"""What the checks ask of each task: the outputs that a model must have, and how a step trains it."""

from typing import Any, Protocol

import keras
import numpy as np

from kzoo.detection.learner import BoxLearner
from kzoo.detection.losses import LOSSES
from kzoo.errors import CheckFailed
from kzoo.models.detector import raw_outputs
from kzoo.registry import CLASSIFICATION, DETECTION, SEGMENTATION

CLASSES = 10


class Demands(Protocol):
    """What the checks ask of the models of a task.

    Attributes:
        activation: `classifier_activation=` of the narrow models.
    """

    activation: str | None

    def check_outputs(self, model: keras.Model) -> None:
        """Raises `CheckFailed` unless the outputs have the shapes of the task with `CLASSES` classes."""

    def in_training(self, model: keras.Model) -> keras.Model:
        """The model with the outputs that its loss takes, on the same weights."""

    def loss(self, model: keras.Model) -> keras.losses.Loss:
        """The loss of these, one number."""

    def truth(self, model: keras.Model, number: int) -> Any:
        """What the loss is told of `number` images."""

    def learning_rate(self, model: keras.Model) -> float:
        """A rate of a step in which a small gradient moves a large weight too."""


class Labels:
    """Of models that give logits of each class, for an image or for each of its pixels.

    Args:
        rank: of the outputs.
    """

    activation: str | None = None

    def __init__(self, rank: int):
        self.rank = rank

    def check_outputs(self, model: keras.Model) -> None:
        shape = model.output.shape
        if len(shape) != self.rank or shape[-1] != CLASSES:
            raise CheckFailed(f"the output is {shape}, not {CLASSES} numbers for each image or pixel")

    def in_training(self, model: keras.Model) -> keras.Model:
        return model

    def loss(self, model: keras.Model) -> keras.losses.Loss:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def truth(self, model: keras.Model, number: int) -> np.ndarray:
        shape = (number, *model.output.shape[1:-1])
        return np.arange(np.prod(shape)).reshape(shape) % CLASSES

    def learning_rate(self, model: keras.Model) -> float:
        return float(np.prod(model.output.shape[1:-1]))  # the loss is a mean over pixels


class Boxes:
    """Of detectors, which give boxes and their scores, and are trained on what these are computed from."""

    activation: str | None = "sigmoid"

    def check_outputs(self, model: keras.Model) -> None:
        places = model.get_layer("head_boxes").places.count
        shapes = {name: tuple(output.shape[1:]) for name, output in model.output.items()}
        expected = {"boxes": (places, 4), "scores": (places, CLASSES)}
        if shapes != expected:
            raise CheckFailed(f"the outputs are {shapes}, not {expected}")

    def in_training(self, model: keras.Model) -> keras.Model:
        raw = raw_outputs(model)
        return BoxLearner(raw.input, raw.output)

    def loss(self, model: keras.Model) -> keras.losses.Loss:
        decoder = model.get_layer("head_boxes")
        return LOSSES[decoder.kind](decoder.places)

    def truth(self, model: keras.Model, number: int) -> dict[str, np.ndarray]:
        """Boxes of all sizes, three in each image but the first, which has none."""
        rng = np.random.default_rng(3)
        corners = np.sort(rng.uniform(0, 1, (number, 3, 2, 2)), axis=2)
        classes = rng.integers(0, CLASSES, (number, 3))
        classes[0] = -1
        return {"boxes": corners.reshape(number, 3, 4).astype("float32"), "classes": classes}

    def learning_rate(self, model: keras.Model) -> float:
        return 1.0  # the loss is a mean over boxes


DEMANDS: dict[str, Demands] = {CLASSIFICATION: Labels(rank=2), SEGMENTATION: Labels(rank=4), DETECTION: Boxes()}
