"""Elastic deformation of images, and of their masks with them."""

import keras
from keras import ops

GRID = 3  # random vectors along each side, see U-Net, section 3.1
STRENGTH = 10 / 512  # their standard deviation over the shorter side: 10 pixels in the paper's 512


class RandomElastic:
    """Bends images by a smooth random field: normal vectors on a 3×3 grid, interpolated bicubically between.

    It has the methods by which `Augmentation` uses Keras' random layers; `keras.layers.RandomElasticTransform` draws
    one field for the images and another one for their masks.

    Args:
        strength: standard deviation of the vectors over the shorter side of the image.

    What comes in from outside is 0; masks are taken from the nearest pixel.

    Reference: Ronneberger et al. 2015, arXiv:1505.04597, section 3.1.

    Example:
        >>> layer = RandomElastic()
        >>> bend = layer.get_random_transformation(images, seed=StepSeeds(seed=0, epoch=0, step=0))
        >>> bent = layer.transform_images(images, bend)
    """

    def __init__(self, strength: float = STRENGTH):
        self.strength = strength

    def get_random_transformation(self, images, training=True, seed=None):
        """Rows and columns (n, height, width) of images (n, height, width, channels) where each pixel comes from."""
        number, height, width, _ = ops.shape(images)
        vectors = keras.random.normal((number, GRID, GRID, 2), seed=seed)
        vectors *= self.strength * min(height, width)
        field = ops.image.resize(vectors, (height, width), "bicubic", data_format="channels_last")
        rows = ops.arange(height, dtype="float32")[None, :, None] + field[..., 0]
        columns = ops.arange(width, dtype="float32")[None, None, :] + field[..., 1]
        return rows, columns

    def transform_images(self, images, transformation, training=True):
        """Images (n, height, width, channels), bent."""
        return _bilinear(images, *transformation)

    def transform_segmentation_masks(self, segmentation_masks, transformation, training=True):
        """Masks (n, height, width, 1), bent alike."""
        rows, columns = transformation
        return _pick(segmentation_masks, ops.round(rows), ops.round(columns))


def _bilinear(images, rows, columns):
    """Values (n, height, width, channels) at places (n, height, width) between pixels."""
    top, left = ops.floor(rows), ops.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = _pick(images, top, left) * (1 - right) + _pick(images, top, left + 1) * right
    lower = _pick(images, top + 1, left) * (1 - right) + _pick(images, top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _pick(images, rows, columns):
    """Values at whole places; 0 outside."""
    height, width, channels = images.shape[1:]
    last_row, last_column = height - 1, width - 1
    inside = (rows >= 0) & (rows <= last_row) & (columns >= 0) & (columns <= last_column)
    places = ops.cast(ops.clip(rows, 0, last_row) * width + ops.clip(columns, 0, last_column), "int32")
    flat = ops.reshape(images, (-1, height * width, channels))
    pixels = ops.take_along_axis(flat, ops.reshape(places, (-1, height * width, 1)), axis=1)
    return ops.where(inside[..., None], ops.reshape(pixels, (-1, height, width, channels)), 0)
