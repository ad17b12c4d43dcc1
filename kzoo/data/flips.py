"""Mirror images, of each image in every second epoch."""

import keras
from keras import ops

from kzoo.data.seeds import StepSeeds


class AlternatingFlip:
    """Mirrors each image left to right in every second epoch: in which of both halves of them follows from the seed.

    Two epochs together show every image both ways, where chance would show half of them one way twice. An image is
    known by its pixels: a sum of some of them, which the seed draws, is odd or even. So this must be the first change.

    Reference: Jordan 2024, arXiv:2404.00498, section 3.6.

    Example:
        >>> layer = AlternatingFlip()
        >>> change = layer.get_random_transformation(images, seed=StepSeeds(seed=0, epoch=3, step=0))
        >>> flipped = layer.transform_images(images, change)
    """

    def get_random_transformation(self, images, training=True, seed=None):
        """Which images (n, height, width, channels), of whole numbers, are mirrored: a boolean (n,)."""
        drawn = keras.random.randint(images.shape[1:], 0, 2, seed=StepSeeds(seed.seed, 0, 0))
        sums = ops.sum(ops.cast(images, "int32") * drawn, axis=(1, 2, 3))
        return (sums + ops.cast(seed.epoch, "int32")) % 2 == 1

    def transform_images(self, images, transformation, training=True):
        """Images (n, height, width, channels), of which some are mirrored."""
        return ops.where(transformation[:, None, None, None], ops.flip(images, axis=2), images)

    def transform_segmentation_masks(self, segmentation_masks, transformation, training=True):
        """Masks (n, height, width, 1), mirrored as their images."""
        return self.transform_images(segmentation_masks, transformation)
