"""What differs between tasks, behind one interface; the loop, the end of a run and the card know no task."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from kzoo.data.split import Example, File, ImageDataset
from kzoo.images import Pixels
from kzoo.meaning import with_classes
from kzoo.output import Output
from kzoo.recipe import Data, Recipe, TaskOptions
from kzoo.report.measure import Scorer

PREDICTIONS = "predictions.png"


class Column(NamedTuple):
    """A score in the tables: its key in the report, its title, its format."""

    key: str
    title: str
    format: str

    def show(self, scores: Mapping[str, Any]) -> str:
        """The score as text."""
        return self.text(scores[self.key])

    def text(self, value: float | list[float] | None) -> str:
        """A value as text, or the two ends of an interval; "-" where there is none."""
        if isinstance(value, list):
            return " to ".join(map(self.text, value))
        return "-" if value is None else format(value, self.format)


class Evaluated(NamedTuple):
    """A file that has seen a split.

    Attributes:
        file: name of the file.
        dataset: name of the dataset.
        split: name of the split.
        files: where its examples lie, in their order; None where they are no files.
        examples: function from numbers of examples, ascending, to these examples.
        predict: function from their images to what the file gives.
        scorer: that has seen all.
    """

    file: str
    dataset: str
    split: str
    files: Sequence[File] | None
    examples: Callable[[np.ndarray], Example]
    predict: Callable
    scorer: Any


class Task(Protocol):
    """How a kind of model is trained, judged and shown.

    `check` raises `InvalidValueError` for settings that the task does not have. `load` is told the parts of a recipe
    that say how a dataset is read and divided, unless all of it is wanted (`divided`); `images` reads some of its
    training images to calibrate with, whatever is known of them; `blank_truth` is the truth of so many black images
    of a shape (height, width), that takes no memory, for plans. `training` gives the batches of all epochs but the
    first `done`, and but the `first` of the next. `learner` makes what is trained of the model that was built, and of
    what `prepare` makes of it; `loss` is told that model. `judges` are callbacks that add to the logs of a validation
    what is no mean over images, and come before all others. `finished` is the trained model with its meaning; `scorer`
    is told that, and the way from pictures to images. `draw` writes pictures, pages and tables of one file into a
    folder; it returns file -> caption of the pictures and pages.

    Attributes:
        name: as in `kzoo.registry.Entry.task`.
        monitor: the metric whose best validation value chooses the epoch.
        columns: what tables show of `Scorer.scores`.
        details: what a second table shows of them, where they are not None.
        class_columns: what tables show of each class, the most telling first.
        activation: of the finished model's last layer.
        training_activation: of the one that is built to be trained.
        calibrates: whether a temperature can be fitted: the scorer has `with_temperature`.
        usage: how to run the model, in Python; `{size}` stands for the height and width of its images.
        quality: what the card says of it where it names its limits.
        smoke_batch: batch size of a smoke run.
        smoke_images: of each split in a smoke run.
        batch_size: of evaluation.
        truth: name of the true classes in an example.
    """

    name: str
    monitor: str
    columns: tuple[Column, ...]
    details: tuple[Column, ...]
    class_columns: tuple[Column, ...]
    activation: str
    training_activation: str | None = None
    calibrates: bool
    usage: str
    quality: str
    smoke_batch: int
    smoke_images: int
    batch_size: int
    truth: str

    def check(self, recipe: Recipe) -> None: ...

    def load(self, data: Data, options: TaskOptions, seed: int, divided: bool = True) -> ImageDataset: ...

    def images(self, data: Data, count: int) -> np.ndarray: ...

    def blank_truth(self, images: int, shape: tuple[int, int], classes: int) -> Example: ...

    def training(self, recipe: Recipe, data: ImageDataset, done: int, first: int = 0): ...

    def validation(self, recipe: Recipe, data: ImageDataset): ...

    def learner(self, model: keras.Model, prepare: Callable[[keras.Model], keras.Model]) -> keras.Model:
        return prepare(model)

    def loss(self, recipe: Recipe, data: ImageDataset, model: keras.Model) -> keras.losses.Loss: ...

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]: ...

    def judges(self, recipe: Recipe, data: ImageDataset) -> list[keras.callbacks.Callback]:
        return []

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]: ...

    def finished(self, model: keras.Model, data: ImageDataset, pixels: Pixels) -> keras.Model:
        return with_classes(model, data.classes, pixels)

    def scorer(self, output: Output, pixels: Pixels) -> Scorer: ...

    def draw(self, evaluated: Evaluated, directory: Path) -> dict[str, str]: ...
