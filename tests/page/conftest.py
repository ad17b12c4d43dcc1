"""Small files with their cards, and pictures of every kind, for the tests of pages."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image, ImageCms

import kzoo
from kzoo.edge import Card
from kzoo.images import Pixels
from kzoo.output import Output

BIRDS = ("crow", "<b>tit</b>", "robin", "wren", "rook", "owl")
GROUND = ("path", "grass", "water")
CLASSES = Output("classification", "softmax", len(BIRDS), BIRDS)


class Files(dict):
    """Paths of small files by what they give, each of which is made when it is asked for.

    Their weights are random, and large enough for answers that differ from picture to picture.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def __missing__(self, kind: str) -> Path:
        path = self[kind] = self.folder / f"{kind}.tflite"
        model, card, options = MAKE[kind]()
        kzoo.export(model, path, card=card, **options)
        return path


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def of_classes() -> tuple[keras.Model, Card, dict]:
    return classifier(len(BIRDS), "softmax"), Card(CLASSES, Pixels("crop", 0.875, "bicubic")), {}


def of_grey() -> tuple[keras.Model, Card, dict]:
    card = Card(Output("classification", "logits", 1, ("cat", "dog")), Pixels("pad"))
    return classifier(1, None, channels=1), card, {}


def in_bytes() -> tuple[keras.Model, Card, dict]:
    images = np.random.default_rng(3).integers(0, 256, (16, 29, 37, 3)).astype("float32")
    return *of_classes()[:2], {"precision": "int8", "io": "uint8", "calibration": images}


def with_heat() -> tuple[keras.Model, Card, dict]:
    keras.utils.set_random_seed(4)
    image = keras.Input((29, 37, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(8, 3, strides=4, kernel_initializer="he_normal", activation="relu")(x)
    logits = keras.layers.Conv2D(len(BIRDS), 1, kernel_initializer=keras.initializers.RandomNormal(stddev=3))(x)
    answer = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(logits))
    model = keras.Model(image, {"answer": answer, "heatmap": logits}, name="birds")
    return model, Card(CLASSES, Pixels("crop", 0.875, "bicubic"), answer="answer"), {}


def of_map() -> tuple[keras.Model, Card, dict]:
    return segmenter(), Card(Output("segmentation", "softmax", len(GROUND), GROUND), Pixels("pad")), {}


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


MAKE = {"classes": of_classes, "grey": of_grey, "bytes": in_bytes, "heat": with_heat, "map": of_map}


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
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
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
        exif[0x0112], exif[0x010F] = orientation, "maker of the camera"
        made[f"turned{orientation}.jpg"] = (photo, {"quality": 92, "exif": exif, "icc_profile": profile})
    for name, (picture, options) in made.items():
        picture.save(folder / name, **options)
    return {name: folder / name for name in made}
