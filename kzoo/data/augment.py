"""Augmentation with Keras layers, for the input pipeline, of images alone or together with their masks.

Layers that crop (RandomCrop) take the same crop for a whole batch; a random translation differs by image.
"""

from collections.abc import Callable, Sequence

from keras import layers

from kzoo.data.elastic import RandomElastic
from kzoo.data.seeds import StepSeeds

_BLACK = dict(fill_mode="constant")
_PIXELS = dict(value_range=(0, 255))
_FACTORIES: dict[str, Callable[[], list]] = {
    "flip": lambda: [layers.RandomFlip("horizontal")],
    "flip_vertical": lambda: [layers.RandomFlip("vertical")],
    "translate": lambda: [layers.RandomTranslation(1 / 8, 1 / 8, interpolation="nearest", **_BLACK)],
    "rotate": lambda: [layers.RandomRotation(10 / 360, **_BLACK)],
    "zoom": lambda: [layers.RandomZoom(0.1, **_BLACK)],
    "scale": lambda: [layers.RandomZoom((-0.4, 0.2), **_BLACK)],
    "elastic": lambda: [RandomElastic()],
    "brightness": lambda: [layers.RandomBrightness(0.2, **_PIXELS)],
    "contrast": lambda: [layers.RandomContrast(0.2, **_PIXELS)],
    "saturation": lambda: [layers.RandomSaturation((0.3, 0.7), **_PIXELS)],
    "color": lambda: [  # as keras.layers.RandomColorJitter, which takes no seeds from outside
        layers.RandomBrightness(0.3, **_PIXELS),
        layers.RandomContrast(0.5, **_PIXELS),
        layers.RandomSaturation((0.2, 0.8), **_PIXELS),
        layers.RandomHue(0.05, **_PIXELS),
    ],
    "erase": lambda: [layers.RandomErasing(**_PIXELS)],
}


class Augmentation:
    """The named random changes of batches of pixels, one after the other; what they do follows from the seeds alone.

    `flip` left to right; `flip_vertical` upside down; `translate` by up to 1/8 of the size, black behind; `rotate` by
    up to 10°; `zoom` by up to 10 %; `scale` from 1.2 times the field of view down to a window of 0.6; `elastic` bends
    as tissue does (U-Net, arXiv:1505.04597, section 3.1); `brightness` by up to 20 % of the range; `contrast` by up to
    20 %; `saturation` from 3/7 to 7/3 of it; `color` brightness by up to 30 % of the range, contrast by up to 50 %,
    saturation from 1/4 to 4 times of it, hue by up to 5 % of the circle; `erase` a random rectangle.

    Args:
        names: of the changes, in their order.

    Call arguments:
        images: float32 (n, height, width, 3).
        seeds: of the step.

    Returns:
        The changed images.

    Example:
        >>> changed = Augmentation(("flip", "rotate"))(images, StepSeeds(seed=0, epoch=0, step=7))
    """

    def __init__(self, names: Sequence[str]):
        self._layers = [layer for name in names for layer in _FACTORIES[name]()]
        for layer in self._layers:
            if isinstance(layer, layers.Layer):
                layer.backend.set_backend("tensorflow")  # with which tf.data computes, whatever trains

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
        import tensorflow as tf

        # one up in uint8, where 255 is followed by 0: void becomes the 0 that layers fill in
        masks = tf.cast(masks + 1, tf.float32)[..., None]
        for layer in self._layers:
            change = layer.get_random_transformation(images, training=True, seed=seeds)
            images = layer.transform_images(images, change, training=True)
            masks = layer.transform_segmentation_masks(masks, change, training=True)
        return images, tf.cast(masks[..., 0], tf.uint8) - 1


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
    import tensorflow as tf

    for axis, length in enumerate(size, start=1):
        number, whole = tf.shape(masks)[0], masks.shape[axis]
        first = tf.random.stateless_uniform((number, 1), seeds.next(), 0, whole - length + 1, tf.int32)
        places = first + tf.range(length)  # (n, length)
        images, masks = (tf.gather(array, places, axis=axis, batch_dims=1) for array in (images, masks))
    return images, masks
