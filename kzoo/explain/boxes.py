"""A detection as what is explained: what a place of a detector says of a class, and how much of it is found again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kzoo.detection.suppression import Detections, overlaps
from kzoo.errors import InvalidValueError
from kzoo.last_operation import BOXES, SCORES
from kzoo.layers.checks import is_integer


@dataclass(frozen=True)
class Box:
    """A detection: a class at a place of a detector.

    Methods with gradients explain the logit of the class at the place; of FCOS without the centerness, which tells how
    good the place is and not what is there. Methods that hide parts of the picture explain how much of the detection
    is still found, whichever place finds it: `similarity`.

    Attributes:
        place: number of the place, as `kzoo.detection.Detections.places` has it.
        class_index: index of the class.

    Example:
        >>> box = kzoo.explain.Box.of(kzoo.detect(model, [image])[0])[0]  # the surest one
        >>> kzoo.explain.hires_cam(model, image[None], box)
    """

    place: int
    class_index: int

    @classmethod
    def of(cls, found: Detections) -> list["Box"]:
        """One for each detection, the surest first.

        Raises:
            InvalidValueError: detections that do not tell their places.
        """
        if not isinstance(found, Detections) or found.places is None:
            raise InvalidValueError(
                "detections that tell their places are needed, as kzoo.detect gives them for a picture"
            )
        return [cls(int(place), int(index)) for place, index in zip(found.places, found.classes, strict=True)]


def as_boxes(target: Any) -> list[Box]:
    """The boxes of a target: one, or one for each image; of another target none."""
    several = list(target) if isinstance(target, (list, tuple)) else [target]
    return several if all(isinstance(each, Box) for each in several) else []


def box_score(target: Any, given: Any, model: str) -> Callable[[Any], Any]:
    """The function from what a detector gives to scores (n,).

    Args:
        target: a `Box`, one for all images or one for each.
        given: logits (n, places, classes) of the images; or `boxes` and `scores` of one, by name, as arrays.
        model: name of the model, for errors.

    Returns:
        Of logits that of the class at the place; of boxes and scores the `similarity` to what was `given`.

    Raises:
        InvalidValueError: no detector, no such place or class, or another number of detections than of images.
    """
    scores = given[SCORES] if isinstance(given, Mapping) else given
    if len(scores.shape) != 3:
        raise InvalidValueError(f"a Box is of a detector, and {model} gives {tuple(scores.shape)}")
    count, places, classes = scores.shape
    boxes = as_boxes(target)
    if not isinstance(target, Box) and len(boxes) != count:
        raise InvalidValueError(f"{len(boxes)} boxes are given for {count} images; one for each is needed, or one")
    for each in boxes:
        for name, number, known in (("place", each.place, places), ("class_index", each.class_index, classes)):
            if not is_integer(number, 0) or number >= known:
                raise InvalidValueError(f"{name}={number!r} of the Box: {model} has 0 to {known - 1}")
    if isinstance(given, Mapping):
        place = boxes[0].place
        box, own = given[BOXES][0, place], given[SCORES][0, place]
        return lambda found: similarity(box, own, found[BOXES], found[SCORES])
    if isinstance(target, Box):
        return lambda logits: logits[:, target.place, target.class_index]
    return lambda logits: keras.ops.stack(
        [logits[row, each.place, each.class_index] for row, each in enumerate(boxes)]
    )


def similarity(box: np.ndarray, own: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How much of a detection is found in other images, by the place that finds most of it.

    `S(d_t, D) = max over d_j in D of s_L · s_P · s_O` (D-RISE, Petsiuk et al. 2021, arXiv:2006.03204, section 3.2):
    s_L is the intersection over union of the boxes, s_P the cosine between the scores of all classes, and s_O how sure
    the place is that something is there. A detector of sigmoids tells this by its largest score, which its class has.

    Args:
        box: (4,), left, top, right and bottom.
        own: (classes,), the scores of the detection's place.
        boxes: (n, places, 4), of the same unit.
        scores: (n, places, classes).

    Returns:
        (n,), from 0 to 1; for the image itself at least the detection's own largest score.
    """
    shared = overlaps(box, boxes.reshape(-1, 4)).reshape(boxes.shape[:2])
    sizes = np.linalg.norm(scores, axis=-1) * np.linalg.norm(own)
    alike = np.divide(scores @ own, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return (shared * alike * scores.max(axis=-1)).max(axis=1)
