"""The `kzoo` command: list, info, train, evaluate, predict, export, check."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import keras
import numpy as np
import rich
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional, arg

import kzoo
from kzoo.check.command import Check
from kzoo.edge import LiteRTModel, export
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.images import find_images
from kzoo.predict import BATCH_SIZE, classify, load_keras, open_classifier
from kzoo.show import Info, List, make_table
from kzoo.surgery import fold_batch_norm
from kzoo.train.cli import fail, parse, run, user_errors
from kzoo.train.data import ImageDataset, load_dataset
from kzoo.train.measure import score
from kzoo.train.recipe import list_recipes, load_recipe
from kzoo.zoo import build


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure the accuracy of a .keras or .tflite file on a dataset."""

    model: Annotated[Positional[Path], arg(metavar="FILE")]
    """Ends in .keras or .tflite."""
    dataset: str
    """Name: "digits", a TFDS set, or an image folder."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets."""
    split: Literal["test", "validation", "train"] = "test"
    """Images to use."""

    def run(self) -> None:
        if self.model.suffix == ".tflite":
            lite = LiteRTModel(self.model)
            shape, predict = lite.input_shape[1:], lite.predict
        else:
            model = _load(str(self.model))
            shape = tuple(model.inputs[0].shape[1:])

            def predict(images):
                return model.predict(images, batch_size=256)

        data = _dataset(self.dataset, self.data_dir, shape)
        images, labels = getattr(data, self.split).arrays()
        outputs = np.asarray(predict(np.asarray(images, "float32")))
        if outputs.ndim != 2 or outputs.shape[1] != len(data.classes):
            raise InvalidValueError(
                f"{self.model} gives outputs of shape {outputs.shape[1:]}, {self.dataset} has {len(data.classes)} "
                "classes; use the dataset that the model was trained on"
            )
        accuracy, loss = score(outputs, labels)
        probabilities = np.allclose(outputs.sum(axis=1), 1, atol=0.05)  # of logits there is no cross-entropy to show
        table = make_table("file", "dataset", "split", "images", "accuracy", "cross-entropy")
        table.add_row(
            str(self.model),
            data.name,
            self.split,
            str(len(labels)),
            f"{accuracy:.2%}",
            f"{loss:.4f}" if probabilities else "-",
        )
        rich.print(table)


@dataclasses.dataclass(frozen=True)
class Predict:
    """Name what pictures show, with a model of the zoo or a .keras or .tflite file."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A name of the zoo, or a file."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """PNG, JPEG, WebP or BMP files, and folders of them."""
    weights: str | None = None
    """For a name of the zoo; default: "imagenet". `kzoo info MODEL` lists them; a path and "hf://owner/name" too."""
    top: int = 5
    """How many classes to show."""
    json: bool = False
    """Print a JSON list instead of tables."""
    labels: Path | None = None
    """Text file with the name of a class on each line."""
    image_size: int | None = None
    """Height and width, for a model that takes more than one size."""
    crop: float | None = None
    """Side of the centre crop over the shorter side of the picture; default: as the weights were measured, or 1."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Of the resizing; default: as the weights were measured, or bilinear."""

    def run(self) -> None:
        if self.top < 1:
            raise InvalidValueError(f"--top {self.top} must be at least 1")
        if not self.images:
            raise InvalidValueError("no image given; name files or folders behind the model")
        paths = find_images(self.images)
        options = ("weights", "labels", "image_size", "crop", "interpolation")
        classifier = open_classifier(self.model, **{option: getattr(self, option) for option in options})
        results = track(
            classify(classifier, paths),
            total=len(paths),
            console=Console(stderr=True),
            transient=True,
            disable=len(paths) <= BATCH_SIZE,
        )
        read, broken = [], []
        for path, result in results:
            if isinstance(result, InvalidValueError):
                broken.append(result)
            else:
                read.append({"image": str(path), "predictions": classifier.top(result, self.top)})
        if not read:
            more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
            raise InvalidValueError(f"no image could be read: {broken[0]}{more}")
        if self.json:
            print(json.dumps(read, indent=2))
        else:
            console = Console()
            for image in read:
                console.print(image["image"], markup=False, highlight=False, soft_wrap=True)
                console.print(_ranking(image["predictions"]))
        for error in broken:
            print(f"kzoo: warning: {' '.join(str(error).split())}", file=sys.stderr)
        if broken:
            raise SystemExit(1)


def _ranking(predictions: list[dict]) -> Table:
    table = make_table("rank", "class", "probability")
    for rank, found in enumerate(predictions, start=1):
        table.add_row(str(rank), escape(found["class"]), f"{found['probability']:.2%}")
    return table


@dataclasses.dataclass(frozen=True)
class Export:
    """Fold a model and write it as a LiteRT file that was checked against Keras."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A .keras file, or a name of the zoo."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT")]
    """The .tflite file."""
    precision: Literal["float32", "int8", "int8_dynamic"] = "float32"
    """Of the file."""
    dataset: str | None = None
    """Training images to calibrate and to check on: "digits", a TFDS name, or an image folder. Needed for int8."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets."""
    images: int = 200
    """How many of them."""
    batch_size: int = 1
    """Static batch of the file."""
    weights: str | None = None
    """For a name of the zoo: weights to load, such as "imagenet" or a path."""

    def run(self) -> None:
        model = _load(self.model, self.weights)
        if self.images < 1:
            raise InvalidValueError(f"--images {self.images} must be at least 1")
        calibration = None
        if self.dataset:
            data = _dataset(self.dataset, self.data_dir, tuple(model.inputs[0].shape[1:]))
            calibration = data.train.arrays(self.images)[0]
        report = export(fold_batch_norm(model), self.output, self.precision, calibration, self.batch_size)
        table = make_table(str(self.output), "", header=False)
        for field in dataclasses.fields(report):
            value = getattr(report, field.name)
            table.add_row(field.name, f"{value:.2e}" if isinstance(value, float) else str(value))
        rich.print(table)


def _load(source: str, weights: str | None = None) -> keras.Model:
    """A model from a `.keras` file, or from the zoo by name."""
    if not source.endswith(".keras"):
        return build(source, weights=weights)
    if weights is not None:
        raise InvalidValueError(f"{source} has its own weights; --weights goes with a name of the zoo")
    return load_keras(source)


def _dataset(name: str, data_dir: str | None, image_shape: tuple) -> ImageDataset:
    if image_shape[0] != image_shape[1] or image_shape[2] != 3:
        raise InvalidValueError(f"the model takes images of {image_shape}; datasets give square RGB images")
    return load_dataset(name, data_dir=data_dir, image_size=image_shape[0])


def _train(args: Sequence[str]) -> None:
    """Train a recipe; every field of it is a flag."""
    recipes = ", ".join(list_recipes())
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: kzoo train RECIPE [OPTIONS]\n\nRecipes: {recipes}; or the path of a recipe file.")
        print("kzoo train RECIPE --help shows the options.")
        raise SystemExit(0 if args else 2)
    if args[0].startswith("-"):
        fail(f"the recipe comes first: kzoo train RECIPE {' '.join(args)}; there are {recipes}")
    run(load_recipe(args[0]), args[1:], f"kzoo train {args[0]}")


COMMANDS: dict[str, Callable] = {
    "list": List,
    "info": Info,
    "train": _train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "check": Check,
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs the `kzoo` command."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print("usage: kzoo COMMAND [OPTIONS]\n")
        for name, command in COMMANDS.items():
            print(f"  {name:<10}{command.__doc__}")
        print("\nkzoo COMMAND --help shows the options of a command.")
        raise SystemExit(0 if args else 2)
    if args[0] == "--version":
        print(f"kzoo {kzoo.__version__}")
        return
    with user_errors():
        command = COMMANDS.get(args[0])
        if command is None:
            raise UnknownNameError(f"unknown command {args[0]!r}; commands are {', '.join(COMMANDS)}")
        if command is _train:
            _train(args[1:])
        else:
            parse(command, args[1:], f"kzoo {args[0]}", description=command.__doc__).run()
