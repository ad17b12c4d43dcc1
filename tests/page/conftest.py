"""Small files with their cards, and pictures of every kind, for the tests of pages."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.edge import Card
from kzoo.images import Pixels
from kzoo.output import Output

BIRDS = ("crow", "<b>tit</b>", "robin", "wren", "rook", "owl")
GROUND = ("path", "grass", "water")


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """Small files by what they give; their weights are random, and large enough for answers that differ."""
    folder = tmp_path_factory.mktemp("files")
    made = {
        "classes": (classifier(len(BIRDS), "softmax"), BIRDS, Pixels("crop", 0.875, "bicubic")),
        "grey": (classifier(1, None, channels=1), ("cat", "dog"), Pixels("pad")),
        "map": (segmenter(), GROUND, Pixels("pad")),
    }
    for name, (model, classes, pixels) in made.items():
        kzoo.export(model, folder / f"{name}.tflite", card=Card(Output.of_model(model, classes), pixels))
    return {name: folder / f"{name}.tflite" for name in made}


def classifier(units: int, activation: str | None, channels: int = 3) -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((29, 37, channels))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(8, 3, strides=4, kernel_initializer="he_normal", activation="relu")(x)
    x = keras.layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=0.5))(
        keras.layers.Flatten()(x)
    )
    return keras.Model(image, keras.layers.Activation(activation)(x) if activation else x, name="birds")


def segmenter() -> keras.Model:
    keras.utils.set_random_seed(2)
    image = keras.Input((40, 56, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(8, 5, padding="same", kernel_initializer="he_normal", activation="relu")(x)
    x = keras.layers.Conv2D(len(GROUND), 1, kernel_initializer=keras.initializers.RandomNormal(stddev=3))(x)
    return keras.Model(image, keras.layers.Softmax()(x), name="ground")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> dict[str, Path]:
    """Pictures of every kind that a browser and Python read, each not symmetric, by what is special in them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :130]
    waves = np.stack([np.sin(x / 9 + y / 31), np.cos(y / 7), np.sin((x + 2 * y) / 23)], axis=-1)
    photo = Image.fromarray((127.5 + 100 * waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype("uint8"))
    clear = photo.convert("RGBA")
    clear.putalpha(Image.fromarray((2 * x).clip(0, 255).astype("uint8")))
    made = {
        "photo.jpg": (photo, {"quality": 92}),
        "photo.png": (photo, {}),
        "photo.webp": (photo, {"lossless": True}),
        "grey.jpg": (photo.convert("L"), {"quality": 92}),
        "clear.png": (clear, {}),
        "palette.png": (photo.quantize(32), {}),
        "deep.png": (Image.fromarray(257 * np.asarray(photo.convert("L")).astype("uint16")), {}),
    }
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        made[f"turned{orientation}.jpg"] = (photo, {"quality": 92, "exif": exif})
    for name, (picture, options) in made.items():
        picture.save(folder / name, **options)
    return {name: folder / name for name in made}
