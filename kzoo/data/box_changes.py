"""Random changes of pictures together with their boxes, as a function of the seeds, with static shapes."""

import dataclasses
import math

import keras
from keras import ops

from kzoo.data.augment import Augmentation
from kzoo.data.boxes import CROP_RATIO
from kzoo.data.operations import project
from kzoo.data.seeds import StepSeeds
from kzoo.errors import InvalidValueError
from kzoo.recipe import Augment

MOVING = ("resized_crop", "scale", "translate", "flip", "flip_vertical")  # in the order in which they come
UNKNOWN = ("alternating_flip", "rotate", "zoom", "elastic", "trivial", "rand")  # that boxes do not follow
FIELDS_OF_VIEW = 0.6, 1.2  # sides of what "scale" shows over those of the image
SMALLEST = 1.0  # pixels of a side of what is left of a box


class BoxAugmentation:
    """The random changes that a recipe names, of images and their boxes; what they do follows from the seeds alone.

    First those that move pixels, in this order: `resized_crop` a window with `crop_area` of the image and sides of up
    to 4/3, anywhere so that one of the boxes, drawn at random, is whole in it (a larger one where the box is larger);
    `scale` a window of 0.6 to 1.2 times the sides, anywhere inside the image, or the image anywhere inside of it;
    `translate` by up to a share of the sides; `flip`; `flip_vertical`. All together resample the image once,
    bilinearly; what comes in from outside is black. Then those that colour, and `erase`, as in `Augmentation`.

    A box is cut at the border, and dropped where its middle is outside (SSD, arXiv:1512.02325, section 2.2) or less
    than a pixel is left: its class is then -1.

    Args:
        augment: names of the changes, and what some of them are told.

    Raises:
        InvalidValueError: changes that move pixels in ways that boxes do not follow.

    Call arguments:
        images: float32 (n, height, width, 3).
        boxes: float32 (n, most, 4), relative to the images.
        classes: int32 (n, most); -1 for no box, further below for a crowd.
        seeds: of the step.

    Returns:
        Images, boxes and classes of the same shapes.

    Example:
        >>> change = BoxAugmentation(Augment(("resized_crop", "flip", "color"), crop_area=(0.3, 1.0)))
        >>> images, boxes, classes = change(images, boxes, classes, StepSeeds(seed=0, epoch=0, step=7))
    """

    def __init__(self, augment: Augment):
        if refused := [name for name in augment.changes if name in UNKNOWN]:
            raise InvalidValueError(
                f"augmentation {refused[0]!r} moves pixels, and boxes do not follow it; those that move both are "
                f"{', '.join(MOVING)}"
            )
        self._augment = augment
        self._moving = [name for name in MOVING if name in augment.changes]
        rest = tuple(name for name in augment.changes if name not in MOVING)
        self._colour = Augmentation(dataclasses.replace(augment, changes=rest))

    def __call__(self, images, boxes, classes, seeds: StepSeeds):
        if self._moving:
            size = images.shape[1:3]
            corner, sides = self._windows(boxes, classes, seeds)
            images = project(images, _matrices(corner, sides, size), "bilinear")
            boxes, classes = _moved(boxes, classes, corner, sides, size)
        return self._colour(images, seeds), boxes, classes

    def _windows(self, boxes, classes, seeds: StepSeeds):
        """What each image shows of itself: the corner (n, 2), x and y, and the sides (n, 2), in shares of it.

        A side is negative, and the corner the right or lower one, where the image is mirrored.
        """
        number = ops.shape(boxes)[0]

        def uniform(low=0.0, high=1.0, count=2):
            return keras.random.uniform((number, count), low, high, seed=seeds)

        corner, sides = ops.zeros((number, 2)), ops.ones((number, 2))
        for name in self._moving:
            if name == "resized_crop":
                corner, sides = self._keeping(boxes, classes, uniform)
            elif name == "scale":
                share = uniform(*FIELDS_OF_VIEW, count=1)
                corner, sides = corner + uniform() * (1 - share) * sides, share * sides
            elif name == "translate":
                share = self._augment.translate_share
                corner = corner + uniform(-share, share) * sides
            else:
                axis = ops.convert_to_tensor([1.0, 0.0] if name == "flip" else [0.0, 1.0])
                mirrored = ops.cast(uniform(count=1) < 0.5, "float32") * axis
                corner, sides = corner + mirrored * sides, sides * (1 - 2 * mirrored)
        return corner, sides

    def _keeping(self, boxes, classes, uniform):
        """Corner and sides of a window in each image that holds one of its boxes."""
        real = classes >= 0
        none = ~ops.any(real, axis=1)[:, None]
        chosen = ops.argmax(ops.where(real, uniform(count=boxes.shape[1]), -1.0), axis=1)
        kept = ops.take_along_axis(boxes, chosen[:, None, None], axis=1)[:, 0]
        first, last = kept[:, :2], kept[:, 2:]
        area = uniform(*self._augment.crop_area, count=1)
        ratio = ops.exp(uniform(math.log(CROP_RATIO), -math.log(CROP_RATIO), count=1))
        sides = ops.minimum(ops.sqrt(ops.concatenate([area * ratio, area / ratio], axis=1)), 1.0)
        sides = ops.where(none, sides, ops.maximum(sides, last - first))
        low = ops.where(none, 0.0, ops.maximum(last - sides, 0.0))
        high = ops.where(none, 1 - sides, ops.minimum(first, 1 - sides))
        return low + uniform() * (high - low), sides


def _matrices(corner, sides, size):
    """Where the pixels of each image come from, for `project`."""
    height, width = size
    lengths = ops.convert_to_tensor([width, height], "float32")
    start = corner * lengths + (sides - 1) / 2  # the middle of the first pixel
    nothing = ops.zeros_like(start[:, 0])
    return ops.stack([sides[:, 0], nothing, start[:, 0], nothing, sides[:, 1], start[:, 1]], axis=1)


def _moved(boxes, classes, corner, sides, size):
    """Boxes and classes in what the windows show."""
    height, width = size
    ends = (ops.reshape(boxes, (-1, boxes.shape[1], 2, 2)) - corner[:, None, None]) / sides[:, None, None]
    first, last = ops.min(ends, axis=2), ops.max(ends, axis=2)
    middle = (first + last) / 2
    inside = ops.all((middle >= 0) & (middle <= 1), axis=-1)
    first, last = ops.clip(first, 0.0, 1.0), ops.clip(last, 0.0, 1.0)
    pixels = (last - first) * ops.convert_to_tensor([width, height], "float32")
    kept = (classes != -1) & inside & ops.all(pixels >= SMALLEST, axis=-1)
    boxes = ops.where(kept[..., None], ops.concatenate([first, last], axis=-1), 0.0)
    return boxes, ops.where(kept, classes, -1)
