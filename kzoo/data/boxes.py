"""Random boxes in images, which are cut out or erased."""

import math

import keras
from keras import ops

from kzoo.data.operations import project

ATTEMPTS = 10  # boxes among which the first one that fits is taken, as in torchvision and timm
CROP_RATIO = 3 / 4
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), 0.3


def random_boxes(number, size: tuple[int, int], area: tuple[float, float], ratio: float, seeds):
    """A box in each image, at any place with equal chances.

    Args:
        number: of images.
        size: their height and width.
        area: the smallest and the largest share of the image, with equal chances between.
        ratio: the smallest width over height; the largest is 1 over it, and their logarithms have equal chances.
        seeds: of the step.

    Returns:
        Tops, lefts, heights and widths, whole numbers in float32 (n,), and whether a box was found that fits, (n,).
    """

    def uniform(low, high, attempts=ATTEMPTS):
        return keras.random.uniform((number, attempts), low, high, seed=seeds)

    pixels = uniform(*area) * (size[0] * size[1])
    ratios = ops.exp(uniform(math.log(ratio), -math.log(ratio)))
    sides = ops.round(ops.sqrt(ops.stack([pixels / ratios, pixels * ratios], axis=2)))  # (n, attempts, 2)
    whole = ops.convert_to_tensor(size, "float32")
    fits = ops.all((sides >= 1) & (sides <= whole), axis=2)
    first = ops.argmax(ops.cast(fits, "int32"), axis=1)[:, None, None]
    sides = ops.take_along_axis(sides, first, axis=1)[:, 0]
    corners = ops.floor(uniform(0.0, 1.0, attempts=2) * (whole - sides + 1))
    return corners[:, 0], corners[:, 1], sides[:, 0], sides[:, 1], ops.any(fits, axis=1)


class RandomResizedCrop:
    """A random box of each image, resized to the whole, bilinearly.

    A box is never larger than its image, so nothing shrinks and there is nothing to filter; where the result shall be
    smaller it is filtered then. Where no box fits, it is the largest in the middle whose ratio is allowed.

    Args:
        area: the smallest and the largest share of the image that a box has.
        size: (height, width) of the results; None for those of the images. Masks keep their own.

    Reference: Szegedy et al. 2014, arXiv:1409.4842, section 6.

    Example:
        >>> layer = RandomResizedCrop((0.08, 1.0))
        >>> change = layer.get_random_transformation(images, seed=StepSeeds(seed=0, epoch=0, step=0))
        >>> cropped = layer.transform_images(images, change)
    """

    def __init__(self, area: tuple[float, float], size: tuple[int, int] | None = None):
        self.area, self.size = area, size

    def get_random_transformation(self, images, training=True, seed=None):
        """Boxes of images (n, height, width, channels), as matrices (n, 6) for `project`."""
        height, width = images.shape[1:3]
        *box, found = random_boxes(ops.shape(images)[0], (height, width), self.area, CROP_RATIO, seed)
        sides = min(height, round(width / CROP_RATIO)), min(width, round(height / CROP_RATIO))
        middle = [(height - sides[0]) // 2, (width - sides[1]) // 2, *sides]
        top, left, rows, columns = (
            ops.where(found, one, float(other)) for one, other in zip(box, middle, strict=True)
        )
        down, right, nothing = rows / height, columns / width, ops.zeros_like(top)
        from_x, from_y = left + (right - 1) / 2, top + (down - 1) / 2  # the middle of the first pixel
        return ops.stack([right, nothing, from_x, nothing, down, from_y], axis=1)

    def transform_images(self, images, transformation, training=True):
        """Images float32 (n, height, width, channels), cropped and resized."""
        images = project(images, transformation, "bilinear", fill="nearest")
        if self.size in (None, images.shape[1:3]):
            return images
        return ops.image.resize(images, self.size, antialias=True, data_format="channels_last")

    def transform_segmentation_masks(self, segmentation_masks, transformation, training=True):
        """Masks (n, height, width, 1), cropped alike, from the nearest pixel."""
        return project(segmentation_masks, transformation, "nearest", fill="nearest")


class RandomErase:
    """A random box of some images, filled with noise: of each pixel and channel 0 to 255 with equal chances.

    A box has 2 to 33 % of the image and sides of 0.3 to 1/0.3, as in torchvision and timm.
    `keras.layers.RandomErasing` draws the sides by themselves, up to four to one, and half of its noise is black.

    Args:
        share: of the images in which a box is erased.

    Reference: Zhong et al. 2017, arXiv:1708.04896, algorithm 1, with up to 40 % of the image.

    Example:
        >>> layer = RandomErase(share=0.5)
        >>> change = layer.get_random_transformation(images, seed=StepSeeds(seed=0, epoch=0, step=0))
        >>> erased = layer.transform_images(images, change)
    """

    def __init__(self, share: float):
        self.share = share

    def get_random_transformation(self, images, training=True, seed=None):
        """What is erased in images (n, height, width, channels), a boolean (n, height, width, 1), and the noise."""
        count, size = ops.shape(images)[0], tuple(images.shape[1:3])
        *box, found = random_boxes(count, size, ERASED_AREA, ERASED_RATIO, seed)
        top, left, height, width = (number[:, None] for number in box)
        rows, columns = (ops.arange(length, dtype="float32") for length in size)
        inside_rows = (rows >= top) & (rows < top + height)
        inside_columns = (columns >= left) & (columns < left + width)
        erased = found & (keras.random.uniform((count,), seed=seed) < self.share)
        mask = erased[:, None, None] & inside_rows[:, :, None] & inside_columns[:, None, :]
        return mask[..., None], keras.random.uniform(ops.shape(images), 0.0, 255.0, seed=seed)

    def transform_images(self, images, transformation, training=True):
        """Images float32 (n, height, width, channels), with a box erased."""
        mask, noise = transformation
        return ops.where(mask, noise, images)

    def transform_segmentation_masks(self, segmentation_masks, transformation, training=True):
        """Masks as they are."""
        return segmentation_masks
