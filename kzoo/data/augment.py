"""Augmentation with Keras layers, for the input pipeline, of images alone or together with their masks.

Layers that crop (RandomCrop) take the same crop for a whole batch; a random translation differs by image.
"""

from collections.abc import Callable

import keras
from keras import layers, ops

from kzoo.data.boxes import RandomErase, RandomResizedCrop
from kzoo.data.elastic import RandomElastic
from kzoo.data.flips import AlternatingFlip
from kzoo.data.policies import rand_augment, trivial_augment
from kzoo.data.seeds import StepSeeds
from kzoo.recipe import Augment

_BLACK = dict(fill_mode="constant")
_PIXELS = dict(value_range=(0, 255))
_SHARES = dict(value_range=(0, 1))  # to which Keras clips the saturation itself; above 1 it makes negative pixels
_GEOMETRY: dict[str, Callable[[Augment, tuple[int, int] | None], list]] = {
    "resized_crop": lambda augment, size: [RandomResizedCrop(augment.crop_area, size)],
    "flip": lambda augment, size: [layers.RandomFlip("horizontal")],
    "flip_vertical": lambda augment, size: [layers.RandomFlip("vertical")],
    "translate": lambda augment, size: [
        layers.RandomTranslation(augment.translate_share, augment.translate_share, interpolation="nearest", **_BLACK)
    ],
    "rotate": lambda augment, size: [layers.RandomRotation(10 / 360, **_BLACK)],
    "zoom": lambda augment, size: [layers.RandomZoom(0.1, **_BLACK)],
    "scale": lambda augment, size: [layers.RandomZoom((-0.4, 0.2), **_BLACK)],
    "elastic": lambda augment, size: [RandomElastic()],
}
_COLOUR: dict[str, Callable[[Augment, tuple[int, int] | None], list]] = {
    "trivial": lambda augment, size: [trivial_augment()],
    "rand": lambda augment, size: [rand_augment(augment.rand_number, augment.rand_magnitude)],
    "brightness": lambda augment, size: [layers.RandomBrightness(0.2, **_PIXELS)],
    "contrast": lambda augment, size: [layers.RandomContrast(0.2, **_PIXELS)],
    "saturation": lambda augment, size: [layers.RandomSaturation((0.3, 0.7), **_SHARES)],
    "color": lambda augment, size: [  # as keras.layers.RandomColorJitter, which takes no seeds from outside
        layers.RandomBrightness(0.3, **_PIXELS),
        layers.RandomContrast(0.5, **_PIXELS),
        layers.RandomSaturation((0.2, 0.8), **_SHARES),
        layers.RandomHue(0.05, **_PIXELS),
    ],
}
_STAGES = (
    {"alternating_flip": lambda augment, size: [AlternatingFlip()]},
    _GEOMETRY,
    _COLOUR,
    {"erase": lambda augment, size: [RandomErase(augment.erase_share)]},
)


class Augmentation:
    """The random changes that a recipe names, of batches of pixels; what they do follows from the seeds alone.

    First `alternating_flip`, which knows an image by its pixels, then those that move pixels, then those that colour
    them, then `erase`; of one kind in the recipe's order.

    `resized_crop` a box of 8 to 100 % of the image, resized to the whole (arXiv:1409.4842, section 6); `flip` left to
    right; `alternating_flip` the same of each image in every second epoch (arXiv:2404.00498, section 3.6);
    `flip_vertical` upside down; `translate` by up to a share of the size, 1/8, black behind; `rotate` by up to 10°;
    `zoom` by up to 10 %; `scale` from 1.2 times the field of view down to a window of 0.6; `elastic` bends as tissue
    does (U-Net, arXiv:1505.04597, section 3.1); `trivial` one of fourteen operations of any strength
    (TrivialAugmentWide, arXiv:2103.10158); `rand` two of them of strength 9 of 30 (RandAugment, arXiv:1909.13719);
    `brightness` by up to 20 % of the range; `contrast` by up to 20 %; `saturation` from 3/7 to 7/3 of it; `color`
    brightness by up to 30 % of the range, contrast by up to 50 %, saturation from 1/4 to 4 times of it, hue by up to
    5 % of the circle; `erase` a share of the images, half of them, get a box of noise (arXiv:1708.04896).

    Args:
        augment: names of the changes, and what some of them are told.
        size: (height, width) of what `resized_crop` makes; None for those of the images.

    Call arguments:
        images: float32 (n, height, width, 3).
        seeds: of the step.

    Returns:
        The changed images.

    Example:
        >>> changed = Augmentation(Augment(("flip", "rotate")))(images, StepSeeds(seed=0, epoch=0, step=7))
    """

    def __init__(self, augment: Augment, size: tuple[int, int] | None = None):
        names = [(stage, name) for stage in _STAGES for name in augment.changes if name in stage]
        self._layers = [layer for stage, name in names for layer in stage[name](augment, size)]

    def __call__(self, images, seeds: StepSeeds):
        for layer in self._layers:
            change = layer.get_random_transformation(images, training=True, seed=seeds)
            images = layer.transform_images(images, change, training=True)
        return images

    def with_masks(self, images, masks, seeds: StepSeeds):
        """Changes images and their masks: what moves, moves in both; what colours, in images alone.

        Args:
            images: float32 (n, height, width, 3).
            masks: uint8 (n, height, width).
            seeds: of the step.

        Returns:
            Images and masks, in which void is what comes in from outside the image.
        """
        # one up in uint8, where 255 is followed by 0: void becomes the 0 that layers fill in
        masks = ops.cast(masks + 1, "float32")[..., None]
        for layer in self._layers:
            change = layer.get_random_transformation(images, training=True, seed=seeds)
            images = layer.transform_images(images, change, training=True)
            masks = layer.transform_segmentation_masks(masks, change, training=True)
        return images, ops.cast(masks[..., 0], "uint8") - 1


def random_crop(images, masks, size: tuple[int, int], seeds: StepSeeds):
    """A part of each image and its mask, at a place of its own.

    Args:
        images: (n, height, width, channels).
        masks: (n, height, width).
        size: height and width of the parts.
        seeds: of the step.

    Returns:
        The parts (n, *size, channels) and (n, *size).
    """
    for axis, length in enumerate(size, start=1):
        number, whole = ops.shape(masks)[0], masks.shape[axis]
        first = keras.random.randint((number, 1), 0, whole - length + 1, seed=seeds)
        places = first + ops.arange(length, dtype="int32")  # (n, length)
        images = ops.take_along_axis(images, _along(places, axis, 4), axis=axis)
        masks = ops.take_along_axis(masks, _along(places, axis, 3), axis=axis)
    return images, masks


def _along(places, axis: int, rank: int):
    """Places (n, length) as an index for `take_along_axis` of an array of a rank."""
    shape = [-1 if position == 0 else 1 for position in range(rank)]
    shape[axis] = places.shape[1]
    return ops.reshape(places, shape)
