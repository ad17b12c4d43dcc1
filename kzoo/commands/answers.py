"""What a model says of a picture, and what of that is explained: classes, areas or detections."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.detection.suppression import RETINANET
from kzoo.explain.boxes import Box
from kzoo.explain.detections import found_boxes, same_boxes
from kzoo.explain.perturbation import box_outputs
from kzoo.images import read_picture
from kzoo.images.boxes import draw_boxes
from kzoo.images.overlay import draw_overlay
from kzoo.last_operation import BOXES
from kzoo.predict.classifier import Opened, as_classifier
from kzoo.predict.segmenter import as_segmenter, class_areas

SHOWN = 5  # classes of a picture in the table
EXPLAINED = 2  # classes of which maps are made where nobody says which


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a picture.

    Attributes:
        predictions: as `kzoo.explain.shown.Explained` has them.
        targets: what is explained: indices of classes, or detections.
        mask: the image with classes or boxes.
    """

    predictions: list[dict]
    targets: Sequence[Any]
    mask: Image.Image | None = None


def answering(
    opened: Opened, classes: Sequence[int] = (), numbers: Sequence[int] = ()
) -> Callable[[np.ndarray], Answer]:
    """The function from an image of a model to its answer.

    Args:
        opened: model.
        classes: indices of the classes that are explained; none: the best two, or of a detector the three
            surest boxes.
        numbers: numbers of the detections that are explained, instead.
    """
    if opened.output.detects:
        find, rule, names = _finder(opened), opened.output.suppression or RETINANET, opened.class_names

        def boxes(image: np.ndarray) -> Answer:
            rows, found = found_boxes(find(image), rule, names, classes, numbers)
            return Answer(rows, found, _drawn(image, rows))

        return boxes
    say = _segmenter(opened) if opened.output.task == "segmentation" else _classifier(opened)

    def answer(image: np.ndarray) -> Answer:
        predictions, mask = say(image)
        return Answer(predictions, classes or [found["index"] for found in predictions[:EXPLAINED]], mask)

    return answer


def answering_again(
    opened: Opened, first: Opened, same: dict[int, int]
) -> Callable[[np.ndarray, str | Path, Answer], Answer]:
    """The function from an image of a second model to its answer, with what was explained of the first.

    Args:
        opened: second model.
        first: first model.
        same: index of a class of the first -> that of the second.

    Returns:
        A function of the image, the path of its picture, and the first model's answer to this.
    """
    if not opened.output.detects:
        say = answering(opened)

        def answer(image: np.ndarray, path: str | Path, before: Answer) -> Answer:
            own = say(image)
            return Answer(own.predictions, [same[index] for index in before.targets], own.mask)

        return answer
    find = _finder(opened)

    def boxes(image: np.ndarray, path: str | Path, before: Answer) -> Answer:
        outputs, size = find(image), read_picture(path, 3).size
        told = {Box(row["place"], row["index"]): row for row in before.predictions}
        rows = [told[box] for box in before.targets]
        relative = np.array([row["box"] for row in rows]) / _scale(first.input_shape)
        asked = first.pixels.boxes_in_picture(relative, size, first.input_shape[:2])
        seen = opened.pixels.boxes_in_picture(outputs[BOXES][0] / _scale(opened.input_shape), size, image.shape[:2])
        found = same_boxes(
            [row | {"box": box} for row, box in zip(rows, asked, strict=True)], outputs, seen, opened.class_names
        )
        return Answer(found[0], found[1], _drawn(image, found[0]))

    return boxes


def _scale(shape: Sequence[int]) -> np.ndarray:
    """What relative boxes are multiplied by to be pixels of an image (height, width, ...)."""
    return np.tile(np.array(shape[1::-1], "float32"), 2)


def _finder(opened: Opened) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function from an image to a detector's outputs, with boxes in pixels of the image."""
    outputs = box_outputs(opened.model)

    def find(image: np.ndarray) -> dict[str, np.ndarray]:
        found = outputs(image[None])
        return found | {BOXES: found[BOXES] * _scale(image.shape)}

    return find


def _drawn(image: np.ndarray, rows: Sequence[dict]) -> Image.Image:
    """The image with boxes, each with the number that it has in the table."""
    boxes, names = np.array([row["box"] for row in rows]), [f"{row['number']}: {row['class']}" for row in rows]
    return draw_boxes(_picture(image), boxes, np.arange(len(rows)), names)


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _classifier(opened: Opened):
    """The function from an image to its most probable classes."""
    classifier = as_classifier(opened)

    def explain(image: np.ndarray) -> tuple[list[dict], None]:
        (probabilities,) = classifier.predict(image[None])
        return classifier.top(probabilities, SHOWN), None

    return explain


def _segmenter(opened: Opened):
    """The function from an image to its largest classes, and the image with the classes of its pixels."""
    segmenter = as_segmenter(opened)

    def explain(image: np.ndarray) -> tuple[list[dict], Image.Image]:
        picture = _picture(image)
        mask = segmenter.segment(picture)
        areas = sorted(class_areas(mask, segmenter.class_names), key=lambda area: -area["pixels"])
        return [area for area in areas if area["pixels"]][:SHOWN], draw_overlay(picture, mask, segmenter.class_names)

    return explain
