"""Elastic deformation of images, and of their masks with them."""

import keras
from keras import ops

GRID = 3  # random vectors along each side, see U-Net, section 3.1
STRENGTH = 10 / 512  # their standard deviation over the shorter side: 10 pixels in the paper's 512


class RandomElastic(keras.layers.Layer):
    """Bends images by a smooth random field: normal vectors on a 3×3 grid, interpolated bicubically between.

    `keras.layers.RandomElasticTransform` draws one field for the images and another one for their masks.

    Args:
        strength: standard deviation of the vectors over the shorter side of the image.
        seed: of the fields.

    Call arguments:
        data: images (n, height, width, channels), or a dict of `images` and `segmentation_masks` (n, height, width,
            1), floats. What comes in from outside is 0; masks are taken from the nearest pixel.

    Reference: Ronneberger et al. 2015, arXiv:1505.04597, section 3.1.

    Example:
        >>> bent = RandomElastic(seed=0)({"images": images, "segmentation_masks": masks}, training=True)
    """

    def __init__(self, strength: float = STRENGTH, seed: int | None = None, **options):
        super().__init__(**options)
        self.strength = strength
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, data, training=True):
        if not training:
            return data
        images = data["images"] if isinstance(data, dict) else data
        number, height, width, _ = ops.shape(images)
        vectors = keras.random.normal((number, GRID, GRID, 2), seed=self._generator)
        vectors *= self.strength * ops.cast(ops.minimum(height, width), "float32")
        field = ops.image.resize(vectors, (height, width), interpolation="bicubic")
        rows = ops.arange(height, dtype="float32")[None, :, None] + field[..., 0]
        columns = ops.arange(width, dtype="float32")[None, None, :] + field[..., 1]
        bent = _bilinear(images, rows, columns)
        if not isinstance(data, dict):
            return bent
        masks = data["segmentation_masks"]
        return {**data, "images": bent, "segmentation_masks": _pick(masks, ops.round(rows), ops.round(columns))}

    def get_config(self):
        return {**super().get_config(), "strength": self.strength, "seed": self.seed}


def _bilinear(images, rows, columns):
    """Values (n, height, width, channels) at places (n, height, width) between pixels."""
    top, left = ops.floor(rows), ops.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = _pick(images, top, left) * (1 - right) + _pick(images, top, left + 1) * right
    lower = _pick(images, top + 1, left) * (1 - right) + _pick(images, top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _pick(images, rows, columns):
    """Values at whole places; 0 outside."""
    number, height, width, channels = ops.shape(images)
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    rows, columns = (
        ops.cast(ops.clip(places, 0, size - 1), "int32") for places, size in ((rows, height), (columns, width))
    )
    first = ops.arange(number, dtype="int32")[:, None, None] * height * width
    pixels = ops.take(ops.reshape(images, (-1, channels)), first + rows * width + columns, axis=0)
    return ops.where(inside[..., None], pixels, 0)
