"""The recipe itself: parts and what belongs to none, in a file and as flags."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from tyro.conf import AvoidSubcommands, OmitArgPrefixes, Suppress

from kzoo.errors import InvalidValueError, UnknownOptionError, check_choice, did_you_mean
from kzoo.precisions import PRECISIONS, PrecisionName
from kzoo.recipe.hardware import Hardware
from kzoo.recipe.parts import Augment, Classify, Data, Detect, Optimizer, Schedule, Segment, TaskOptions
from kzoo.registry import CLASSIFICATION, DETECTION, SEGMENTATION, Entry, lookup

OPTIONS: dict[str, type[TaskOptions]] = {CLASSIFICATION: Classify, SEGMENTATION: Segment, DETECTION: Detect}
KINDS: dict[str, tuple[type, ...]] = {
    "data": (Data,),
    "augment": (Augment,),
    "optimizer": (Optimizer,),
    "schedule": (Schedule,),
    "hardware": (Hardware,),
    "task": tuple(OPTIONS.values()),
}
# (part, field) -> flag, where it is not the field's name
_FLAGS = {("augment", "changes"): "augmentation", ("optimizer", "name"): "optimizer"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained on one dataset. Every field, of its parts too, is also a flag of `kzoo train`.

    Raises:
        UnknownNameError: no such model.
        InvalidValueError: a value that a field cannot take, or a `task` that is not the model's.

    Example:
        >>> recipe = Recipe(name="mine", model="unet", data=Data(dataset="scenes"), task=Segment(void=(255,)))
        >>> recipe.replace(epochs=3, void=(0,)).task.void
        (0,)
    """

    name: str
    """Name of the run."""
    model: str
    """Name of the model, of `kzoo list`; it decides between classification, segmentation and detection."""
    model_options: Annotated[dict[str, Any], Suppress] = dataclasses.field(default_factory=dict)
    """Options of `kzoo.build`, such as dict(widths=(16, 32)); set in the recipe's file alone."""
    backbone: str | None = None
    """Backbone of a model for segmentation or detection, of `kzoo list`; None means the model's own."""
    weights: str | None = None
    """Weights to start from: a name, "hf://owner/name" or a path."""
    backbone_weights: str | None = None
    """Weights of the backbone alone, of a model on one: a name, "hf://owner/name" or a path."""
    freeze_backbone: bool = False
    """Whether all but the head, or the decoder, stays as it is, with its statistics of batch normalisation."""

    whiten_stem: bool = False
    """Whether the first convolution becomes filters that whiten patches of the training images, and stays as it is
    (arXiv:2404.00498, section 3.2), of a model such as airbench94 whose stem has the width for it."""

    data: OmitArgPrefixes[Data]
    """Dataset and the way from its files to pixels."""
    augment: OmitArgPrefixes[Augment] = dataclasses.field(default_factory=Augment)
    """Random changes of the training images."""
    optimizer: OmitArgPrefixes[Optimizer] = dataclasses.field(default_factory=Optimizer)
    """Optimizer and its step size."""
    schedule: OmitArgPrefixes[Schedule] = dataclasses.field(default_factory=Schedule)
    """Length of the run."""
    hardware: OmitArgPrefixes[Hardware] = dataclasses.field(default_factory=Hardware)
    """Devices and hosts that it runs on."""
    task: AvoidSubcommands[OmitArgPrefixes[TaskOptions]] = dataclasses.field(default_factory=Classify)
    """Settings that the model's task alone has. The defaults of another task give way to those of the model's."""

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
    checkpoint_minutes: float = 10.0
    """Minutes after which a checkpoint is kept inside an epoch too; 0 keeps one behind every batch."""
    smoke: bool = False
    """Whether to run the whole path on a few images in well under a minute, to see that it works."""

    def __post_init__(self):
        if not 0 <= self.seed < 2**32:
            raise InvalidValueError(f"seed={self.seed} must be at least 0 and below 2^32")
        if not 0 <= self.checkpoint_minutes < float("inf"):
            raise InvalidValueError(f"checkpoint_minutes={self.checkpoint_minutes} must be zero or more")
        for precision in self.export:
            check_choice("export", precision, PRECISIONS)
        for part, kinds in KINDS.items():
            if not isinstance(getattr(self, part), kinds):
                names = " or ".join(f"{kind.__name__}(...)" for kind in kinds)
                raise InvalidValueError(f"{part}={getattr(self, part)!r} must be {names}")
        entry = lookup(self.model)
        options = OPTIONS[entry.task]
        if not isinstance(self.task, options):
            if self.task != type(self.task)():
                raise InvalidValueError(
                    f"task={self.task}: {self.model} is for {entry.task}; give task={options.__name__}(...)"
                )
            object.__setattr__(self, "task", options())
        mixing = [name for name in ("mixup", "cutmix") if getattr(self.augment, name) is not None]
        if mixing and entry.task != CLASSIFICATION:
            raise InvalidValueError(
                f"{', '.join(mixing)}: for classification, whose targets are shares; {self.model} is for {entry.task}"
            )
        if isinstance(self.task, Classify):
            self._check_classify(entry, self.task)
        if self.whiten_stem and self.weights is not None:
            raise InvalidValueError(
                "whiten_stem makes filters of its own, and weights have theirs; leave one of them out"
            )
        if not hasattr(entry.config, "backbone"):
            given = [name for name in ("backbone", "backbone_weights") if getattr(self, name)]
            if given:
                raise InvalidValueError(f"{', '.join(given)}: for models on a backbone, and {self.model} has none")

    def _check_classify(self, entry: Entry, task: Classify) -> None:
        if task.train_size is not None and "resized_crop" not in self.augment.changes:
            raise InvalidValueError(f"train_size={task.train_size} is of 'resized_crop', which augmentation must name")
        if self.model_options.get("auxiliary"):
            raise InvalidValueError("auxiliary=True among the options of the model: say auxiliary_weight instead")
        if task.auxiliary_weight is None:
            return
        if not hasattr(entry.config, "auxiliary"):
            raise InvalidValueError(
                f"auxiliary_weight={task.auxiliary_weight}: {self.model} has no auxiliary heads, which GoogLeNet and "
                "Inception v3 have"
            )
        if self.quantization_aware is not None:
            raise InvalidValueError("quantization_aware fine-tunes no auxiliary heads; leave auxiliary_weight out")

    @property
    def run_dir(self) -> Path:
        """Where the run leaves its files."""
        directory = Path(self.output_dir) if self.output_dir else Path("saved_models/runs") / self.name
        directory = directory if directory.name else directory.absolute()
        return directory.with_name(f"{directory.name}-smoke") if self.smoke else directory

    @property
    def crop_shape(self) -> tuple[int, int] | None:
        """(height, width) of the parts of images that are trained on; None for those of the images."""
        return self.task.crop_shape

    @property
    def build_options(self) -> dict[str, Any]:
        """What `kzoo.build` is told besides the name, the size of the images, the classes and the weights."""
        return self.model_options | ({"backbone": self.backbone} if self.backbone else {})

    def replace(self, **flags: Any) -> "Recipe":
        """The recipe with some settings changed, by their flags' names, whichever part they are in.

        Args:
            flags: values by flag; a whole part too, such as `optimizer=Optimizer(name="adamw")`.

        Raises:
            UnknownOptionError: no such flag of a recipe for this model; the message lists those that are.
            InvalidValueError: as the recipe itself.

        Example:
            >>> load_recipe("quickstart").replace(epochs=3, optimizer="adamw", learning_rate=1e-3)
        """
        parts = {name: getattr(self, name) for name in KINDS}
        parts |= {name: flags.pop(name) for name in KINDS if dataclasses.is_dataclass(flags.get(name))}
        options = OPTIONS[lookup(flags.get("model", self.model)).task]
        if not isinstance(parts["task"], options):
            parts["task"] = options()
        known = [field.name for field in dataclasses.fields(self) if field.name not in KINDS]
        changes = {flag: flags.pop(flag) for flag in known if flag in flags}
        for name, part in parts.items():
            fields = flags_of(name, type(part))
            known += fields
            own = {field: flags.pop(flag) for flag, field in fields.items() if flag in flags}
            parts[name] = dataclasses.replace(part, **own)
        for flag in flags:
            raise UnknownOptionError(
                f"a recipe of this task has no {flag!r}; it has {', '.join(known)}{did_you_mean(flag, known)}"
            )
        return dataclasses.replace(self, **parts, **changes)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, those of a part inside it."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    def flags(self) -> dict[str, Any]:
        """The settings by flag, as JSON values."""
        return stored_flags(self.to_json())


def flags_of(part: str, kind: type) -> dict[str, str]:
    """Flag -> field of a part that is of a class."""
    return {_FLAGS.get((part, field.name), field.name): field.name for field in dataclasses.fields(kind)}


def stored_flags(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stored recipe by flag, be it in parts or, as versions before 0.2 wrote it, without."""
    flags: dict[str, Any] = {}
    for name, value in recipe.items():
        if name in KINDS and isinstance(value, dict):
            flags |= {_FLAGS.get((name, str(field)), str(field)): each for field, each in value.items()}
        else:
            flags[name] = value
    return flags


def flag_types() -> dict[str, Any]:
    """Flag -> type of its value, for every flag of every task."""
    types = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in KINDS}
    for part, kinds in KINDS.items():
        for kind in kinds:
            hints = get_type_hints(kind)
            types |= {flag: hints[field] for flag, field in flags_of(part, kind).items()}
    return types
