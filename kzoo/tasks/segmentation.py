"""A class for each pixel, in the recipe engine."""

from pathlib import Path

import keras
import numpy as np

from kzoo.data.augment import Augmentation, random_crop
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.pairs import load_pairs
from kzoo.data.split import ImageDataset
from kzoo.images import Pixels
from kzoo.losses import SegmentationLoss, class_weights
from kzoo.metrics import Confusion, MeanIoU
from kzoo.output import Output
from kzoo.recipe import Recipe
from kzoo.report.sheets import SheetWriter, draw_sheet
from kzoo.tasks.task import Column, Task

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
    class_columns = (Column("iou_by_class", "IoU", ".3f"), Column("dice_by_class", "Dice", ".3f"))
    usage = (
        "probabilities = model.predict(images)  # RGB pixels of 0 to 255, (n, height, width, 3)\n"
        "classes = probabilities.argmax(axis=-1)  # of each pixel, (n, height, width)"
    )
    quality = "mean IoU"
    smoke_batch, smoke_images = 4, 12
    batch_size = 16
    unused = frozenset()

    def load(self, recipe: Recipe) -> ImageDataset:
        return load_pairs(
            recipe.dataset,
            data_dir=recipe.data_dir,
            image_size=recipe.shape,
            pixels=recipe.pixels,
            class_names=recipe.class_names,
            mask_values=recipe.mask_values,
            void=recipe.void,
            validation_fraction=recipe.validation_fraction,
            test_fraction=recipe.test_fraction,
            seed=recipe.seed,
        )

    def images(
        self, name: str, data_dir: str | None, size: tuple[int, int] | None, pixels: Pixels, count: int
    ) -> np.ndarray:
        """Training images, to calibrate with, whatever their masks say."""
        data = load_pairs(
            name,
            data_dir=data_dir,
            image_size=size,
            class_names=[f"value {value}" for value in range(253)],
            void=(253, 254, 255),
            pixels=pixels,
        )
        return data.train.arrays(count)[0]

    def training(self, recipe: Recipe, data: ImageDataset, done: int):
        import tensorflow as tf

        augment = Augmentation(recipe.augmentation)

        def prepare(images, masks, seeds):
            if recipe.crop_shape:
                images, masks = random_crop(images, masks, recipe.crop_shape, seeds)
            return augment.with_masks(tf.cast(images, tf.float32), masks, seeds)

        return training_batches(
            data.train, recipe.batch_size, prepare, seed=recipe.seed, epochs=range(done, recipe.epochs)
        )

    def validation(self, recipe: Recipe, data: ImageDataset):
        import tensorflow as tf

        return evaluation_batches(
            data.validation, recipe.batch_size, lambda images, masks: (tf.cast(images, tf.float32), masks)
        )

    def loss(self, recipe: Recipe, data: ImageDataset) -> keras.losses.Loss:
        weights = class_weights(data.train, len(data.classes), recipe.class_weights) if recipe.class_weights else None
        return SegmentationLoss(recipe.dice_weight, weights, recipe.label_smoothing)

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return [MeanIoU(len(data.classes))]

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]:
        images, masks = data.validation.arrays(SHOWN)
        return [SheetWriter(images, masks, data.classes, directory / "sheets")]

    def scorer(self, output: Output) -> Confusion:
        return Confusion(output.names)

    def draw(self, data: ImageDataset, model: keras.Model, scorer: Confusion, path: Path) -> None:
        """Two each of the worst, the middling and the best test images."""
        scores = scorer.mean_iou_by_image()
        order = np.argsort(scores)
        middle = (len(order) - 1) // 2
        chosen = dict.fromkeys(
            order[[0, 1 % len(order), middle, -(-len(order) // 2) % len(order), -2 % len(order), -1]]
        )
        pairs = enumerate(data.test.dataset.as_numpy_iterator())
        found = {index: pair for index, pair in pairs if index in chosen}
        images, masks = (np.stack(part) for part in zip(*(found[index] for index in chosen), strict=True))
        predicted = model.predict_on_batch(images.astype("float32")).argmax(axis=-1)
        titles = [f"test image {index + 1}, mean IoU {scores[index]:.3f}" for index in chosen]
        draw_sheet(images, masks, predicted, data.classes, path, titles)
