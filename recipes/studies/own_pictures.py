"""Three folders of pictures, and the transfer-learning guide of keras.io on them, beside `kzoo train MODEL FOLDER`.

    python recipes/studies/own_pictures.py folders --bccd BCCD --output FOLDER   # TFDS has fashion_mnist and mnist
    kzoo train cifar_resnet20 FOLDER/cells --weights saved_models/cifar10_resnet20/model.keras
    python recipes/studies/own_pictures.py guide FOLDER/cells --weights saved_models/cifar10_resnet20/model.keras

`folders` makes `cells` (the cells of BCCD, https://github.com/Shenggan/BCCD_Dataset, in a square around each box, in
its own splits), `fashion_mnist` (2,000 training images) and `mnist` (1,000), the last two with all 10,000 test images.
`guide` trains the same network on the same split as the guide does
(https://keras.io/guides/transfer_learning): a new head on the frozen network with Adam at 1e-3, then all of it with
1e-5, 20 epochs each, flips but for digits, dropout 0.2; it prints accuracy and seconds.
"""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from tyro.conf import Positional, arg

SMALL = {"fashion_mnist": (2000, 500), "mnist": (1000, 300)}  # training and validation images
SPLITS = {"train": "train", "val": "validation", "test": "test"}
LEAST = 4  # pixels of a side of a box


@dataclasses.dataclass(frozen=True)
class Folders:
    """Make the folders."""

    output: Path
    """Folder that they go into."""
    bccd: Path | None = None
    """Folder of BCCD with JPEGImages, Annotations and ImageSets; without it `cells` is left out."""


@dataclasses.dataclass(frozen=True)
class Guide:
    """Train as the guide does."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Folder with train, validation and test."""
    weights: str
    """File of a trained cifar_resnet20."""


def make_cells(bccd: Path, folder: Path) -> None:
    """The cells of BCCD by their classes, in its splits."""
    from xml.etree import ElementTree as xml

    root = next(bccd.rglob("JPEGImages")).parent
    for split, name in SPLITS.items():
        for stem in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            image = Image.open(root / "JPEGImages" / f"{stem}.jpg")
            for number, cell in enumerate(xml.parse(root / "Annotations" / f"{stem}.xml").iter("object")):
                sides = (float(cell.find(f"bndbox/{side}").text) for side in ("xmin", "ymin", "xmax", "ymax"))
                left, top, right, bottom = map(int, sides)
                if min(right - left, bottom - top) < LEAST:
                    continue
                middle, half = ((left + right) / 2, (top + bottom) / 2), 0.6 * max(right - left, bottom - top)
                place = folder / "cells" / name / cell.find("name").text / f"{stem}_{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                box = [int(at + sign * half) for sign in (-1, 1) for at in middle]
                image.crop(tuple(box)).save(place)


def make_small(name: str, folder: Path) -> None:
    """A few training images of a TFDS set, and all of its test, as PNG files by class."""
    import tensorflow_datasets as tfds

    training, validating = SMALL[name]
    classes = tfds.builder(name).info.features["label"].names
    train, test = (tfds.as_numpy(tfds.load(name, split=split, batch_size=-1)) for split in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(train["label"]))
    parts = {"train": (train, order[:training]), "validation": (train, order[training:][:validating])}
    for part, (images, numbers) in (parts | {"test": (test, np.arange(len(test["label"])))}).items():
        for index, number in enumerate(numbers):
            label = classes[images["label"][number]].replace("/", "-")
            place = folder / name / part / label / f"{index:05}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images["image"][number][..., 0]).save(place)


def train_as_the_guide(options: Guide) -> None:
    """Trains, and prints accuracy and seconds."""
    import kzoo  # isort: skip  before Keras, as it decides on oneDNN
    import keras

    keras.utils.set_random_seed(0)

    def read(part: str):
        how = dict(image_size=(32, 32), label_mode="int", crop_to_aspect_ratio=True, seed=0, verbose=0)
        return keras.utils.image_dataset_from_directory(options.folder / part, shuffle=part == "train", **how)

    train, validation, test = map(read, SPLITS.values())
    trained = kzoo.build("cifar_resnet20", num_classes=10, weights=options.weights)
    base = keras.Model(trained.input, trained.get_layer("head_dense").input)
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    changed = inputs if options.folder.name == "mnist" else keras.layers.RandomFlip("horizontal")(inputs)
    features = keras.layers.Dropout(0.2)(base(changed, training=False))
    model = keras.Model(inputs, keras.layers.Dense(len(train.class_names))(features))
    loss, began = keras.losses.SparseCategoricalCrossentropy(from_logits=True), time.perf_counter()
    for name, rate in (("head", 1e-3), ("all", 1e-5)):
        base.trainable = name == "all"
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.fit(train, validation_data=validation, epochs=20, verbose=2)
        accuracy = model.evaluate(test, verbose=0)[1]
        print(f"{name}: {accuracy:.2%} of the test images after {time.perf_counter() - began:.0f} s", flush=True)


def main(options: Folders | Guide) -> None:
    """Makes the folders, or trains."""
    if isinstance(options, Guide):
        train_as_the_guide(options)
        return
    if options.bccd:
        make_cells(options.bccd, options.output)
    for name in SMALL:
        make_small(name, options.output)


if __name__ == "__main__":
    main(tyro.cli(Folders | Guide, description=__doc__))
