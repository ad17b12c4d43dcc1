"""Augmentation with Keras layers, for the input pipeline.

Layers that crop (RandomCrop) take the same crop for a whole batch; a random translation differs by image.
"""

from collections.abc import Sequence

import keras


def augmentation(names: Sequence[str], seed: int) -> keras.layers.Pipeline | None:
    """A pipeline of the named random changes for batches of pixels, or None where there are none.

    `flip` left to right; `translate` by up to 1/8 of the size, black behind; `rotate` by up to 10°; `zoom` by
    up to 10 %; `contrast` by up to 20 %; `erase` a random rectangle.
    """
    layers = keras.layers
    factories = {
        "flip": lambda: layers.RandomFlip("horizontal", seed=seed),
        "translate": lambda: layers.RandomTranslation(
            1 / 8, 1 / 8, fill_mode="constant", interpolation="nearest", seed=seed
        ),
        "rotate": lambda: layers.RandomRotation(10 / 360, fill_mode="constant", seed=seed),
        "zoom": lambda: layers.RandomZoom(0.1, fill_mode="constant", seed=seed),
        "contrast": lambda: layers.RandomContrast(0.2, value_range=(0, 255), seed=seed),
        "erase": lambda: layers.RandomErasing(value_range=(0, 255), seed=seed),
    }
    chosen = [factories[name]() for name in names]
    return keras.layers.Pipeline(chosen) if chosen else None
