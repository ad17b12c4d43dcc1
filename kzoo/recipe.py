"""The recipe: everything that a training run depends on, as data, and where recipes are found."""

import dataclasses
import importlib.util
import json
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro

from kzoo.errors import InvalidValueError, UnknownNameError, check_choice, did_you_mean, explain
from kzoo.images import Pixels
from kzoo.precisions import PRECISIONS, PrecisionName
from kzoo.reading import as_tuple, check_type, read_report

Augmentation = Literal[
    "flip",
    "flip_vertical",
    "translate",
    "rotate",
    "zoom",
    "scale",
    "elastic",
    "brightness",
    "contrast",
    "saturation",
    "color",
    "erase",
]
AUGMENTATIONS = get_args(Augmentation)
SEGMENTATION_FIELDS = frozenset(
    {
        *("backbone", "backbone_weights", "freeze_backbone", "class_names", "mask_values", "void", "test_fraction"),
        *("crop_size", "dice_weight", "class_weights"),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained on one dataset. Every field is also a flag of `kzoo train`."""

    name: str
    """Name of the run."""
    model: str
    """Name of the model, of `kzoo list`; it decides between classification and segmentation."""
    model_options: Annotated[dict[str, Any], tyro.conf.Suppress] = dataclasses.field(default_factory=dict)
    """Options of `kzoo.build`, such as dict(widths=(16, 32)); set in the recipe's file alone."""
    backbone: str | None = None
    """Backbone of a segmentation model, of `kzoo list`; None means the model's own."""
    dataset: str
    """Dataset: "digits", a TFDS name such as "cifar10", or a folder with train/CLASS/*.png and test/CLASS/*.png. For
    segmentation a TFDS name or a folder, by path or by its name in data_dir, with images/ and masks/, in train/, test/
    and perhaps validation/, or once."""
    data_dir: str | None = None
    """Directory where TFDS keeps its datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets."""
    image_size: int | tuple[int, int] | None = None
    """Height and width that images are resized to, or one number for both; None leaves them as they are."""
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    """Way in which a picture of another shape is fitted: stretched to it, its centre cut out, or whole, in the middle
    of black; files, evaluation and prediction of this run do the same."""
    crop: float = 1.0
    """Side of the centre that is cut out, over the shorter side of the picture."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of the resizing, which averages the pixels that it leaves out."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, for segmentation; without them the lines of the folder's classes.txt."""
    mask_values: tuple[int, ...] = ()
    """Value of each class in the mask files, for segmentation; without them 0, 1, ..."""
    void: tuple[int, ...] = ()
    """Values in the mask files of pixels that are neither trained on nor counted, for segmentation."""
    test_fraction: float = 0.2
    """Share of a folder without splits that is held out for the test, whatever the seed; for segmentation."""
    validation_fraction: float = 0.1
    """Share of the training images that is held out to choose the best epoch; test images are never used."""
    weights: str | None = None
    """Weights to start from: a name, "hf://owner/name" or a path."""
    backbone_weights: str | None = None
    """Weights of the backbone alone, for segmentation: a name, "hf://owner/name" or a path."""
    freeze_backbone: bool = False
    """Whether the backbone stays as it is, with its statistics of batch normalisation; for segmentation."""

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: SGD with Nesterov momentum 0.9, or AdamW."""
    learning_rate: float = 0.1
    """Peak of the learning rate, reached after the warm-up; a cosine leads from it to zero."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises from zero."""
    weight_decay: float = 5e-3
    """Decoupled weight decay, times the learning rate; of kernels only, no biases and no normalisation. An L2 penalty
    inside the gradient, as papers state it, acts 1 / (1 - momentum) times as strongly: their 5e-4 is 5e-3 here."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    augmentation: tuple[Augmentation, ...] = ()
    """Random changes of the training images, made in the input pipeline."""
    crop_size: int | tuple[int, int] | None = None
    """Height and width of a random part of each image to train on, or one number for both; validation and test see
    whole images. For segmentation."""
    dice_weight: float = 0.0
    """Weight of the Dice loss, which is added to the cross-entropy; for segmentation."""
    class_weights: Literal["median_frequency", "log"] | None = None
    """Weights of the classes in the cross-entropy by how rare they are in the training masks; for segmentation."""

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the training step; the finished model is always float32."""
    jit_compile: Literal["auto", "true", "false"] = "auto"
    """Whether XLA compiles the step; "auto" is off where it would be slower, on a CPU."""
    seed: int = 0
    """Seed of first weights, order, crops, augmentation and dropout: on one machine a run repeats to the bit, also
    where it was killed and went on."""

    quantization_aware: Literal["int8", "int8_per_tensor", "int4", "int4_per_tensor", "int4_weights"] | None = None
    """Integer file whose rounding `weights` are fine-tuned with: batch normalisation is folded, then kernels are
    rounded to 8 or 4 bits with a scale for each channel (or one for each kernel), and, but for "int4_weights",
    activations to 8. Take a small learning rate and few epochs."""

    export: tuple[PrecisionName, ...] = ()
    """Precisions of the LiteRT files to write and measure after training."""
    output_dir: Path | None = None
    """Directory of the run; None means saved_models/runs/NAME."""
    resume: bool = True
    """Whether to go on where an interrupted run of the same recipe stopped; --no-resume moves it aside and starts
    again."""
    smoke: bool = False
    """Whether to run the whole path on a few images in well under a minute, to see that it works."""

    def __post_init__(self):
        for field in ("epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise InvalidValueError(f"{field}={getattr(self, field)} must be at least 1")
        for field in ("learning_rate", "warmup_epochs", "weight_decay", "dice_weight"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise InvalidValueError(f"{field}={getattr(self, field)} must be zero or more")
        if not 0 <= self.seed < 2**32:
            raise InvalidValueError(f"seed={self.seed} must be at least 0 and below 2^32")
        for field in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, field) < 1:
                raise InvalidValueError(f"{field}={getattr(self, field)} must be between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise InvalidValueError(f"label_smoothing={self.label_smoothing} must be at least 0 and below 1")
        for field in ("image_size", "crop_size"):
            if min(_pair(getattr(self, field)) or (1,)) < 1:
                raise InvalidValueError(f"{field}={getattr(self, field)} must be at least 1")
        if self.class_weights is not None:
            check_choice("class_weights", self.class_weights, ("median_frequency", "log"))
        Pixels(self.resize, self.crop, self.interpolation)  # refuses what it does not know
        for name in self.augmentation:
            check_choice("augmentation", name, AUGMENTATIONS)
        for precision in self.export:
            check_choice("export", precision, PRECISIONS)

    @property
    def run_dir(self) -> Path:
        """Where the run leaves its files."""
        directory = Path(self.output_dir) if self.output_dir else Path("saved_models/runs") / self.name
        directory = directory if directory.name else directory.absolute()
        return directory.with_name(f"{directory.name}-smoke") if self.smoke else directory

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) that images are resized to."""
        return _pair(self.image_size)

    @property
    def pixels(self) -> Pixels:
        """How a picture becomes the pixels of an image."""
        return Pixels(self.resize, self.crop, self.interpolation)

    @property
    def crop_shape(self) -> tuple[int, int] | None:
        """(height, width) of the parts that are trained on."""
        return _pair(self.crop_size)

    @property
    def build_options(self) -> dict[str, Any]:
        """What `kzoo.build` is told besides the name, the size of the images, the classes and the weights."""
        return self.model_options | ({"backbone": self.backbone} if self.backbone else {})

    def to_json(self) -> dict:
        """The fields as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def default(cls, name: str) -> Any:
        """What a field is where nothing is said, as a JSON value; None for a field that must be given."""
        field = next(field for field in dataclasses.fields(cls) if field.name == name)
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        return None if made is dataclasses.MISSING else json.loads(json.dumps(made))


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


_OF_DATA = ("class_names", "mask_values", "void", "validation_fraction", "test_fraction", "seed")


def recipe_beside(model: Path, dataset: str) -> dict[str, Any]:
    """How the recipe that wrote a model's file read and divided `dataset`; nothing if no report says so.

    Args:
        model: file of a run, which has its `report.json` beside it.
        dataset: name; of another one the recipe says nothing.

    Raises:
        InvalidValueError: the report cannot be read, or has a field of a wrong type.
    """
    recipe = read_report(model).get("recipe", {})
    if recipe.get("dataset") != dataset:
        return {}
    found = {field: recipe[field] for field in _OF_DATA if field in recipe}
    check_fields(found, str(model.with_name("report.json")))
    return {field: as_tuple(value) for field, value in found.items()}


def check_fields(fields: Any, source: str) -> None:
    """Raises `InvalidValueError` unless these are fields of a recipe as `Recipe.to_json` gives them.

    Args:
        fields: name -> value, some or all; names that recipes no longer have may be among them.
        source: the file that they are from.
    """
    check_type(fields, dict[str, Any], f"{source}: recipe")
    types = get_type_hints(Recipe)
    for name in fields.keys() & types.keys():
        check_type(fields[name], types[name], f"{source}: {name}")


def recipe_dir() -> Path:
    """The folder of the recipes: `recipes/` of a checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def list_recipes() -> list[str]:
    """Names that `kzoo train` accepts."""
    return sorted(path.stem for path in recipe_dir().glob("*.py"))


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one in the Python file at that path, which is run.

    Raises:
        UnknownNameError: there is none; the message lists those that exist.
        InvalidValueError: the file cannot be run, and in which line, or holds no recipe.
    """
    path = Path(name) if name.endswith(".py") else recipe_dir() / f"{name}.py"
    if not path.is_file():
        names = list_recipes()
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        raise UnknownNameError(f"unknown recipe {name!r}{hint}")
    spec = importlib.util.spec_from_file_location(f"kzoo_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidValueError(f"{path} is no Python file that can be run")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the code in it does
        raise InvalidValueError(f"{path}{_line_of(error, path)}: {explain(error)}") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise InvalidValueError(f"{path} must define RECIPE = kzoo.train.Recipe(...)")
    return recipe


def _line_of(error: BaseException, path: Path) -> str:
    """Where in a file an error arose, for a message."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
