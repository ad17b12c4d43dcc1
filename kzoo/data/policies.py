"""TrivialAugment and RandAugment: for each image operations of its own, drawn at random."""

import dataclasses

import keras
import numpy as np
from keras import ops

from kzoo.data.operations import GEOMETRY, OPERATIONS, apply, matrices, project

LEVELS = 31  # of each magnitude, from nothing to the most
_ONE_SIDED = ("posterize", "solarize")  # the others are as often negative


@dataclasses.dataclass(frozen=True)
class RandomOperations:
    """Some operations for each image, one after the other, each drawn among fourteen with equal chances.

    It has the methods by which `Augmentation` uses Keras' random layers; `keras.layers.RandAugment` draws the same
    operations for a whole batch. Pixels move to the nearest place, black comes in from outside, and masks move along.

    Args:
        number: operations for each image.
        level: of the magnitudes, 0 to 30; None draws one for each operation.
        shear: the largest magnitude, a share of the other side.
        shift: of translations, over the side; None means 32 pixels.
        turn: of rotations, in degrees.
        blend: of brightness, colour, contrast and sharpness, which are multiplied by up to 1 ± this.
        bits: that posterizing removes.

    Example:
        >>> layer = trivial_augment()
        >>> change = layer.get_random_transformation(images, seed=StepSeeds(seed=0, epoch=0, step=0))
        >>> changed = layer.transform_images(images, change)
    """

    number: int
    level: int | None
    shear: float
    shift: float | None
    turn: float
    blend: float
    bits: int

    def magnitudes(self, height: int, width: int) -> np.ndarray:
        """(operations, 31) float32, in the units of `kzoo.data.operations`, of images of a size."""
        rising = np.linspace(0, 1, LEVELS)
        shifts = [32 if self.shift is None else self.shift * size for size in (width, height)]
        most = dict(zip(GEOMETRY, (self.shear, self.shear, *shifts, self.turn), strict=True))
        most |= dict.fromkeys(("brightness", "color", "contrast", "sharpness"), self.blend)
        table = {name: largest * rising for name, largest in most.items()}
        table |= {name: np.trunc(table[name]) for name in ("translate_x", "translate_y")}  # whole pixels
        table |= {"posterize": 8 - np.round(self.bits * rising), "solarize": 255 * (1 - rising)}
        return np.stack([table.get(name, 0 * rising) for name in OPERATIONS]).astype("float32")

    def get_random_transformation(self, images, training=True, seed=None):
        """(operations, magnitudes) of each image, int32 and float32 (n,), in a list of `number`."""
        count = (ops.shape(images)[0],)
        table = ops.convert_to_tensor(self.magnitudes(*images.shape[1:3]))
        both = ops.convert_to_tensor([name not in _ONE_SIDED for name in OPERATIONS])
        drawn = []
        for _ in range(self.number):
            operations = keras.random.randint(count, 0, len(OPERATIONS), seed=seed)
            levels = keras.random.randint(count, 0, LEVELS, seed=seed)
            levels = levels if self.level is None else ops.full(count, self.level, "int32")
            negative = keras.random.uniform(count, seed=seed) < 0.5
            magnitudes = ops.take(ops.reshape(table, (-1,)), operations * LEVELS + levels)
            drawn.append((operations, ops.where(negative & ops.take(both, operations), -magnitudes, magnitudes)))
        return drawn

    def transform_images(self, images, transformation, training=True):
        """Images float32 (n, height, width, 3) of 0 to 255, changed."""
        for drawn in transformation:
            images = apply(images, *drawn)
        return images

    def transform_segmentation_masks(self, segmentation_masks, transformation, training=True):
        """Masks (n, height, width, 1), moved alike."""
        masks = segmentation_masks
        for drawn in transformation:
            masks = project(masks, matrices(*drawn, *masks.shape[1:3]))
        return masks


def trivial_augment() -> RandomOperations:
    """TrivialAugmentWide: one operation for each image, of any magnitude (arXiv:2103.10158, algorithm 1)."""
    return RandomOperations(number=1, level=None, shear=0.99, shift=None, turn=135, blend=0.99, bits=6)


def rand_augment(number: int, level: int) -> RandomOperations:
    """RandAugment: operations of one magnitude for all (arXiv:1909.13719), with torchvision's ranges.

    Args:
        number: operations for each image.
        level: 0 to 30.
    """
    return RandomOperations(number, level, shear=0.3, shift=150 / 331, turn=30, blend=0.9, bits=4)
