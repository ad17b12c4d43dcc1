"""One class for each image, in the recipe engine."""

from pathlib import Path

import keras
import numpy as np

from kzoo.data.augment import Augmentation
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.datasets import load_dataset
from kzoo.data.split import ImageDataset
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.recipe import SEGMENTATION_FIELDS, Recipe
from kzoo.report.measure import score
from kzoo.report.pictures import draw_predictions
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
    unused = SEGMENTATION_FIELDS

    def load(self, recipe: Recipe) -> ImageDataset:
        given = recipe.to_json()
        changed = [field for field in sorted(self.unused) if given[field] != Recipe.default(field)]
        if changed:
            raise InvalidValueError(f"{', '.join(changed)}: for segmentation models, and {recipe.model} classifies")
        return load_dataset(
            recipe.dataset,
            data_dir=recipe.data_dir,
            image_size=recipe.image_size,
            pixels=recipe.pixels,
            validation_fraction=recipe.validation_fraction,
            seed=recipe.seed,
        )

    def images(
        self, name: str, data_dir: str | None, size: tuple[int, int] | None, pixels: Pixels, count: int
    ) -> np.ndarray:
        """Training images, to calibrate with."""
        return load_dataset(name, data_dir=data_dir, image_size=size, pixels=pixels).train.arrays(count)[0]

    def training(self, recipe: Recipe, data: ImageDataset, done: int):
        import tensorflow as tf

        augment = Augmentation(recipe.augmentation)
        return training_batches(
            data.train,
            recipe.batch_size,
            lambda images, labels, seeds: (
                augment(tf.cast(images, tf.float32), seeds),
                tf.one_hot(labels, len(data.classes)),
            ),
            seed=recipe.seed,
            epochs=range(done, recipe.epochs),
        )

    def validation(self, recipe: Recipe, data: ImageDataset):
        import tensorflow as tf

        return evaluation_batches(
            data.validation,
            recipe.batch_size,
            lambda images, labels: (tf.cast(images, tf.float32), tf.one_hot(labels, len(data.classes))),
        )

    def loss(self, recipe: Recipe, data: ImageDataset) -> keras.losses.Loss:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]:
        return []

    def scorer(self, output: Output) -> "Probabilities":
        return Probabilities(output.multi_label)

    def draw(self, data: ImageDataset, model: keras.Model, scorer: "Probabilities", path: Path) -> None:
        draw_predictions(*data.test.arrays(), scorer.probabilities, data.classes, path)


class Probabilities:
    """Collects class probabilities.

    Args:
        independent: whether they are independent, so that they have no cross-entropy with a single class.
    """

    def __init__(self, independent: bool = False):
        self._independent = independent
        self._outputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        """Takes probabilities (n, classes) and labels (n,)."""
        self._outputs.append(outputs)
        self._labels.append(labels)

    @property
    def probabilities(self) -> np.ndarray:
        """(n, classes) of all images."""
        return np.concatenate(self._outputs)

    def scores(self) -> dict[str, float | None]:
        """Top-1 accuracy and mean cross-entropy."""
        accuracy, loss = score(self.probabilities, np.concatenate(self._labels))
        return {"accuracy": accuracy, "loss": None if self._independent else loss}
