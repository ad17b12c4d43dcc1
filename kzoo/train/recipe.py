"""The recipe: everything that a training run depends on, as data, and where recipes are found."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Literal

from kzoo.errors import InvalidValueError, UnknownNameError, check_choice, did_you_mean

AUGMENTATIONS = ("flip", "translate", "rotate", "zoom", "contrast", "erase")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained on one dataset. Every field is also a flag of `kzoo train`."""

    name: str
    """Of the run."""
    model: str
    """A name of `kzoo list`."""
    dataset: str
    """"digits", a TFDS name such as "cifar10", or a folder with train/CLASS/*.png and test/CLASS/*.png."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets."""
    image_size: int | None = None
    """Height and width that images are resized to; None leaves them as they are."""
    validation_fraction: float = 0.1
    """Share of the training images that is held out to choose the best epoch; test images are never used."""
    weights: str | None = None
    """Weights to start from: a name, "hf://owner/name" or a path."""

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum 0.9, or AdamW."""
    learning_rate: float = 0.1
    """Peak, reached after the warm-up; a cosine leads from it to zero."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises from zero."""
    weight_decay: float = 5e-3
    """Decoupled, times the learning rate; kernels only, no biases and no normalisation. An L2 penalty inside the
    gradient, as papers state it, acts 1 / (1 - momentum) times as strongly: their 5e-4 is 5e-3 here."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    augmentation: tuple[Literal["flip", "translate", "rotate", "zoom", "contrast", "erase"], ...] = ()
    """Random changes of the training images, made in the input pipeline."""

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Of the training step; the finished model is always float32."""
    jit_compile: Literal["auto", "true", "false"] = "auto"
    """Whether XLA compiles the step; "auto" is off where it would be slower, on a CPU."""
    seed: int = 0
    """Of weights, shuffling and augmentation."""

    export: tuple[Literal["float32", "int8", "int8_dynamic"], ...] = ()
    """LiteRT files to write and measure after training."""
    output_dir: Path | None = None
    """Directory of the run; None means saved_models/runs/NAME."""
    resume: bool = True
    """Go on where an interrupted run of the same recipe stopped; --no-resume moves it aside and starts again."""
    smoke: bool = False
    """Run the whole path on a few images in well under a minute, to see that it works."""

    def __post_init__(self):
        for field in ("epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise InvalidValueError(f"{field}={getattr(self, field)} must be at least 1")
        for field in ("learning_rate", "warmup_epochs", "weight_decay"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise InvalidValueError(f"{field}={getattr(self, field)} must be zero or more")
        if not 0 <= self.seed < 2**32:
            raise InvalidValueError(f"seed={self.seed} must be at least 0 and below 2^32")
        if not 0 < self.validation_fraction < 1:
            raise InvalidValueError(f"validation_fraction={self.validation_fraction} must be between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise InvalidValueError(f"label_smoothing={self.label_smoothing} must be at least 0 and below 1")
        if self.image_size is not None and self.image_size < 1:
            raise InvalidValueError(f"image_size={self.image_size} must be at least 1")
        for name in self.augmentation:
            check_choice("augmentation", name, AUGMENTATIONS)
        for name in self.export:
            check_choice("export", name, ("float32", "int8", "int8_dynamic"))

    @property
    def run_dir(self) -> Path:
        """Where the run leaves its files."""
        directory = Path(self.output_dir) if self.output_dir else Path("saved_models/runs") / self.name
        directory = directory if directory.name else directory.absolute()
        return directory.with_name(f"{directory.name}-smoke") if self.smoke else directory

    def to_json(self) -> dict:
        """The fields as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self._plain().items()}

    def _plain(self) -> dict:
        fields = dataclasses.asdict(self)
        fields["output_dir"] = str(self.output_dir) if self.output_dir else None
        return fields


def recipe_dir() -> Path:
    """The folder of the recipes: `recipes/` of a checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def list_recipes() -> list[str]:
    """Names that `kzoo train` accepts."""
    return sorted(path.stem for path in recipe_dir().glob("*.py"))


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one in the Python file at that path.

    Raises:
        UnknownNameError: there is none; the message lists those that exist.
    """
    path = Path(name) if name.endswith(".py") else recipe_dir() / f"{name}.py"
    if not path.is_file():
        names = list_recipes()
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        raise UnknownNameError(f"unknown recipe {name!r}{hint}")
    spec = importlib.util.spec_from_file_location(f"kzoo_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise InvalidValueError(f"{path} must define RECIPE = kzoo.train.Recipe(...)")
    return recipe
