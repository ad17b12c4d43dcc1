"""The `kzoo` command: list, info, train, evaluate, predict, export, check, bench."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import rich
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional, arg

import kzoo
from kzoo.bench.command import Bench
from kzoo.check.command import Check
from kzoo.class_names import FILES, match_classes
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.escape import printable, terminal
from kzoo.export_command import Export
from kzoo.files import refuse_unwritable
from kzoo.images import find_images
from kzoo.known_pixels import PixelOptions
from kzoo.predict import BATCH_SIZE, Opened, as_classifier, classify, open_model
from kzoo.segment import as_segmenter, output_paths, segment
from kzoo.show import Info, List, make_table
from kzoo.tiles import runner
from kzoo.train.cli import fail, parse, run, user_errors
from kzoo.train.data import readable_images
from kzoo.train.mask_options import MaskOptions
from kzoo.train.recipe import Recipe, list_recipes, load_recipe, recipe_beside
from kzoo.train.tasks import task_of_output


@dataclasses.dataclass(frozen=True)
class Evaluate(MaskOptions, PixelOptions):
    """Measure the accuracy of a .keras or .tflite file on a dataset, or the mean IoU of a model for segmentation."""

    model: Annotated[Positional[Path], arg(metavar="FILE")]
    """Ends in .keras or .tflite."""
    dataset: str
    """Name: "digits", a TFDS set, or a folder: of images by class, or for segmentation of images and masks."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets, and folders that are given by name."""
    split: Literal["test", "validation", "train"] = "test"
    """Images to use."""
    image_size: int | tuple[int, int] | None = None
    """Height and width that images are resized to, or one number for both, for a model that takes any size."""
    labels: Path | None = None
    """Text file with the name of a class on each line, in the order of the model's output; default: those that the
    file or its recipe knows. The classes of the dataset are matched by name."""
    values: Literal["softmax", "sigmoid", "logits"] | None = None
    """What the outputs are, of a model that does not tell."""
    flip: bool = False
    """For segmentation: predict each image and its mirror image, and take the mean."""

    def run(self) -> None:
        predict, opened = self._open()
        shape, output = opened.shape, opened.output
        if len(shape) != 3 or shape[2] != 3:
            raise InvalidValueError(f"{self.model} takes {shape}; datasets give RGB images (height, width, 3)")
        task = task_of_output(output, str(self.model))
        if self.flip and task.name != "segmentation":
            raise InvalidValueError(f"--flip is for segmentation, and {self.model} does {output.task}")
        asked = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        if asked and any(own not in (None, side) for own, side in zip(shape, asked, strict=False)):
            raise InvalidValueError(
                f"{self.model} takes images of {shape[0]}×{shape[1]} alone, not {asked[0]}×{asked[1]} (--image-size)"
            )
        size = asked if None in shape[:2] else shape[:2]
        options = recipe_beside(self.model, self.dataset) | self.mask_options
        recipe = Recipe(
            name="",
            model=str(self.model),
            dataset=self.dataset,
            data_dir=self.data_dir,
            image_size=size,
            **opened.pixels.to_json(),
            **options,
        )
        data = task.load(recipe)
        relabel = match_classes(output, data.classes, str(self.model), self.dataset)
        classes = output.class_names or data.classes
        split, scorer = getattr(data, self.split), task.scorer(output.named(classes))
        with readable_images():
            for images, labels in split.dataset.batch(task.batch_size).as_numpy_iterator():
                predicted = predict(images)
                if self.flip:
                    predicted = (predicted + predict(images[:, :, ::-1])[:, :, ::-1]) / 2
                scorer.add(predicted, relabel(labels))
        scores = scorer.scores()
        table = make_table("file", "dataset", "split", "images", *(column.title for column in task.columns))
        shown = (column.show(scores) for column in task.columns)
        table.add_row(terminal(str(self.model)), terminal(data.name), self.split, str(split.size), *shown)
        rich.print(table)
        if task.class_columns:
            table = make_table("class", *(column.title for column in task.class_columns))
            for name in classes:
                table.add_row(
                    terminal(name), *(column.text(scores[column.key][name]) for column in task.class_columns)
                )
            rich.print(table)

    def _open(self) -> tuple[Callable, Opened]:
        """What gives the probabilities of a batch, and the opened model."""
        if self.model.suffix not in FILES:
            raise InvalidValueError(f"{self.model} must end in {' or '.join(FILES)}")
        opened = open_model(str(self.model), labels=self.labels, values=self.values, **self.pixel_options)
        opened.output.check_known(str(self.model))
        run = runner(opened.model)
        return lambda images: opened.output.probabilities(run(images)), opened


@dataclasses.dataclass(frozen=True)
class Predict(PixelOptions):
    """Name what pictures show, or segment them, with a model of the zoo or a .keras or .tflite file."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A name of the zoo, or a file."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """PNG, JPEG, WebP, BMP, GIF or TIFF files, and folders of them."""
    weights: str | None = None
    """For a name of the zoo; default: "imagenet". `kzoo info MODEL` lists them; a path and "hf://owner/name" too."""
    top: int | None = None
    """How many classes a classifier shows; default: 5."""
    json: bool = False
    """Print a JSON list instead of tables."""
    labels: Path | None = None
    """Text file with the name of a class on each line."""
    values: Literal["softmax", "sigmoid", "logits"] | None = None
    """What the outputs are, of a model that does not tell: its last layer is somebody's own, say."""
    image_size: int | None = None
    """Height and width, for a model that takes more than one size; with --tiles those of a tile."""
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
        options = {option: getattr(self, option) for option in ("weights", "labels", "values", "image_size")}
        opened = open_model(self.model, **options, **self.pixel_options)
        segments = opened.output.task == "segmentation"
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
                console.print(printable(title), markup=False, highlight=False, soft_wrap=True)
                several = opened.output.multi_label
                console.print(_areas(image["classes"]) if segments else _ranking(image["predictions"], several))
        for error in broken:
            print(f"kzoo: warning: {printable(' '.join(str(error).split()))}", file=sys.stderr)
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
        self._refuse("a classifier", top=self.top, crop=self.crop)
        segmenter = as_segmenter(opened)
        for option in ("interpolation", "resize"):
            if self.tiles and getattr(self, option):
                raise InvalidValueError(f"--{option} is of the resizing, and --tiles does without")
        directory = self.output_dir or Path("predictions")
        outputs = output_paths(paths, directory)
        refuse_unwritable(directory)
        return segment(segmenter, outputs, self.tiles)

    def _refuse(self, others: str, **options) -> None:
        for name, value in options.items():
            if value is not None:
                raise InvalidValueError(f"--{name.replace('_', '-')} goes with {others}, which {self.model} is not")


def _ranking(predictions: list[dict], several: bool) -> Table:
    table = make_table("rank", "class", "probability, by itself" if several else "probability")
    for rank, found in enumerate(predictions, start=1):
        table.add_row(str(rank), terminal(found["class"]), f"{found['probability']:.2%}")
    return table


def _areas(classes: list[dict]) -> Table:
    table = make_table("class", "pixels", "share")
    for found in sorted(classes, key=lambda found: -found["pixels"]):
        if found["pixels"]:
            table.add_row(terminal(found["class"]), f"{found['pixels']:,}", f"{found['share']:.2%}")
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
