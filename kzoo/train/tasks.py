"""What differs between tasks, behind one interface; the loop, the end of a run and the card know no task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.output import UNKNOWN, Output
from kzoo.recipe import SEGMENTATION_FIELDS, Recipe
from kzoo.registry import lookup
from kzoo.train.augment import Augmentation
from kzoo.train.batches import evaluation_batches, training_batches
from kzoo.train.data import ImageDataset, load_dataset
from kzoo.train.measure import Scorer, score
from kzoo.train.pictures import draw_predictions

SMOKE_BATCH, SMOKE_IMAGES = 16, 64


class Column(NamedTuple):
    """A score in the tables: its key in the report, its title, its format."""

    key: str
    title: str
    format: str

    def show(self, scores: Mapping[str, Any]) -> str:
        """The score as text."""
        return self.text(scores[self.key])

    def text(self, value: float | None) -> str:
        """A value as text; "-" where there is none."""
        return "-" if value is None else format(value, self.format)


class Task(Protocol):
    """How a kind of model is trained, judged and shown.

    `training` gives the batches of all epochs but the first `done`.

    Attributes:
        name: as in `kzoo.registry.Entry.task`.
        monitor: the metric whose best validation value chooses the epoch.
        columns: what tables show of `Scorer.scores`.
        class_columns: what they show of each class.
        usage: how to run the model, in Python.
        quality: what the card says of it where it names its limits.
        smoke_batch: batch size of a smoke run.
        smoke_images: of each split in a smoke run.
        batch_size: of evaluation.
        unused: fields of the recipe that say nothing here.
    """

    name: str
    monitor: str
    columns: tuple[Column, ...]
    class_columns: tuple[Column, ...]
    usage: str
    quality: str
    smoke_batch: int
    smoke_images: int
    batch_size: int
    unused: frozenset[str]

    def load(self, recipe: Recipe) -> ImageDataset: ...

    def images(
        self, name: str, data_dir: str | None, size: tuple[int, int] | None, pixels: Pixels, count: int
    ) -> np.ndarray: ...

    def training(self, recipe: Recipe, data: ImageDataset, done: int): ...

    def validation(self, recipe: Recipe, data: ImageDataset): ...

    def loss(self, recipe: Recipe, data: ImageDataset) -> keras.losses.Loss: ...

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]: ...

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]: ...

    def scorer(self, output: Output) -> Scorer: ...

    def draw(self, data: ImageDataset, model: keras.Model, scorer: Scorer, path: Path) -> None: ...


class Classification:
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
        self._independent, self._outputs, self._labels = independent, [], []

    def add(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        """Takes probabilities (n, classes) and labels (n,)."""
        self._outputs.append(outputs)
        self._labels.append(labels)

    @property
    def probabilities(self) -> np.ndarray:
        """(n, classes) of all images."""
        return np.concatenate(self._outputs)

    def scores(self) -> dict[str, float]:
        """Top-1 accuracy and mean cross-entropy."""
        accuracy, loss = score(self.probabilities, np.concatenate(self._labels))
        return {"accuracy": accuracy, "loss": None if self._independent else loss}


def task_of(model: str) -> Task:
    """The task of a model of the zoo."""
    return named(lookup(model).task)


def task_of_output(output: Output, model: str) -> Task:
    """The task of an output; `model` begins the `InvalidValueError` if it has none."""
    if output.task == UNKNOWN:
        raise InvalidValueError(f"{model} gives neither (images, classes) nor maps (images, height, width, classes)")
    return named(output.task)


def named(task: str) -> Task:
    """`"classification"` or `"segmentation"`."""
    from kzoo.train.segmentation import Segmentation

    return {one.name: one for one in (Classification(), Segmentation())}[task]
