"""What a recipe says where its user does not: chosen from the model, its weights and the images, each with its reason.

The numbers are starting points that trained well here and elsewhere, no optimum: give a flag to change one.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kzoo.data.split import ImageDataset
from kzoo.images import Pixels
from kzoo.recipe import Classify, Data, Detect, Recipe, Segment, TaskOptions
from kzoo.registry import lookup
from kzoo.weights import resolve

DETECTED = 512  # pixels of both sides, in which most boxes of people's own are 16 pixels or more
SMALL = 64  # pixels of the longer side, up to which images are drawings and thumbnails
UNLIKE_THEIR_MIRROR_IMAGE = ("digits", "mnist", "svhn", "letters", "omniglot")  # parts of names of datasets
TRANSFORMERS = ("swin", "nat")


CHOSEN = frozenset(  # what `choose_size` and `choose` may choose
    {
        *("image_size", "resize", "batch_size", "epochs", "warmup_epochs", "patience", "optimizer", "learning_rate"),
        *("weight_decay", "freeze_epochs", "layer_decay", "loss", "label_smoothing", "dice_weight", "augmentation"),
    }
)


RESIZES: dict[type[TaskOptions], tuple[str, str]] = {
    Classify: (Pixels.default().resize, "keeps the shape of things"),
    Segment: (Pixels.default(of_whole=True).resize, "each pixel needs its class"),
    Detect: ("pad", "keeps the shape of things, and all of the picture"),
}


class Choice(NamedTuple):
    """A setting that was chosen.

    Attributes:
        flag: name of the setting.
        value: value of it.
        reason: why, for people.
    """

    flag: str
    value: Any
    reason: str


def recipe_for(model: str, dataset: str) -> Recipe:
    """The recipe for a model and a dataset before anything is chosen."""
    name = f"{model}_{Path(dataset).stem or 'data'}"
    return Recipe(name=name, model=model, data=Data(dataset), export=("float32", "int8"))


def choose_size(recipe: Recipe) -> list[Choice]:
    """How pictures become pixels, which has to be known before any is read.

    Raises:
        WeightsError: no such weights.
    """
    entry = lookup(recipe.model)
    size, why = max(entry.input_shape[:2]), f"{recipe.model} is made for it"
    if isinstance(recipe.task, Detect):
        size, why = DETECTED, "small boxes need more, and large pictures take longer"
    if recipe.weights is not None and (spec := resolve(recipe.model, recipe.weights)[1]) is not None:
        size, why = spec.size, f"the weights {recipe.weights!r} were trained with it"
    if not Path(recipe.data.dataset).exists():
        return []  # sets by name have a size of their own
    resize, why_resize = RESIZES[type(recipe.task)]
    return [Choice("image_size", size, why), Choice("resize", resize, why_resize)]


def choose(recipe: Recipe, data: ImageDataset) -> list[Choice]:
    """Settings for a dataset.

    Args:
        recipe: recipe with what its user said; its weights tell whether a model is fine-tuned.
        data: the dataset as the recipe reads it.
    """
    return list(CHOICES[type(recipe.task)](recipe, data))


def _classification(recipe: Recipe, data: ImageDataset) -> Iterator[Choice]:
    small = max(data.image_shape[:2]) <= SMALL
    tuned = recipe.weights is not None
    batch = _batch_size(128 if small and not tuned else 32, data.train.size, recipe)
    yield Choice("batch_size", batch, f"of {data.train.size} training images")
    if tuned:
        yield from _length(data, batch, steps=1500, least=5, most=50)
        yield Choice("optimizer", "adamw", "fine-tuning: steps of one size for all layers")
        if small:
            yield Choice("learning_rate", 1e-3, "fine-tuning small images: as from scratch, as less of them is common")
        else:
            yield Choice("learning_rate", 3e-4, "fine-tuning: a third of what random weights take")
        yield Choice("freeze_epochs", 1, "the new head learns first, so that its errors do not undo the weights")
        decay = 0.95 if small else 0.8
        yield Choice("layer_decay", decay, "what is near to the image is common to most pictures")
        yield Choice("weight_decay", 0.05, "as Swin and ConvNeXt fine-tune (arXiv:2103.14030)")
    else:
        yield from _length(data, batch, steps=3000, least=20, most=200)
        if small and not lookup(recipe.model).family.startswith(TRANSFORMERS):
            yield Choice("optimizer", "sgd", "from scratch on small images, as ResNet (arXiv:1512.03385, section 4.2)")
            yield Choice("learning_rate", round(0.1 * batch / 128, 4), "0.1 for a batch of 128, in proportion")
            yield Choice("weight_decay", 5e-3, "5e-4 inside the gradient")
        else:
            yield Choice("optimizer", "adamw", "from scratch: robust to the learning rate")
            yield Choice("learning_rate", 1e-3, "from scratch")
            yield Choice("weight_decay", 0.05, "as Swin (arXiv:2103.14030)")
    if recipe.data.label_separator is None:
        yield Choice("label_smoothing", 0.1, "arXiv:1512.00567, section 7")
    else:
        yield Choice("loss", "binary_cross_entropy", "an image has any number of labels")
    yield from _augmentation(recipe, ("translate",) if small else ("translate", "zoom", "brightness", "contrast"))


def _segmentation(recipe: Recipe, data: ImageDataset) -> Iterator[Choice]:
    tuned = recipe.weights is not None or recipe.backbone_weights is not None
    batch = _batch_size(8, data.train.size, recipe)
    yield Choice("batch_size", batch, f"of {data.train.size} training images")
    yield from _length(data, batch, steps=2000 if tuned else 4000, least=20, most=300)
    yield Choice("optimizer", "adamw", "robust to the learning rate")
    yield Choice("learning_rate", 3e-4 if tuned else 1e-3, "fine-tuning" if tuned else "from scratch")
    yield Choice("weight_decay", 0.01, "as the recipe isbi_unet")
    yield Choice("dice_weight", 1.0, "rare classes count as much as common ones")
    yield from _augmentation(recipe, ("brightness", "contrast"))


def _detection(recipe: Recipe, data: ImageDataset) -> Iterator[Choice]:
    tuned = recipe.weights is not None or recipe.backbone_weights is not None
    batch = _batch_size(8, data.train.size, recipe)
    yield Choice("batch_size", batch, f"of {data.train.size} training images")
    yield from _length(data, batch, steps=2000 if tuned else 3000, least=20, most=200)
    yield Choice("optimizer", "adamw", "robust to the learning rate")
    yield Choice("learning_rate", 3e-4 if tuned else 2e-3, "fine-tuning" if tuned else "as the recipe bccd_fcos")
    yield Choice("weight_decay", 0.05, "as the recipe bccd_fcos")
    yield from _augmentation(recipe, ("scale", "color"))


CHOICES: dict[type[TaskOptions], Callable[[Recipe, ImageDataset], Iterator[Choice]]] = {
    Classify: _classification,
    Segment: _segmentation,
    Detect: _detection,
}


def _batch_size(wanted: int, images: int, recipe: Recipe) -> int:
    """The largest power of two up to `wanted` that leaves 32 batches in an epoch, but at least 4, and a multiple of
    the number of devices, where that is told."""
    batch = min(wanted, images, max(4, 2 ** int(math.log2(max(1, images // 32)))))
    devices = recipe.hardware.devices
    return batch if isinstance(devices, str) else max(1, batch // devices) * devices


def _length(data: ImageDataset, batch: int, steps: int, least: int, most: int) -> Iterator[Choice]:
    epochs = min(most, max(least, math.ceil(steps * batch / data.train.size)))
    yield Choice("epochs", epochs, f"about {steps} batches, and from {least} to {most} epochs")
    yield Choice("warmup_epochs", 1.0, "the first steps are rough")
    yield Choice("patience", max(5, epochs // 3), "ends early where nothing gets better")


def _augmentation(recipe: Recipe, changes: tuple[str, ...]) -> Iterator[Choice]:
    name = Path(recipe.data.dataset).name.lower()
    if any(part in name for part in UNLIKE_THEIR_MIRROR_IMAGE):
        yield Choice("augmentation", changes, "no flip, as digits and letters are not their mirror images")
    else:
        yield Choice("augmentation", ("flip", *changes), "leave flip out where left and right matter")
