"""The options of every command, with their help. What a command does with them stands in the module of its name.

Nothing here imports Keras, so that help and completion answer at once.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from kzoo.bench.plan import Plan
from kzoo.images import Interpolation, Resize
from kzoo.precisions import PRECISIONS

ALL = "all"
Task = Literal["classification", "segmentation"]
Values = Literal["softmax", "sigmoid", "logits"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonOption:
    """The flag of the commands that answer programs too."""

    json: bool = False
    """Print one JSON value instead of tables; progress and warnings go to standard error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """Flags of the commands that bring pictures to a model; None leaves it at what is known of the model."""

    resize: Resize | None = None
    """How a picture of another shape is fitted: stretched, its centre cut out, or padded with black; default: as the
    model was trained or measured, else crop, or stretch for segmentation."""
    crop: float | None = None
    """Side of the centre crop over the shorter side of the picture; default: as the model was measured, or 1."""
    interpolation: Interpolation | None = None
    """Of the resizing; default: as the model was trained or measured, or bilinear."""

    @property
    def pixel_options(self) -> dict[str, str | float | None]:
        """The flags, for `kzoo.images.Pixels.changed`."""
        return dict(resize=self.resize, crop=self.crop, interpolation=self.interpolation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """What the values in mask files mean, as in a recipe."""

    class_names: tuple[str, ...] = ()
    """For segmentation, as in a recipe; default: as in the recipe that wrote the file, if its report is beside it."""
    mask_values: tuple[int, ...] = ()
    """For segmentation: value of each class in the mask files; default as above."""
    void: tuple[int, ...] = ()
    """For segmentation: values in the mask files of pixels that do not count; default as above."""

    @property
    def mask_options(self) -> dict[str, Any]:
        """The flags that were given, for a `Recipe`."""
        names = [field.name for field in dataclasses.fields(MaskOptions)]
        return {name: value for name in names if (value := getattr(self, name))}


@dataclasses.dataclass(frozen=True)
class List(JsonOption):
    """List the models of the zoo."""

    pattern: Annotated[Positional[str], arg(metavar="[PATTERN]")] = "*"
    """Shell-style, such as "resnet50*" (quote it)."""
    family: str | None = None
    """Family of the models, such as "resnet"."""
    task: Task | None = None
    """Task of the models."""
    max_parameters: str | None = None
    """Largest number of trainable parameters, such as 5M."""
    max_macs: str | None = None
    """Largest number of multiply-adds for one image, such as 600M or 4.1G."""
    weights: bool = False
    """Only models with public weights."""


@dataclasses.dataclass(frozen=True)
class Info(JsonOption):
    """Show the size, cost, feature maps, weights, papers and options of a model."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Of the model."""
    attention: str | None = None
    """Attention to put in, such as "se"."""
    backbone: str | None = None
    """Network under a U-Net or a feature pyramid, such as "resnet34_cbam"."""


@dataclasses.dataclass(frozen=True)
class Evaluate(MaskOptions, PixelOptions, JsonOption):
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
    values: Values | None = None
    """What the outputs are, of a model that does not tell."""
    flip: bool = False
    """For segmentation: predict each image and its mirror image, and take the mean."""


@dataclasses.dataclass(frozen=True)
class Predict(PixelOptions, JsonOption):
    """Name what pictures show, or segment them, with a model of the zoo or a .keras or .tflite file."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A name of the zoo, or a file."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """PNG, JPEG, WebP, BMP, GIF or TIFF files, and folders of them."""
    weights: str | None = None
    """For a name of the zoo; default: "imagenet". `kzoo info MODEL` lists them; a path and "hf://owner/name" too."""
    top: int | None = None
    """How many classes a classifier shows; default: 5."""
    labels: Path | None = None
    """Text file with the name of a class on each line."""
    values: Values | None = None
    """What the outputs are, of a model that does not tell: its last layer is somebody's own, say."""
    image_size: int | None = None
    """Height and width, for a model that takes more than one size; with --tiles those of a tile."""
    output_dir: Path | None = None
    """Where segmentation writes NAME_overlay.png, NAME_predicted_mask.png (the index of the class of each pixel, 8
    bits) and NAME_areas.json; default: "predictions" here."""
    tiles: bool = False
    """Segment a picture at its own size in overlapping tiles. Default: it is resized to the model's size."""


@dataclasses.dataclass(frozen=True)
class Export(MaskOptions, PixelOptions, JsonOption):
    """Fold a model and write it as LiteRT files that were checked against Keras."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A .keras file, or a name of the zoo."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT")]
    """The .tflite file; for several precisions a folder."""
    precision: tuple[Literal[(*PRECISIONS, "auto", ALL)], ...] = ("float32",)
    """Of the file, or several; "auto" takes the fastest that keeps the error small, "all" makes one of each."""
    dataset: str | None = None
    """Training images to calibrate and to check on: "digits", a TFDS name, or a folder. int8, int16x8
    and int4 need it."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets."""
    images: int = 200
    """How many of them."""
    evaluate: int = 0
    """Accuracy or mean IoU of Keras and file on so many test images of the dataset."""
    fold_preprocessing: bool = False
    """Fold the normalisation of pixels into the first convolution too: large int8 files run up to a tenth faster, and
    4-bit ones lose accuracy."""
    batch_size: int = 1
    """Static batch of the file."""
    weights: str | None = None
    """For a name of the zoo: weights to load, such as "imagenet" or a path."""
    labels: Path | None = None
    """Text file with the name of a class on each line, for the card; default: those of the model's recipe, or
    ImageNet's. One sigmoid or logit has two classes."""
    values: Values | None = None
    """What the outputs are, of a model that does not tell."""
    threads: tuple[int, ...] = ()
    """Time the file with so many threads, one after the other."""
    report: bool = False
    """Write NAME_report.json and NAME_report.md beside each file, with the tensors that lose most, and for several
    precisions a picture, precisions.png."""


@dataclasses.dataclass(frozen=True)
class Check(JsonOption):
    """Check that models build, save, learn, fold, export and agree with JAX."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME...]")] = ()
    """Models, or shell-style patterns of them such as "resnet50*" (quote them)."""
    all: bool = False
    """Check every model of the zoo; takes a while."""
    output: Path | None = None
    """Folder for matrix.json, matrix.png and README.md. What passed there before is not checked again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(Plan, JsonOption):
    """Options of `kzoo bench`."""

    output: Path | None = None
    """Folder for bench.json, bench.png and README.md."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """Options of `kzoo completion`."""

    shell: Annotated[Positional[Literal["bash", "zsh", "fish"]], arg(metavar="SHELL")]
    """Shell: bash, zsh or fish."""


# `kzoo train` takes the fields of a recipe
FORMS = {
    "list": List,
    "info": Info,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "check": Check,
    "bench": Bench,
    "completion": Completion,
}
