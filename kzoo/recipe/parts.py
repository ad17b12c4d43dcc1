"""The parts of a recipe, as data."""

import dataclasses
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from kzoo.errors import InvalidValueError, check_choice, check_pattern
from kzoo.images import Interpolation, Pixels, Resize

Augmentation = Literal[
    "resized_crop",
    "flip",
    "alternating_flip",
    "flip_vertical",
    "translate",
    "rotate",
    "zoom",
    "scale",
    "elastic",
    "trivial",
    "rand",
    "brightness",
    "contrast",
    "saturation",
    "color",
    "erase",
]
AUGMENTATIONS = get_args(Augmentation)
OptimizerName = Literal["sgd", "adamw", "lamb", "muon", "rmsprop"]
Decay = Literal["cosine", "linear", "step", "constant"]
ClassLoss = Literal["cross_entropy", "binary_cross_entropy"]
ClassWeights = Literal["median_frequency", "log"]
BoxLoss = Literal["l1", "giou"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the images come from, how they become pixels, and how they are divided."""

    dataset: str
    """Dataset: "digits", a TFDS name such as "cifar10", a folder with CLASS/*, or with train/CLASS/* and perhaps val/
    and test/, or a CSV, TSV or Parquet file with the columns path, label and perhaps split. For segmentation a TFDS
    name or a folder, by path or by its name in data_dir, with images/ and masks/, in train/, test/ and perhaps
    validation/, or once. For boxes a TFDS name, or a folder, by path or by its name in data_dir, with Pascal VOC's
    XML, COCO's JSON or YOLO's labels, or a table with a row for each box."""
    data_dir: str | None = None
    """Directory where TFDS keeps its datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets."""
    image_size: int | tuple[int, int] | None = None
    """Height and width that images are resized to, or one number for both; None leaves them as they are."""
    resize: Resize = "stretch"
    """Way in which a picture of another shape is fitted: stretched to it, its centre cut out, or whole, in the middle
    of black; files, evaluation and prediction of this run do the same."""
    crop: float = 1.0
    """Side of the centre that is cut out, over the shorter side of the picture."""
    interpolation: Interpolation = "bilinear"
    """Interpolation of the resizing, which averages the pixels that it leaves out."""
    test_fraction: float = 0.2
    """Share that is held out for the test, whatever the seed, of a folder or table without test images."""
    validation_fraction: float = 0.1
    """Share of the training images that is held out to choose the best epoch; test images are never used."""
    group_by: str | None = None
    """Regular expression of a key in the path from the dataset's folder, its first group or all that it matches, such
    as "patient(\\d+)"; all images of one key are in one split. For folders and tables."""
    label_separator: str | None = None
    """Text between the classes of an image in the column label of a table, such as "|", whose images have any number
    of classes: each gets a sigmoid of its own. None means one class for each image."""

    def __post_init__(self):
        _check_shares(validation_fraction=self.validation_fraction, test_fraction=self.test_fraction)
        _check_size("image_size", self.image_size)
        if self.group_by is not None:
            check_pattern("group_by", self.group_by)
        if self.label_separator is not None and not self.label_separator.strip():
            raise InvalidValueError(f"label_separator={self.label_separator!r} must be a text that can be seen")
        Pixels(self.resize, self.crop, self.interpolation)  # refuses what it does not know

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) that images are resized to."""
        return _pair(self.image_size)

    @property
    def pixels(self) -> Pixels:
        """How a picture becomes the pixels of an image."""
        return Pixels(self.resize, self.crop, self.interpolation)


@dataclasses.dataclass(frozen=True)
class Augment:
    """How training images are changed at random."""

    changes: Annotated[tuple[Augmentation, ...], arg(name="augmentation")] = ()
    """Random changes of the training images, made in the input pipeline: first those that move pixels, then those that
    colour them, then "erase". "trivial" is TrivialAugmentWide (arXiv:2103.10158), "rand" RandAugment
    (arXiv:1909.13719)."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the picture that "resized_crop" keeps (arXiv:1409.4842, section 6), with sides of
    3/4 to 4/3; of images in memory and of those with masks, of the image as image_size makes it."""
    rand_number: int = 2
    """Number of operations of "rand" for each image; the paper has 2 for ImageNet."""
    rand_magnitude: int = 9
    """Magnitude of the operations of "rand", 0 to 30; the paper has 9 for ResNet-50 on ImageNet."""
    translate_share: float = 1 / 8
    """Share of the height and of the width by which "translate" moves an image at most; 1/8 of 32 pixels is what
    ResNet has on CIFAR-10 (arXiv:1512.03385, section 4.2)."""
    erase_share: float = 0.5
    """Share of the images in which "erase" erases a box (arXiv:1708.04896); Swin has 0.25."""
    mixup: float | None = None
    """Alpha of Mixup (arXiv:1710.09412), which blends images of a batch, and their targets; 0.2 for ImageNet. None
    leaves it out. With cutmix too, each batch draws one of them. For classification."""
    cutmix: float | None = None
    """Alpha of CutMix (arXiv:1905.04899), which pastes a box of one image of a batch into another, with its share of
    the target; 1.0 in the paper. None leaves it out. For classification."""

    def __post_init__(self):
        for name in self.changes:
            check_choice("augmentation", name, AUGMENTATIONS)
        if {"alternating_flip", "resized_crop"} <= set(self.changes):
            raise InvalidValueError(
                "augmentation: alternating_flip knows an image by its pixels, which resized_crop changes; take flip"
            )
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise InvalidValueError(f"crop_area={self.crop_area} must be two rising shares above 0 and up to 1")
        if self.rand_number < 1:
            raise InvalidValueError(f"rand_number={self.rand_number} must be at least 1")
        if not 0 <= self.rand_magnitude <= 30:
            raise InvalidValueError(f"rand_magnitude={self.rand_magnitude} must be 0 to 30")
        _check_shares(translate_share=self.translate_share)
        if not 0 < self.erase_share <= 1:
            raise InvalidValueError(f"erase_share={self.erase_share} must be above 0 and at most 1")
        for mixing, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if alpha is not None and not 0 < alpha < float("inf"):
                raise InvalidValueError(f"{mixing}={alpha} must be above zero; None leaves it out")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How a gradient becomes a step."""

    name: Annotated[OptimizerName, arg(name="optimizer")] = "sgd"
    """Optimizer: SGD with Nesterov momentum 0.9; AdamW (arXiv:1711.05101); LAMB (arXiv:1904.00962), with the decay
    outside its trust ratio as Keras has it; Muon (arXiv:2502.16982) for all kernels but the head's, of convolutions
    too, with AdamW for all else; or RMSProp with decay 0.9, momentum 0.9 and an epsilon of 1, for Inception v3
    (arXiv:1512.00567, section 8)."""
    learning_rate: float = 0.1
    """Peak of the learning rate, reached after the warm-up."""
    weight_decay: float = 5e-3
    """Decoupled weight decay, times the learning rate; of kernels only, no biases and no normalisation. An L2 penalty
    inside the gradient, as papers state it, acts 1 / (1 - momentum) times as strongly: their 5e-4 is 5e-3 here."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one before it, so that fine-tuning changes what is near to
    the image least, such as 0.75 (arXiv:1801.06146, section 3.2; arXiv:2106.08254)."""
    clip_norm: float | None = None
    """Largest norm of the gradient of all weights together, to which a larger one is scaled (arXiv:1211.5063; Swin has
    5); None clips nothing."""
    accumulate: int = 1
    """Number of batches whose gradients make one step, their mean; batch normalisation sees each by itself."""
    ema: float | None = None
    """Momentum of an exponential moving average of the weights, batch by batch, which is judged and kept instead of
    the last ones, such as 0.999; statistics of batch normalisation are estimated anew for it (arXiv:1803.05407,
    section 3.2). None keeps the weights themselves."""

    def __post_init__(self):
        check_choice("optimizer", self.name, get_args(OptimizerName))
        _check_not_negative(learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise InvalidValueError(f"clip_norm={self.clip_norm} must be above zero")
        if not 0 < self.layer_decay <= 1:
            raise InvalidValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1")
        if self.accumulate < 1:
            raise InvalidValueError(f"accumulate={self.accumulate} must be at least 1")
        if self.ema is not None:
            _check_shares(ema=self.ema)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run is, and in which steps."""

    epochs: int = 30
    """Passes over the training images."""
    minutes: float | None = None
    """Minutes that the epochs may take: their number is what fits by the time of a few batches, at most epochs, so
    that the learning rate still falls to its end."""
    batch_size: int = 128
    """Images per step."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises from zero."""
    freeze_epochs: int = 0
    """Epochs at the beginning in which the head, or the decoder, learns alone on frozen weights, all but one at
    most; what follows has a warm-up and a decay of its own."""
    decay: Decay = "cosine"
    """Way of the learning rate after the warm-up: a half cosine to zero (arXiv:1608.03983), a line to zero,
    step_factor of it after each of step_epochs, or none."""
    step_epochs: tuple[int, ...] = ()
    """Epochs after which the learning rate is step_factor of what it was, with the decay "step"; ResNet-50 of
    torchvision has 30 60."""
    step_factor: float = 0.1
    """Factor of the learning rate after each of step_epochs."""
    patience: int | None = None
    """Number of epochs without a better one after which the run ends early; None trains all epochs."""

    def __post_init__(self):
        check_choice("decay", self.decay, get_args(Decay))
        if self.freeze_epochs < 0:
            raise InvalidValueError(f"freeze_epochs={self.freeze_epochs} must be at least 0")
        if (self.decay == "step") != bool(self.step_epochs) or list(self.step_epochs) != sorted({*self.step_epochs}):
            raise InvalidValueError(
                f"step_epochs={self.step_epochs} with decay={self.decay!r}: rising numbers of epochs go with 'step', "
                "and with it alone"
            )
        _check_shares(step_factor=self.step_factor)
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise InvalidValueError(f"minutes={self.minutes} must be above zero")
        if self.patience is not None and self.patience < 1:
            raise InvalidValueError(f"patience={self.patience} must be at least 1")
        for field in ("epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise InvalidValueError(f"{field}={getattr(self, field)} must be at least 1")
        _check_not_negative(warmup_epochs=self.warmup_epochs)

    @property
    def frozen(self) -> int:
        """Number of epochs in which the head learns alone."""
        return min(self.freeze_epochs, self.epochs - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classify:
    """What is particular to classes for each image."""

    loss: ClassLoss = "cross_entropy"
    """Loss: cross-entropy, or the binary cross-entropy of each class by itself, their mean (arXiv:2110.00476).
    Probabilities of the finished model sum to 1 with either, where each image has one class; images with any number
    of them need the latter."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes; over yes and no of each where an image may have several."""
    class_weights: Literal["balanced"] | None = None
    """Weights of images in the loss by how rare their class is among the training images: their number over the number
    of classes and of images of the class."""
    balanced_sampling: bool = False
    """Whether each class is seen equally often in an epoch, whose length stays: images of rare classes come several
    times."""
    train_size: int | tuple[int, int] | None = None
    """Height and width of what "resized_crop" makes to train on, or one number for both; validation and test see
    images of image_size (arXiv:1906.06423). None means that size too."""
    auxiliary_weight: float | None = None
    """Weight of the loss of auxiliary heads, which the model has while it is trained and the finished one has not: 0.3
    for GoogLeNet (arXiv:1409.4842, section 5), 0.4 for Inception v3. None trains without them."""

    def __post_init__(self):
        check_choice("loss", self.loss, get_args(ClassLoss))
        _check_smoothing(self.label_smoothing)
        _check_size("train_size", self.train_size)
        if self.auxiliary_weight is not None and not 0 < self.auxiliary_weight < float("inf"):
            raise InvalidValueError(f"auxiliary_weight={self.auxiliary_weight} must be above zero; None has no heads")
        if self.class_weights is not None:
            check_choice("class_weights", self.class_weights, ("balanced",))

    @property
    def crop_shape(self) -> tuple[int, int] | None:
        """(height, width) of the crops that are trained on; None for those of the images."""
        return _pair(self.train_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """What is particular to a class for each pixel: what masks mean, and the loss."""

    class_names: tuple[str, ...] = ()
    """Names of the classes; without them the lines of the folder's classes.txt."""
    mask_values: tuple[int, ...] = ()
    """Value of each class in the mask files; without them 0, 1, ..."""
    void: tuple[int, ...] = ()
    """Values in the mask files of pixels that are neither trained on nor counted."""
    crop_size: int | tuple[int, int] | None = None
    """Height and width of a random part of each image to train on, or one number for both; validation and test see
    whole images."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    dice_weight: float = 0.0
    """Weight of the Dice loss, which is added to the cross-entropy."""
    class_weights: ClassWeights | None = None
    """Weights of the classes in the cross-entropy by how rare they are in the training masks."""

    def __post_init__(self):
        _check_size("crop_size", self.crop_size)
        _check_smoothing(self.label_smoothing)
        _check_not_negative(dice_weight=self.dice_weight)
        if self.class_weights is not None:
            check_choice("class_weights", self.class_weights, get_args(ClassWeights))

    @property
    def crop_shape(self) -> tuple[int, int] | None:
        """(height, width) of the parts that are trained on."""
        return _pair(self.crop_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detect:
    """What is particular to boxes: their classes, and the loss."""

    class_names: tuple[str, ...] = ()
    """Names of the classes; without them those of the dataset that have a box."""
    focal_alpha: float = 0.25
    """Weight of a class that is there in the focal loss, of one that is not 1 less it (arXiv:1708.02002, section 3);
    below 0 both have 1."""
    focal_gamma: float = 2.0
    """Power of the probability that is missing in the focal loss; 0 is cross-entropy."""
    box_loss: BoxLoss | None = None
    """Loss of boxes: L1 distance of what RetinaNet predicts, or generalised IoU (arXiv:1902.09630); None means the
    model's own: "l1" for retinanet, "giou" for the others."""

    def __post_init__(self):
        if not (self.focal_alpha <= 1 and 0 <= self.focal_gamma < float("inf")):
            raise InvalidValueError(
                f"focal_alpha={self.focal_alpha} must be at most 1, focal_gamma={self.focal_gamma} zero or more"
            )
        if self.box_loss is not None:
            check_choice("box_loss", self.box_loss, get_args(BoxLoss))

    @property
    def crop_shape(self) -> None:
        """Boxes are trained on images of the size that they are found in."""
        return None


TaskOptions = Classify | Segment | Detect


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _check_size(name: str, size: int | tuple[int, int] | None) -> None:
    if min(_pair(size) or (1,)) < 1:
        raise InvalidValueError(f"{name}={size} must be at least 1")


def _check_not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < float("inf"):
            raise InvalidValueError(f"{name}={number} must be zero or more")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise InvalidValueError(f"{name}={share} must be between 0 and 1")


def _check_smoothing(share: float) -> None:
    if not 0 <= share < 1:
        raise InvalidValueError(f"label_smoothing={share} must be at least 0 and below 1")
