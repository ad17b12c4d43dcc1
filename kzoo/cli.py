"""The `kzoo` command: list, info, train, evaluate, predict, export, check, bench."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import rich
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional, arg

import kzoo
from kzoo.bench.command import Bench
from kzoo.check.command import Check
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.export_command import Export
from kzoo.files import refuse_unwritable
from kzoo.images import find_images
from kzoo.predict import BATCH_SIZE, Opened, as_classifier, classify, load_keras, open_model
from kzoo.segment import as_segmenter, output_paths, segment
from kzoo.show import Info, List, make_table
from kzoo.train.cli import fail, parse, run, user_errors
from kzoo.train.data import readable_images
from kzoo.train.recipe import Recipe, list_recipes, load_recipe, recipe_beside
from kzoo.train.tasks import named as task_named


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure the accuracy of a .keras or .tflite file on a dataset, or the mean IoU of a model for segmentation."""

    model: Annotated[Positional[Path], arg(metavar="FILE")]
    """Ends in .keras or .tflite."""
    dataset: str
    """Name: "digits", a TFDS set, or a folder: of images by class, or for segmentation of images and masks."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets, and folders that are given by name."""
    split: Literal["test", "validation", "train"] = "test"
    """Images to use."""
    class_names: tuple[str, ...] = ()
    """For segmentation, as in a recipe; default: as in the recipe that wrote the file, if its report is beside it."""
    mask_values: tuple[int, ...] = ()
    """For segmentation: value of each class in the mask files; default as above."""
    void: tuple[int, ...] = ()
    """For segmentation: values in the mask files of pixels that do not count; default as above."""
    flip: bool = False
    """For segmentation: predict each image and its mirror image, and take the mean."""

    def run(self) -> None:
        predict, shape, outputs = self._open()
        if shape[2] != 3:
            raise InvalidValueError(f"{self.model} takes images of {shape[2]} channels; datasets give RGB images")
        task = task_named("segmentation" if len(outputs) == 4 else "classification")
        if self.flip and task.name != "segmentation":
            raise InvalidValueError(
                f"--flip is for segmentation, and {self.model} gives outputs of shape {outputs[1:]}"
            )
        size = None if None in shape[:2] else shape[:2]
        options = recipe_beside(self.model, self.dataset) | {
            field: value for field in ("class_names", "mask_values", "void") if (value := getattr(self, field))
        }
        recipe = Recipe(
            name="", model=str(self.model), dataset=self.dataset, data_dir=self.data_dir, image_size=size, **options
        )
        data = task.load(recipe)
        if outputs[-1] != len(data.classes):
            raise InvalidValueError(
                f"{self.model} gives outputs of shape {outputs[1:]}, {self.dataset} has {len(data.classes)} "
                "classes; use the dataset that the model was trained on"
            )
        split, scorer = getattr(data, self.split), task.scorer(data.classes)
        with readable_images(self.dataset):
            for images, labels in split.dataset.batch(task.batch_size).as_numpy_iterator():
                predicted = predict(images)
                if self.flip:
                    predicted = (predicted + predict(images[:, :, ::-1])[:, :, ::-1]) / 2
                scorer.add(predicted, labels)
        scores = scorer.scores()
        table = make_table("file", "dataset", "split", "images", *(column.title for column in task.columns))
        shown = (column.show(scores) for column in task.columns)
        table.add_row(str(self.model), data.name, self.split, str(split.size), *shown)
        rich.print(table)
        if task.class_columns:
            table = make_table("class", *(column.title for column in task.class_columns))
            for name in data.classes:
                table.add_row(escape(name), *(column.text(scores[column.key][name]) for column in task.class_columns))
            rich.print(table)

    def _open(self) -> tuple[Callable, tuple, tuple]:
        """What predicts a batch, the shape of an image, and the shape of the outputs."""
        if self.model.suffix == ".tflite":
            lite = LiteRTModel(self.model)
            return lite.predict, lite.input_shape[1:], tuple(int(size) for size in lite.output["shape"])
        model = load_keras(self.model)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise InvalidValueError(f"{self.model} has several inputs or outputs; one of each can be evaluated")
        shapes = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape)
        return lambda images: model.predict_on_batch(np.asarray(images, "float32")), *shapes


@dataclasses.dataclass(frozen=True)
class Predict:
    """Name what pictures show, or segment them, with a model of the zoo or a .keras or .tflite file."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A name of the zoo, or a file."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """PNG, JPEG, WebP or BMP files, and folders of them."""
    weights: str | None = None
    """For a name of the zoo; default: "imagenet". `kzoo info MODEL` lists them; a path and "hf://owner/name" too."""
    top: int | None = None
    """How many classes a classifier shows; default: 5."""
    json: bool = False
    """Print a JSON list instead of tables."""
    labels: Path | None = None
    """Text file with the name of a class on each line."""
    image_size: int | None = None
    """Height and width, for a model that takes more than one size; with --tiles those of a tile."""
    crop: float | None = None
    """Side of a classifier's centre crop over the shorter side of the picture; default: as the weights were measured,
    or 1."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Of the resizing; default: as the weights were measured, or bilinear."""
    output_dir: Path | None = None
    """Where segmentation writes NAME_overlay.png, NAME_predicted_mask.png (the index of the class of each pixel, 8
    bits) and NAME_areas.json; default: "predictions" here."""
    tiles: bool = False
    """Segment a picture at its own size in overlapping tiles. Default: it is resized to the model's size."""

    def run(self) -> None:
        if self.top is not None and self.top < 1:
            raise InvalidValueError(f"--top {self.top} must be at least 1")
        if not self.images:
            raise InvalidValueError("no image given; name files or folders behind the model")
        paths = find_images(self.images)
        options = ("weights", "labels", "image_size", "crop", "interpolation")
        opened = open_model(self.model, **{option: getattr(self, option) for option in options})
        segments = len(opened.output_shape) == 4
        results = track(
            self._segment(opened, paths) if segments else self._classify(opened, paths),
            total=len(paths),
            console=Console(stderr=True),
            transient=True,
            disable=len(paths) <= BATCH_SIZE or self.tiles,  # tiles have a bar of their own
        )
        read, broken = [], []
        for result in results:
            (broken if isinstance(result, InvalidValueError) else read).append(result)
        if not read:
            more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
            raise InvalidValueError(f"no image could be read: {broken[0]}{more}")
        if self.json:
            print(json.dumps(read, indent=2))
        else:
            console = Console()
            for image in read:
                title = f"{image['image']} → {image['overlay']}" if segments else image["image"]
                console.print(title, markup=False, highlight=False, soft_wrap=True)
                console.print(_areas(image["classes"]) if segments else _ranking(image["predictions"]))
        for error in broken:
            print(f"kzoo: warning: {' '.join(str(error).split())}", file=sys.stderr)
        if broken:
            raise SystemExit(1)

    def _classify(self, opened: Opened, paths: Sequence[Path]) -> Iterator[dict | InvalidValueError]:
        classifier = as_classifier(opened)
        self._refuse("a model for segmentation", output_dir=self.output_dir, tiles=self.tiles or None)
        top = 5 if self.top is None else self.top
        return (
            result
            if isinstance(result, InvalidValueError)
            else {"image": str(path), "predictions": classifier.top(result, top)}
            for path, result in classify(classifier, paths)
        )

    def _segment(self, opened: Opened, paths: Sequence[Path]) -> Iterator[dict | InvalidValueError]:
        segmenter = as_segmenter(opened)
        self._refuse("a classifier", top=self.top, crop=self.crop)
        if self.tiles and self.interpolation:
            raise InvalidValueError("--interpolation is of the resizing, and --tiles does without")
        directory = self.output_dir or Path("predictions")
        outputs = output_paths(paths, directory)
        refuse_unwritable(directory)
        return segment(segmenter, outputs, self.tiles)

    def _refuse(self, others: str, **options) -> None:
        for name, value in options.items():
            if value is not None:
                raise InvalidValueError(f"--{name.replace('_', '-')} goes with {others}, which {self.model} is not")


def _ranking(predictions: list[dict]) -> Table:
    table = make_table("rank", "class", "probability")
    for rank, found in enumerate(predictions, start=1):
        table.add_row(str(rank), escape(found["class"]), f"{found['probability']:.2%}")
    return table


def _areas(classes: list[dict]) -> Table:
    table = make_table("class", "pixels", "share")
    for found in sorted(classes, key=lambda found: -found["pixels"]):
        if found["pixels"]:
            table.add_row(escape(found["class"]), f"{found['pixels']:,}", f"{found['share']:.2%}")
    return table


def _train(args: Sequence[str]) -> None:
    """Train a recipe; every field of it is a flag."""
    recipes = ", ".join(list_recipes())
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: kzoo train RECIPE [OPTIONS]\n\nRecipes: {recipes}; or the path of a recipe file.")
        print("A recipe file is Python code and is run: give one that you have read, or whose author you trust.")
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
    "bench": Bench,
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
