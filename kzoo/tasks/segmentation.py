"""A class for each pixel, in the recipe engine."""

from pathlib import Path

import keras
import numpy as np
from keras import ops

from kzoo.data.augment import Augmentation, random_crop
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.pairs import load_pairs
from kzoo.data.split import Example, ImageDataset
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.losses import SegmentationLoss, class_weights
from kzoo.metrics import Confusion, MeanIoU
from kzoo.output import Output
from kzoo.recipe import Data, Recipe, Segment, TaskOptions
from kzoo.report.sheets import SheetWriter, draw_sheet
from kzoo.tasks.task import PREDICTIONS, Column, Evaluated, Task

SHOWN = 6  # images on a sheet


class Segmentation(Task):
    """A class for each pixel."""

    name = "segmentation"
    monitor = "mean_iou"
    columns = (
        Column("mean_iou", "mean IoU", ".4f"),
        Column("accuracy", "pixel accuracy", ".2%"),
        Column("dice", "mean Dice", ".4f"),
    )
    details = ()
    class_columns = (Column("iou_by_class", "IoU", ".3f"), Column("dice_by_class", "Dice", ".3f"))
    activation = "softmax"
    calibrates = False
    usage = (
        "probabilities = model.predict(images)  # RGB pixels of 0 to 255, (n, {size}, 3)\n"
        "classes = probabilities.argmax(axis=-1)  # of each pixel, (n, {size})"
    )
    quality = "mean IoU"
    smoke_batch, smoke_images = 4, 12
    batch_size = 16
    truth = "mask"

    def check(self, recipe: Recipe) -> None:
        pass

    def load(self, data: Data, options: TaskOptions, seed: int, divided: bool = True) -> ImageDataset:
        if data.label_separator is not None:
            raise InvalidValueError(f"label_separator={data.label_separator!r} is for classification; leave it out")
        masks = _segment(options)
        return load_pairs(
            data.dataset,
            data_dir=data.data_dir,
            image_size=data.shape,
            pixels=data.pixels,
            class_names=masks.class_names,
            mask_values=masks.mask_values,
            void=masks.void,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            group_by=data.group_by,
            seed=seed,
            divided=divided,
        )

    def images(self, data: Data, count: int) -> np.ndarray:
        any_masks = Segment(class_names=tuple(f"value {value}" for value in range(253)), void=(253, 254, 255))
        return self.load(data, any_masks, 0).train.arrays(count)["image"]

    def blank_truth(self, images: int, shape: tuple[int, int], classes: int) -> Example:
        return {"mask": np.broadcast_to(np.uint8(0), (images, *shape))}

    def training(self, recipe: Recipe, data: ImageDataset, done: int, first: int = 0):
        augment, crop = Augmentation(recipe.augment), _segment(recipe.task).crop_shape

        def prepare(examples, seeds):
            images, masks = examples["image"], examples["mask"]
            if crop:
                images, masks = random_crop(images, masks, crop, seeds)
            return augment.with_masks(ops.cast(images, "float32"), masks, seeds)

        schedule = recipe.schedule
        epochs, size = range(done, schedule.epochs), schedule.batch_size
        return training_batches(data.train, size, prepare, seed=recipe.seed, epochs=epochs, first=first)

    def validation(self, recipe: Recipe, data: ImageDataset):
        return evaluation_batches(
            data.validation,
            recipe.schedule.batch_size,
            lambda examples: (ops.cast(examples["image"], "float32"), examples["mask"]),
        )

    def loss(self, recipe: Recipe, data: ImageDataset, model: keras.Model) -> keras.losses.Loss:
        options = _segment(recipe.task)
        kind = options.class_weights
        weights = class_weights(data.train, len(data.classes), kind) if kind else None
        return SegmentationLoss(options.dice_weight, weights, options.label_smoothing)

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return [MeanIoU(len(data.classes))]

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]:
        shown = data.validation.arrays(SHOWN)
        return [SheetWriter(shown["image"], shown["mask"], data.classes, directory / "sheets")]

    def scorer(self, output: Output, pixels: Pixels) -> Confusion:
        return Confusion(output.names)

    def draw(self, evaluated: Evaluated, directory: Path) -> dict[str, str]:
        """Two each of the worst, the middling and the best images."""
        scorer: Confusion = evaluated.scorer
        scores = scorer.mean_iou_by_image()
        order = np.argsort(scores)
        middle = (len(order) - 1) // 2
        chosen = dict.fromkeys(
            order[[0, 1 % len(order), middle, -(-len(order) // 2) % len(order), -2 % len(order), -1]]
        )
        numbers = np.sort(list(chosen))
        found, places = evaluated.examples(numbers), np.searchsorted(numbers, list(chosen))
        images, masks = found["image"][places], found["mask"][places]
        predicted = evaluated.predict(images).argmax(axis=-1)
        which = "image" if evaluated.split == "all" else f"{evaluated.split} image"
        titles = [f"{which} {index + 1}, mean IoU {scores[index]:.3f}" for index in chosen]
        draw_sheet(images, masks, predicted, scorer.classes, directory / PREDICTIONS, titles)
        return {PREDICTIONS: "Predictions"}


def _segment(options: TaskOptions) -> Segment:
    if not isinstance(options, Segment):
        raise TypeError(f"segmentation takes Segment(...), not {options}")
    return options
