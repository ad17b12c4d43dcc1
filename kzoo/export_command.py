"""The command `kzoo export`."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import keras
import numpy as np
import rich
from rich.console import Console
from rich.status import Status
from rich.table import Table
from tyro.conf import Positional, arg

from kzoo.class_names import FILES, imagenet_classes, known_output, match_classes, read_labels
from kzoo.edge import PRECISIONS, Card, ExportReport, draw_reports, export, export_all
from kzoo.edge.arguments import check_path
from kzoo.edge.report import threads_of
from kzoo.errors import InvalidValueError
from kzoo.escape import printable, terminal
from kzoo.files import refuse_unwritable
from kzoo.known_pixels import PixelOptions, known_pixels
from kzoo.predict import load_keras
from kzoo.registry import SEGMENTATION
from kzoo.show import make_table
from kzoo.surgery import fold_batch_norm, fold_preprocessing
from kzoo.train.mask_options import MaskOptions
from kzoo.train.recipe import Recipe, recipe_beside
from kzoo.train.tasks import task_of_output
from kzoo.zoo import build

ALL = "all"


@dataclasses.dataclass(frozen=True)
class Export(MaskOptions, PixelOptions):
    """Fold a model and write it as LiteRT files that were checked against Keras."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A .keras file, or a name of the zoo."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT")]
    """The .tflite file; for several precisions a folder."""
    precision: tuple[Literal[(*PRECISIONS, "auto", ALL)], ...] = ("float32",)
    """Of the file, or several; "auto" takes the fastest that keeps the error small, "all" makes one of each."""
    dataset: str | None = None
    """Training images to calibrate and to check on: "digits", a TFDS name, or a folder. int8, int16x8
    and int4 need it."""
    data_dir: str | None = None
    """Where TFDS keeps its datasets."""
    images: int = 200
    """How many of them."""
    evaluate: int = 0
    """Accuracy or mean IoU of Keras and file on so many test images of the dataset."""
    fold_preprocessing: bool = False
    """Fold the normalisation of pixels into the first convolution too: large int8 files run up to a tenth faster, and
    4-bit ones lose accuracy."""
    batch_size: int = 1
    """Static batch of the file."""
    weights: str | None = None
    """For a name of the zoo: weights to load, such as "imagenet" or a path."""
    labels: Path | None = None
    """Text file with the name of a class on each line, for the card; default: those of the model's recipe, or
    ImageNet's. One sigmoid or logit has two classes."""
    values: Literal["softmax", "sigmoid", "logits"] | None = None
    """What the outputs are, of a model that does not tell."""
    threads: tuple[int, ...] = ()
    """Time the file with so many threads, one after the other."""
    report: bool = False
    """Write NAME_report.json and NAME_report.md beside each file, with the tensors that lose most, and for several
    precisions a picture, precisions.png."""

    def run(self) -> None:
        one = len(self.precision) == 1 and ALL not in self.precision
        if one:
            check_path(self.output)
        elif self.output.suffix == ".tflite":
            raise InvalidValueError(f"{self.output} is one file; for several precisions give a folder")
        elif "auto" in self.precision:
            raise InvalidValueError("--precision auto chooses one of all; it stands alone")
        if self.images < 1 or self.evaluate < 0:
            raise InvalidValueError(
                f"--images {self.images} must be at least 1, --evaluate {self.evaluate} at least 0"
            )
        if self.evaluate and not self.dataset:
            raise InvalidValueError("--evaluate needs the images of a --dataset")
        refuse_unwritable(self.output.parent if one else self.output)
        model, card = self._open()
        trained = self.weights is not None or self.model.endswith(".keras")
        calibration, evaluation = self._images(model, card) if self.dataset else (None, None)
        if card.output.class_names is None and trained and len(names := imagenet_classes()) == card.output.num_classes:
            card = dataclasses.replace(card, output=card.output.named(names))
        options = dict(
            calibration=calibration,
            batch_size=self.batch_size,
            evaluation=evaluation,
            card=card,
            threads=self.threads,
            find_layers=self.report,
            reference=model,
        )
        with _stages():
            folded = fold_batch_norm(model)
            if self.fold_preprocessing:
                folded = fold_preprocessing(folded)
            if one:
                report = export(folded, self.output, self.precision[0], **options)
                reports = {report.precision: report}
            else:
                chosen = None if ALL in self.precision else self.precision
                reports = export_all(folded, self.output, chosen, **options)
        if self.report:
            for report in reports.values():
                report.save(Path(report.path).parent)
            if len(reports) > 1:
                draw_reports(reports, self.output / "precisions.png")
        rich.print(_table(reports))

    def _open(self) -> tuple[keras.Model, Card]:
        """The model, and what the card of its files tells."""
        if self.model.endswith(".keras"):
            if self.weights is not None:
                raise InvalidValueError(f"{self.model} has its own weights; --weights goes with a name of the zoo")
            model = load_keras(self.model)
        else:
            model = build(self.model, weights=self.weights)
        labels = None if self.labels is None else read_labels(self.labels)
        output = known_output(self.model, model, labels, self.values)
        pixels = known_pixels(self.model, self.weights, maps=output.task == SEGMENTATION)
        return model, Card(output, pixels.changed(**self.pixel_options))

    def _images(self, model: keras.Model, card: Card) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        """Training images, and test images with their labels."""
        shape = model.inputs[0].shape[1:]
        if len(shape) != 3 or None in shape or shape[2] != 3:
            raise InvalidValueError(f"the model takes images of {tuple(shape)}; datasets give RGB images of one size")
        output, pixels = card.output, card.pixels
        task = task_of_output(output, self.model)
        if not self.evaluate:
            return task.images(self.dataset, self.data_dir, tuple(shape[:2]), pixels, self.images), None
        # a name of the zoo has nothing beside it, whatever lies in this folder
        beside = recipe_beside(Path(self.model), self.dataset) if self.model.endswith(FILES) else {}
        options = beside | self.mask_options
        recipe = Recipe(
            name="",
            model=self.model,
            dataset=self.dataset,
            data_dir=self.data_dir,
            image_size=tuple(shape[:2]),
            **pixels.to_json(),
            **options,
        )
        data = task.load(recipe)
        if output.multi_label:
            raise InvalidValueError(
                f"{self.model} gives each class a sigmoid of its own, and {self.dataset} one class to each image; "
                "give kzoo.export(evaluation=) labels of 0 and 1 for each class, or leave --evaluate out"
            )
        relabel = match_classes(output, data.classes, self.model, self.dataset)
        images, labels = data.test.arrays(self.evaluate)
        return data.train.arrays(self.images)[0], (images, relabel(labels))


class _Stages(logging.Handler):
    """Shows what kzoo logs: warnings for good, the rest as long as it lasts."""

    def __init__(self, status: Status):
        super().__init__()
        self.status = status

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.status.console.print(f"kzoo: warning: {printable(record.getMessage())}", markup=False, soft_wrap=True)
        else:
            self.status.update(terminal(record.getMessage()))


@contextlib.contextmanager
def _stages() -> Iterator[None]:
    """Shows what export does while it does it."""
    log = logging.getLogger("kzoo")
    level, propagate, handlers = log.level, log.propagate, log.handlers
    with Console(stderr=True).status("folding") as status:
        log.handlers = [_Stages(status)]  # in place of those that would print through the status
        log.setLevel(logging.INFO)
        log.propagate = False  # a library may have given the root a handler that would print it all again
        try:
            yield
        finally:
            log.handlers = handlers
            log.setLevel(level)
            log.propagate = propagate


def _table(reports: dict[str, ExportReport]) -> Table:
    """A row for each file, with what differs between them; the caption tells the rest."""
    any_report = next(iter(reports.values()))
    columns = {
        "precision": lambda r: r.precision,
        "size": lambda r: f"{r.size_bytes / 1e6:.2f} MB",
        "XNNPACK\npartitions": lambda r: str(r.xnnpack_partitions),
        "relative\nerror": lambda r: f"{r.relative_error:.1e}",
        "same\nclass": lambda r: "-" if r.agreement is None else f"{r.agreement:.1%}",
    }
    for metric in any_report.scores:
        columns[metric.replace("_", "\n")] = lambda r, metric=metric: f"{r.scores[metric]['file']:.4f}"
    for count in any_report.latency_ms:
        columns[f"latency,\n{threads_of(count)}"] = lambda r, count=count: f"{r.latency_ms[count]:.2f} ms"
    table = make_table(*columns)
    table.columns[0].no_wrap = True
    for report in reports.values():
        table.add_row(*(show(report) for show in columns.values()))
    folder = Path(any_report.path).parent
    names = ", ".join(Path(report.path).name for report in reports.values())
    keras_scores = (f"{metric.replace('_', ' ')} {told['keras']:.4f}" for metric, told in any_report.scores.items())
    compared = {}
    for report in reports.values():
        compared.setdefault(report.verified_on, []).append(report.precision)
    lines = [
        f"{names} in {folder}",
        f"{any_report.macs / 1e9:.3f} G multiply-adds",
        *(f"{', '.join(group)} compared with Keras on {verified_on}" for verified_on, group in compared.items()),
        *([f"Keras: {', '.join(keras_scores)}"] if any_report.scores else []),
        *(
            f"{report.precision} runs outside the delegate: "
            + ", ".join(f"{count} {op}" for op, count in report.ops_outside_xnnpack.items())
            for report in reports.values()
            if report.ops_outside_xnnpack
        ),
    ]
    table.caption = "\n".join(map(terminal, lines))
    table.caption_justify = "left"
    return table
