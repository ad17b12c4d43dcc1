"""What differs between tasks, behind one interface; the loop, the end of a run and the card know no task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from kzoo.data.split import ImageDataset
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.recipe import Data, Recipe, TaskOptions
from kzoo.report.measure import Scorer


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

    `load` is told the parts of a recipe that say how a dataset is read and divided; `training` gives the batches of
    all epochs but the first `done`, and but the `first` of the next; `draw` is told what `scorer` gave.

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
        truth: name of the true classes in an example.
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
    truth: str

    def load(self, data: Data, options: TaskOptions, seed: int) -> ImageDataset: ...

    def images(
        self, name: str, data_dir: str | None, size: tuple[int, int] | None, pixels: Pixels, count: int
    ) -> np.ndarray: ...

    def training(self, recipe: Recipe, data: ImageDataset, done: int, first: int = 0): ...

    def validation(self, recipe: Recipe, data: ImageDataset): ...

    def loss(self, recipe: Recipe, data: ImageDataset) -> keras.losses.Loss: ...

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]: ...

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]: ...

    def scorer(self, output: Output) -> Scorer: ...

    def draw(self, data: ImageDataset, model: keras.Model, scorer: Any, path: Path) -> None: ...
