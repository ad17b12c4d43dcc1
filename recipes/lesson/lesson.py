"""What the steps of the lesson share: pictures that are at hand, trained networks, and figures."""

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image

import kzoo
from kzoo.console import user_errors
from kzoo.data import load_dataset
from kzoo.edge import read_card
from kzoo.errors import InvalidValueError, WeightsError
from kzoo.files import ensure_writable
from kzoo.recipe import recipe_dir

SAVED_MODELS = recipe_dir().parent / "saved_models"
FIGURES = "LESSON_FIGURES"  # environment variable with the folder of the figures
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"  # told apart by the colour-blind


class Labelled(NamedTuple):
    """Pictures of 0 to 255, float32 (n, height, width, 3), and the numbers of their classes."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@cache
def at_hand(name: str) -> bool:
    """Whether a dataset of TFDS lies on this machine, where TFDS_DATA_DIR says; nothing is downloaded."""
    if importlib.util.find_spec("tensorflow_datasets") is None or importlib.util.find_spec("tensorflow") is None:
        return False
    import tensorflow_datasets as tfds

    return tfds.builder(name).is_prepared()


@cache
def labelled(name: str, train: int, test: int) -> Labelled:
    """The first pictures of "mnist" or "cifar10", or of the digits that ship with scikit-learn; which, is printed."""
    if not at_hand(name):
        print(f"{name} is not at hand: the digits of scikit-learn stand in")
        name = "digits"
    data = load_dataset(name)
    parts = data.train.arrays(min(train, data.train.size)), data.test.arrays(min(test, data.test.size))
    return Labelled(*(array for part in parts for array in (part["image"].astype("float32"), part["label"])))


def small_pictures(count: int) -> np.ndarray:
    """(count, 32, 32, 3): test images of CIFAR-10, or cuttings of photographs; which, is printed."""
    if at_hand("cifar10"):
        return load_dataset("cifar10").test.arrays(count)["image"].astype("float32")
    print("cifar10 is not at hand: cuttings of two photographs stand in")
    rng = np.random.default_rng(0)
    found = []
    for photo in (photograph(), photograph("flower.jpg")) * count:
        side = 32 * rng.integers(2, 13)
        top, left = rng.integers(0, (427 - side, 640 - side))
        found.append(shrunk(photo[top : top + side, left : left + side], side // 32))
    return np.stack(found[:count])


def photograph(name: str = "china.jpg") -> np.ndarray:
    """A photograph that ships with scikit-learn, "china.jpg" or "flower.jpg": (427, 640, 3), 0 to 255."""
    return load_sample_image(name).astype("float32")


def shrunk(photo: np.ndarray, times: int) -> np.ndarray:
    """A photograph with the means of squares of pixels in their place; what is left at the edges is cut off."""
    height, width = (side // times for side in photo.shape[:2])
    squares = photo[: height * times, : width * times].reshape(height, times, width, times, -1)
    return squares.mean(axis=(1, 3))


@cache
def trained(name: str) -> keras.Model:
    """A model of `saved_models`, which only a checkout has.

    Raises:
        WeightsError: it is not there.
    """
    path = SAVED_MODELS / name / "model.keras"
    if not path.is_file():
        raise WeightsError(f"there is no {path}; this step needs a checkout of kzoo, which has it")
    return keras.saving.load_model(path, compile=False)


def class_names(name: str) -> tuple[str, ...]:
    """Names of the classes of a model of `saved_models`, from the card of its int8 file."""
    return read_card(SAVED_MODELS / name / "model_int8.tflite").output.class_names


@cache
def training_losses(name: str, epochs: int = 15) -> list[float]:
    """The training loss of a narrow network on 2,000 pictures, epoch by epoch."""
    data = labelled("cifar10", 2000, 1)
    x = np.stack([shrunk(image, 2) for image in data.images])  # (2000, 16, 16, 3)
    keras.utils.set_random_seed(0)
    model = kzoo.build(name, input_shape=x.shape[1:], widths=(8, 16, 32))
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(sgd, "sparse_categorical_crossentropy", jit_compile=False)
    return model.fit(x, data.labels, batch_size=100, epochs=epochs, verbose=0).history["loss"]


def seen(layer: Callable, height: int, width: int, query: tuple[int, int]) -> np.ndarray:
    """Which pixels of a map change what a layer answers at one of them: booleans (height, width).

    Each pixel is changed by itself, in a copy of a random map of eight channels.
    """
    rng = np.random.default_rng(0)
    maps = np.repeat(rng.normal(size=(1, height, width, 8)), height * width + 1, axis=0).astype("float32")
    for number, (i, j) in enumerate(np.ndindex(height, width)):
        maps[number, i, j] += 1
    answers = keras.ops.convert_to_numpy(layer(maps))[:, *query]  # the last one is of the map as it was
    return (np.abs(answers[:-1] - answers[-1]).max(axis=-1) > 1e-6).reshape(height, width)


def panels(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of 9 inches by `height` and its axes, (rows, columns)."""
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(axis: Axes, image, title: str, bar: str = "", **options) -> None:
    """Draws an image without ticks: colours of 0 to 255, or numbers, whose colour bar `bar` labels."""
    image = np.asarray(image)
    image = image.clip(0, 255).astype("uint8") if image.ndim == 3 else image
    picture = axis.imshow(image, **dict(interpolation="nearest", cmap="viridis") | options)
    axis.set(xticks=[], yticks=[], autoscale_on=False)
    axis.set_title(title, fontsize=10)
    if bar:
        axis.figure.colorbar(picture, ax=axis, shrink=0.8).set_label(bar, fontsize=9)


def save(figure: Figure, name: str) -> Image.Image:
    """Writes `name`.png to the folder in LESSON_FIGURES, or to `lesson`; a notebook shows what is returned."""
    folder = Path(os.environ.get(FIGURES, "lesson"))
    with user_errors():
        ensure_writable(folder)
    figure.savefig(folder / f"{name}.png", dpi=90, pil_kwargs={"optimize": True})
    if FIGURES not in os.environ:
        print(f"the figure is {folder / name}.png")
    return Image.open(folder / f"{name}.png")


def refuse_arguments(command: list[str]) -> None:
    """Ends a step that was started by itself with arguments, which it would leave unread."""
    if len(command) > 1 and re.fullmatch(r"\d\d_\w+\.py", Path(command[0]).name):
        with user_errors():
            raise InvalidValueError(
                f"{Path(command[0]).name} takes no arguments; {FIGURES}=FOLDER says where its figure goes, and "
                "recipes/lesson/all.py takes --output-dir and --steps"
            )


refuse_arguments(sys.argv)
