"""Augmentation with Keras layers, for the input pipeline, of images alone or together with their masks.

Layers that crop (RandomCrop) take the same crop for a whole batch; a random translation differs by image.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from kzoo.train.elastic import RandomElastic


def augmentation(names: Sequence[str], seed: int) -> keras.layers.Pipeline | None:
    """A pipeline of the named random changes for batches of pixels, or None where there are none.

    `flip` left to right; `flip_vertical` upside down; `translate` by up to 1/8 of the size, black behind; `rotate` by
    up to 10°; `zoom` by up to 10 %; `scale` from 1.2 times the field of view down to a window of 0.6; `elastic` bends
    as tissue does (U-Net, arXiv:1505.04597, section 3.1); `brightness` by up to 20 % of the range; `contrast` by up to
    20 %; `saturation` from 3/7 to 7/3 of it; `color` brightness by up to 30 % of the range, contrast by up to 50 %,
    saturation from 1/4 to 4 times of it, hue by up to 5 % of the circle; `erase` a random rectangle.
    """
    layers = keras.layers
    black = dict(fill_mode="constant")
    factories = {
        "flip": lambda seed: layers.RandomFlip("horizontal", seed=seed),
        "flip_vertical": lambda seed: layers.RandomFlip("vertical", seed=seed),
        "translate": lambda seed: layers.RandomTranslation(1 / 8, 1 / 8, interpolation="nearest", seed=seed, **black),
        "rotate": lambda seed: layers.RandomRotation(10 / 360, seed=seed, **black),
        "zoom": lambda seed: layers.RandomZoom(0.1, seed=seed, **black),
        "scale": lambda seed: layers.RandomZoom((-0.4, 0.2), seed=seed, **black),
        "elastic": lambda seed: RandomElastic(seed=seed),
        "brightness": lambda seed: layers.RandomBrightness(0.2, value_range=(0, 255), seed=seed),
        "contrast": lambda seed: layers.RandomContrast(0.2, value_range=(0, 255), seed=seed),
        "saturation": lambda seed: layers.RandomSaturation((0.3, 0.7), value_range=(0, 255), seed=seed),
        "color": lambda seed: layers.RandomColorJitter(
            value_range=(0, 255),
            brightness_factor=0.3,
            contrast_factor=0.5,
            saturation_factor=(0.2, 0.8),
            hue_factor=0.05,
            seed=seed,
        ),
        "erase": lambda seed: layers.RandomErasing(value_range=(0, 255), seed=seed),
    }
    # layers with one seed draw the same numbers: an image would be dark whenever it is flipped
    seeds = np.random.SeedSequence(seed).generate_state(len(names)).tolist()
    chosen = [factories[name](own) for name, own in zip(names, seeds, strict=True)]
    return layers.Pipeline(chosen) if chosen else None


def joint(pipeline: Callable | None) -> Callable:
    """Makes `(images, masks) -> (images, masks)` of a pipeline: what moves, moves in both; what colours, in images.

    Args:
        pipeline: of `augmentation`.

    Returns:
        A function of float32 images (n, height, width, 3) and uint8 masks (n, height, width), in which void is
        what comes in from outside the image.
    """
    import tensorflow as tf

    def change(images, masks):
        if pipeline is None:
            return images, masks
        # one up in uint8, where 255 is followed by 0: void becomes the 0 that layers fill in
        shifted = tf.cast(masks + 1, tf.float32)[..., None]
        changed = pipeline({"images": images, "segmentation_masks": shifted}, training=True)
        return changed["images"], tf.cast(changed["segmentation_masks"][..., 0], tf.uint8) - 1

    return change
