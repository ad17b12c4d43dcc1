"""One class for each image, in the recipe engine."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from kzoo.data.augment import Augmentation
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.datasets import load_dataset
from kzoo.data.mixing import Mixing
from kzoo.data.split import ImageDataset
from kzoo.images import Pixels
from kzoo.losses import ClassificationLoss, balanced_weights
from kzoo.output import Output
from kzoo.recipe import Classify, Data, Recipe, TaskOptions
from kzoo.report.measure import score
from kzoo.report.plots import draw_predictions
from kzoo.tasks.task import Column, Task

SMOKE_BATCH, SMOKE_IMAGES = 16, 64


class Classification(Task):
    """One class for each image."""

    name = "classification"
    monitor = "accuracy"
    columns = (Column("accuracy", "top-1 accuracy", ".2%"), Column("loss", "cross-entropy", ".4f"))
    class_columns = ()
    usage = "probabilities = model.predict(images)  # RGB pixels of 0 to 255, (n, height, width, 3)"
    quality = "accuracy"
    smoke_batch, smoke_images = SMOKE_BATCH, SMOKE_IMAGES
    batch_size = 256
    truth = "label"

    def load(self, data: Data, options: TaskOptions, seed: int) -> ImageDataset:
        return load_dataset(
            data.dataset,
            data_dir=data.data_dir,
            image_size=data.image_size,
            pixels=data.pixels,
            test_fraction=data.test_fraction,
            validation_fraction=data.validation_fraction,
            group_by=data.group_by,
            seed=seed,
        )

    def images(
        self, name: str, data_dir: str | None, size: tuple[int, int] | None, pixels: Pixels, count: int
    ) -> np.ndarray:
        """Training images, to calibrate with."""
        return load_dataset(name, data_dir=data_dir, image_size=size, pixels=pixels).train.arrays(count)["image"]

    def training(self, recipe: Recipe, data: ImageDataset, done: int, first: int = 0):
        import tensorflow as tf

        augment, mix = Augmentation(recipe.augment), Mixing(recipe.augment.mixup, recipe.augment.cutmix)

        def prepare(examples, seeds):
            images = augment(tf.cast(examples["image"], tf.float32), seeds)
            return mix(images, tf.one_hot(examples["label"], len(data.classes)), seeds)

        return training_batches(
            data.train,
            recipe.schedule.batch_size,
            prepare,
            labels=data.train.labels() if _classify(recipe.task).balanced_sampling else None,
            seed=recipe.seed,
            epochs=range(done, recipe.schedule.epochs),
            first=first,
        )

    def validation(self, recipe: Recipe, data: ImageDataset):
        import tensorflow as tf

        return evaluation_batches(
            data.validation,
            recipe.schedule.batch_size,
            lambda examples: (
                tf.cast(examples["image"], tf.float32),
                tf.one_hot(examples["label"], len(data.classes)),
            ),
        )

    def loss(self, recipe: Recipe, data: ImageDataset) -> keras.losses.Loss:
        options = _classify(recipe.task)
        weights = balanced_weights(data.train.labels(), len(data.classes)) if options.class_weights else None
        return ClassificationLoss(options.loss == "binary_cross_entropy", options.label_smoothing, weights)

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]:
        return []

    def scorer(self, output: Output) -> "Probabilities":
        return Probabilities(output.multi_label)

    def draw(self, data: ImageDataset, model: keras.Model, scorer: "Probabilities", path: Path) -> None:
        test = data.test.arrays()
        draw_predictions(test["image"], test["label"], scorer.probabilities, data.classes, path)


class Probabilities:
    """Collects class probabilities.

    Args:
        independent: whether they are independent, so that they have no cross-entropy with a single class.
    """

    def __init__(self, independent: bool = False):
        self._independent = independent
        self._outputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, outputs: np.ndarray, examples: Mapping[str, np.ndarray]) -> None:
        """Takes probabilities (n, classes) and the `label` (n,) of each example."""
        self._outputs.append(outputs)
        self._labels.append(examples["label"])

    @property
    def probabilities(self) -> np.ndarray:
        """(n, classes) of all images."""
        return np.concatenate(self._outputs)

    def scores(self) -> dict[str, float | None]:
        """Top-1 accuracy and mean cross-entropy."""
        accuracy, loss = score(self.probabilities, np.concatenate(self._labels))
        return {"accuracy": accuracy, "loss": None if self._independent else loss}


def _classify(options: TaskOptions) -> Classify:
    if not isinstance(options, Classify):
        raise TypeError(f"classification takes Classify(...), not {options}")
    return options
