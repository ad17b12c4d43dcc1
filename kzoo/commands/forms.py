"""The options of every command, with their help. What a command does with them stands in the module of its name.

Nothing here imports Keras, so that help and completion answer at once.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from kzoo.bench import plan as bench_plan
from kzoo.images import Interpolation, PixelChanges, Resize
from kzoo.precisions import PRECISIONS, Io, Target

ALL = "all"
TaskName = Literal["classification", "segmentation", "detection"]
Values = Literal["softmax", "sigmoid", "logits"]
MapMethod = Literal[
    "gradcam",
    "hirescam",
    "layercam",
    "gradcam++",
    "eigencam",
    "scorecam",
    "rollout",
    "gradrollout",
    "ig",
    "smoothgrad",
    "occlusion",
    "rise",
]
if TYPE_CHECKING:  # which cannot read names out of data, as tyro does
    PrecisionChoice = str
else:
    PrecisionChoice = Literal[(*PRECISIONS, "auto", ALL)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonOption:
    """The flag of the commands that answer programs too."""

    json: bool = False
    """Whether to print one JSON value instead of tables; progress and warnings go to standard error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """Flags of the commands that bring pictures to a model; None leaves it at what is known of the model."""

    resize: Resize | None = None
    """Way in which a picture of another shape is fitted: stretched, its centre cut out, or padded with black; default:
    as the model was trained or measured, else crop, or stretch for segmentation."""
    crop: float | None = None
    """Side of the centre crop over the shorter side of the picture; default: as the model was measured, or 1."""
    interpolation: Interpolation | None = None
    """Interpolation of the resizing; default: as the model was trained or measured, or bilinear."""

    @property
    def pixel_options(self) -> PixelChanges:
        """The flags, for `kzoo.images.Pixels.changed`."""
        return PixelChanges(resize=self.resize, crop=self.crop, interpolation=self.interpolation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """What mask files and the labels of a table mean, as in a recipe."""

    label_separator: str | None = None
    """Text between the classes of an image in the column label of a table, for a model with several sigmoids; default:
    as in the recipe that wrote the file, if its report is beside it."""

    class_names: tuple[str, ...] = ()
    """Names of the classes, for segmentation, as in a recipe; default: as in the recipe that wrote the file, if its
    report is beside it."""
    mask_values: tuple[int, ...] = ()
    """Value of each class in the mask files, for segmentation; default as above."""
    void: tuple[int, ...] = ()
    """Values in the mask files of pixels that do not count, for segmentation; default as above."""

    @property
    def truth_options(self) -> dict[str, Any]:
        """The flags that were given, for a `Recipe`."""
        names = [field.name for field in dataclasses.fields(TruthOptions)]
        return {name: value for name in names if (value := getattr(self, name))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DivisionOptions:
    """How a dataset is divided that does not say so itself, as in a recipe."""

    test_fraction: float | None = None
    """Share that is held out for the test, of a folder or table without test images, as in a recipe; default: as in
    the recipe that wrote the file, if its report is beside it, else 0.2."""
    validation_fraction: float | None = None
    """Share of the training images that is held out for validation; default as above, else 0.1."""
    group_by: str | None = None
    """Regular expression of a key in the path from the dataset's folder, all images of which are in one split; default
    as above."""
    seed: int | None = None
    """Seed of what is held out for validation; default as above, else 0."""

    @property
    def division_options(self) -> dict[str, Any]:
        """The flags that were given, for a `Recipe`."""
        names = [field.name for field in dataclasses.fields(DivisionOptions)]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclasses.dataclass(frozen=True)
class List(JsonOption):
    """Options of `kzoo list`."""

    pattern: Annotated[Positional[str], arg(metavar="[PATTERN]")] = "*"
    """Shell-style pattern of names, such as "resnet50*" (quote it)."""
    family: str | None = None
    """Family of the models, such as "resnet"."""
    task: TaskName | None = None
    """TaskName of the models."""
    max_parameters: str | None = None
    """Largest number of trainable parameters, such as 5M."""
    max_macs: str | None = None
    """Largest number of multiply-adds for one image, such as 600M or 4.1G."""
    weights: bool = False
    """Whether to show only models with public weights."""


@dataclasses.dataclass(frozen=True)
class Info(JsonOption):
    """Options of `kzoo info`."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of the model."""
    attention: str | None = None
    """Attention to put in, such as "se"."""
    backbone: str | None = None
    """Network under a U-Net, a feature pyramid or a detector, such as "resnet34_cbam"."""
    picture: Path | None = None
    """Picture of the stages and blocks to write, which ends in .svg or .png."""


@dataclasses.dataclass(frozen=True)
class Recipes(JsonOption):
    """Options of `kzoo recipes`."""

    pattern: Annotated[Positional[str], arg(metavar="[PATTERN]")] = "*"
    """Shell-style pattern of names, such as "imagenet_*" (quote it)."""


@dataclasses.dataclass(frozen=True)
class Evaluate(DivisionOptions, TruthOptions, PixelOptions, JsonOption):
    """Options of `kzoo evaluate`."""

    model: Annotated[Positional[Path], arg(metavar="FILE")]
    """Model file, which ends in .keras or .tflite."""
    dataset: str
    """Dataset: "digits", a TFDS name, a folder or a table of images by class, or for segmentation a folder of images
    and masks."""
    data_dir: str | None = None
    """Directory where TFDS keeps its datasets, and of folders that are given by name."""
    split: Literal["test", "validation", "train", "all"] = "test"
    """Split whose images are used: one, or all three together. A folder without splits is divided as for training, so
    that a model is judged on images that it has not seen; of images that no model was trained on, take all."""
    image_size: int | tuple[int, int] | None = None
    """Height and width that images are resized to, or one number for both, for a model that takes any size."""
    labels: Path | None = None
    """Text file with the name of a class on each line, in the order of the model's output; default: those that the
    file or its recipe knows. The classes of the dataset are matched by name."""
    values: Values | None = None
    """Meaning of the outputs, of a model that does not tell."""
    flip: bool = False
    """Whether to predict each image and its mirror image, and to take the mean; for segmentation."""
    temperature: bool = False
    """Whether to fit a temperature to the validation images, and to tell the calibration error before and after; for
    classification. The file stays as it is."""
    output: Path | None = None
    """Folder for evaluation.json, README.md, mistakes.html of a classifier, tables (classes.csv, confusion.csv) and
    pictures."""


@dataclasses.dataclass(frozen=True)
class Predict(PixelOptions, JsonOption):
    """Options of `kzoo predict`."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model: a name of the zoo, or a file."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """Pictures: PNG, JPEG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 or AVIF files, and folders of them."""
    weights: str | None = None
    """Weights for a name of the zoo; default: "imagenet". `kzoo info MODEL` lists them; a path and "hf://owner/name"
    too."""
    top: int | None = None
    """Number of classes that a classifier shows; default: 5."""
    labels: Path | None = None
    """Text file with the name of a class on each line."""
    values: Values | None = None
    """Meaning of the outputs, of a model that does not tell: its last layer is somebody's own, say."""
    image_size: int | None = None
    """Height and width of the images, for a model that takes more than one size; with --tiles those of a tile."""
    output_dir: Path | None = None
    """Directory where segmentation writes NAME_overlay.png, NAME_predicted_mask.png (the index of the class of each
    pixel, 8 bits) and NAME_areas.json, and a detector NAME_boxes.png and detections.json, as COCO's tools read it;
    default: "predictions" here."""
    score: float | None = None
    """Least score of the boxes of a detector; default: as it was trained, or torchvision's."""
    crops: bool = False
    """Whether to cut each box of a detector out too, as NAME_box1.png and so on, the surest first."""
    heatmap: bool = False
    """Whether to write NAME_heatmap.png to --output-dir too: the image that a classifier sees in grey, and in red
    where it sees its most probable class. For nets that end in global average pooling and one dense layer, and for
    files that were exported with --heatmap."""
    tiles: bool = False
    """Whether to segment a picture at its own size in overlapping tiles; default: it is resized to the model's
    size."""


@dataclasses.dataclass(frozen=True)
class Explain(PixelOptions, JsonOption):
    """Options of `kzoo explain`."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model: a name of the zoo, or a .keras or .tflite file."""
    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="PICTURE...")]
    """Pictures: files that `kzoo predict` reads, and folders of them."""
    output: Path
    """Folder for index.html, maps.json and a PNG of each map. A page that is there is replaced, anything else is left
    alone."""
    method: tuple[MapMethod, ...] = ()
    """Ways to make maps; default: gradcam, of a detector hirescam, of a .tflite file occlusion. Files can have
    occlusion and rise alone."""
    target: tuple[str, ...] = ()
    """Classes that are explained, by name or index; default: the two most probable ones of each picture, or of
    largest area. Of a detector the three surest boxes of these classes; default: of all."""
    box: tuple[int, ...] = ()
    """Boxes of a detector that are explained, by their numbers, in each picture; 1 is the surest."""
    layer: tuple[str, ...] = ()
    """Feature maps that the methods up to scorecam are made of: taps, names of layers, or paths in models inside;
    default: the last one that still has places, of a box the map of the pyramid on which it stands."""
    compare: str | None = None
    """A second model on the same pictures, side by side: a name of the zoo, or a .keras or .tflite file. Its classes
    are found by the names of the first one's, and its boxes by their overlap."""
    query: tuple[int, int] | None = None
    """Pixel, row and column, that looks at others in attention layers; default: the middle."""
    maps_only: bool = False
    """Leave out what takes longest: scores, the check of randomised weights, attention and feature maps."""
    weights: str | None = None
    """Weights for a name of the zoo, as of `kzoo predict`; default: "imagenet"."""
    labels: Path | None = None
    """Text file with the name of a class on each line."""
    values: Values | None = None
    """Meaning of the outputs, of a model that does not tell."""
    image_size: int | None = None
    """Height and width of the images, for a model that takes more than one size."""


@dataclasses.dataclass(frozen=True)
class Export(TruthOptions, PixelOptions, JsonOption):
    """Options of `kzoo export`."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Model: a .keras file, or a name of the zoo."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT")]
    """File to write, which ends in .tflite; for several precisions and --savedmodel a folder."""
    onnx: bool = False
    """Whether to write an ONNX file, which ends in .onnx; needs the extra "onnx": tf2onnx, onnx and onnxruntime."""
    savedmodel: bool = False
    """Whether to write a SavedModel of TensorFlow, a folder."""
    precision: tuple[PrecisionChoice, ...] = ("float32",)
    """Precisions of the files; "auto" takes the fastest that keeps the error small, "all" makes one of each."""
    dataset: str | None = None
    """Training images to calibrate and to check on: "digits", a TFDS name, a folder, or a table. int8, int16x8
    and int4 need it."""
    data_dir: str | None = None
    """Directory where TFDS keeps its datasets."""
    images: int = 200
    """Number of training images to calibrate and to check on."""
    evaluate: int = 0
    """Number of test images of the dataset on which Keras and file are scored."""
    fold_preprocessing: bool = False
    """Whether to fold the normalisation of pixels into the first convolution too: large int8 files run up to a tenth
    faster, and 4-bit ones lose accuracy."""
    batch_size: int | None = None
    """Number of images that the file takes at once; default: 1, or with --onnx and --savedmodel any number."""
    io: Io | None = None
    """Type of input and output of int8 and int4 files; default: int8. Browsers take float32 and uint8."""
    target: Target = "cpu"
    """Device that the files are for: "gpu" writes masks of attention out so that mobile GPUs run them, in larger
    files."""
    auxiliary: bool = False
    """Whether auxiliary heads, which serve training alone, become outputs of the file too."""
    heatmap: bool = False
    """Whether a classifier tells where in the picture it sees each class too, as a second output, of nets that end in
    global average pooling and one dense layer."""
    weights: str | None = None
    """Weights for a name of the zoo, such as "imagenet" or a path."""
    labels: Path | None = None
    """Text file with the name of a class on each line, for the card; default: those of the model's recipe, or
    ImageNet's. One sigmoid or logit has two classes."""
    values: Values | None = None
    """Meaning of the outputs, of a model that does not tell."""
    threads: tuple[int, ...] = ()
    """Numbers of threads to time the file with, one after the other."""
    report: bool = False
    """Whether to write NAME_report.json and NAME_report.md beside each file, with the tensors that lose most, and for
    several precisions a chart, precisions.png."""


@dataclasses.dataclass(frozen=True)
class Page(JsonOption):
    """Options of `kzoo page`."""

    model: Annotated[Positional[Path], arg(metavar="FILE")]
    """Model file, which ends in .tflite, with its card beside it. Browsers take float32 and uint8 alone."""
    output: Path
    """Folder to write. A page that is there is replaced, anything else is left alone."""
    runtime: Path | None = None
    """Folder of the npm package @litertjs/core, such as node_modules/@litertjs/core, to copy: the page then works
    offline. Default: the page loads it from a public mirror."""
    examples: tuple[Path, ...] = ()
    """Pictures to choose from in the page, which are stored in it."""


@dataclasses.dataclass(frozen=True)
class Check(JsonOption):
    """Options of `kzoo check`."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME...]")] = ()
    """Models, or shell-style patterns of them such as "resnet50*" (quote them)."""
    all: bool = False
    """Whether to check every model of the zoo, which takes a while."""
    output: Path | None = None
    """Folder for matrix.json, matrix.png and README.md. What passed there before is not checked again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(bench_plan.Plan, JsonOption):
    """Options of `kzoo bench`."""

    output: Path | None = None
    """Folder for bench.json, bench.png and README.md."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(JsonOption):
    """Options of `kzoo plan`, besides the settings of the recipe."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")]
    """Recipe: a name of `kzoo train`, or the path of a recipe file, which is run."""
    topology: tuple[str, ...] = ("cpu",)
    """Devices: "cpu" for this machine, TPU slices such as v5e:4x8 or v4:2x2x4, graphics cards of a host such as
    h100:8; several to plan for each."""
    images: int | None = None
    """Number of training images, of a dataset whose size kzoo does not know; the dataset is never read."""
    classes: int | None = None
    """Number of classes, of such a dataset."""
    price: float | None = None
    """Price of a chip-hour, for the cost of the run."""
    input_rate: float | None = None
    """Number of images a second that each host reads, decodes and changes; a run's speed.json tells it."""
    verify: bool = False
    """Whether to compile the largest batch too, which is otherwise computed from two compilations."""
    thorough: bool = False
    """Whether a TPU's program is compiled with all optimizations, ten times as long, for its memory to the last per
    cent."""
    jobs: int = 1
    """Number of topologies that are compiled for at once."""
    cache: Path | None = None
    """Folder where the results of compilations are kept; default: kzoo/plan in ~/.cache."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """Options of `kzoo completion`."""

    shell: Annotated[Positional[Literal["bash", "zsh", "fish"]], arg(metavar="SHELL")]
    """Shell: bash, zsh or fish."""


# `kzoo train` takes the fields of a recipe
FORMS = {
    "list": List,
    "info": Info,
    "recipes": Recipes,
    "evaluate": Evaluate,
    "predict": Predict,
    "explain": Explain,
    "export": Export,
    "page": Page,
    "check": Check,
    "bench": Bench,
    "plan": Plan,
    "completion": Completion,
}
