"""`kzoo export`: fold a model, and write LiteRT files that were checked against Keras."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.status import Status
from rich.table import Table

from kzoo.class_names import imagenet_classes, known_output, match_classes, read_class_names
from kzoo.commands.dataset import load, training_images
from kzoo.commands.forms import ALL, Export
from kzoo.commands.other_formats import other_exporter, show_format
from kzoo.console import make_table, show, show_json
from kzoo.edge import Card, ExportReport, draw_reports, export, export_all
from kzoo.edge.arguments import NO_ANSWER, check_path
from kzoo.edge.compare import Truth
from kzoo.edge.export_report import threads_of
from kzoo.edge.gpu import gpu_in_words
from kzoo.edge.tensors import answer_of, input_names, only, outputs_by_name
from kzoo.errors import InvalidValueError
from kzoo.escape import printable, terminal
from kzoo.files import refuse_unwritable
from kzoo.keras_file import open_keras
from kzoo.known_pixels import known_pixels
from kzoo.last_operation import scores_of
from kzoo.models.inception import without_auxiliary
from kzoo.needs import need_tensorflow_backend
from kzoo.output import Output
from kzoo.surgery import fold_batch_norm, fold_preprocessing
from kzoo.tasks import task_of_output
from kzoo.zoo import build


def run(form: Export) -> None:
    need_tensorflow_backend("kzoo export")
    exporter = other_exporter(form)
    one = exporter is not None or (len(form.precision) == 1 and ALL not in form.precision)
    if exporter is None:
        _check_path(form, one)
    if form.images < 1 or form.evaluate < 0:
        raise InvalidValueError(f"--images {form.images} must be at least 1, --evaluate {form.evaluate} at least 0")
    if form.evaluate and not form.dataset:
        raise InvalidValueError("--evaluate needs the images of a --dataset")
    refuse_unwritable(form.output.parent if one else form.output)
    model, card = _open(form)
    trained = form.weights is not None or form.model.endswith(".keras")
    calibration, evaluation = _images(form, form.dataset, model, card) if form.dataset else (None, None)
    if card.output.class_names is None and trained and len(names := imagenet_classes()) == card.output.num_classes:
        card = dataclasses.replace(card, output=card.output.named(names))
    options = dict(evaluation=evaluation, card=card, reference=model, auxiliary=form.auxiliary, heatmap=form.heatmap)
    with _stages():
        folded = fold_batch_norm(model)
        if form.fold_preprocessing:
            folded = fold_preprocessing(folded)
        if exporter is None:
            reports = _litert(form, one, folded, calibration=calibration, **options)
        else:
            other = exporter(folded, form.output, calibration, form.batch_size, **options)
    answers = "boxes" if card.output.detects else "labels" if card.output.multi_label else "class"
    if exporter is not None:
        return show_format(form, other, answers)
    if form.report:
        for report in reports.values():
            report.save(Path(report.path).parent)
        if len(reports) > 1:
            draw_reports(reports, form.output / "precisions.png")
    if form.json:
        show_json([dataclasses.asdict(report) for report in reports.values()])
    else:
        show(_table(reports, answers))


def _litert(form: Export, one: bool, model: keras.Model, **options: Any) -> dict[str, ExportReport]:
    """Writes LiteRT files, one or several; returns precision -> report."""
    options |= dict(threads=form.threads, find_layers=form.report, io=form.io, target=form.target)
    options["batch_size"] = 1 if form.batch_size is None else form.batch_size
    if one:
        report = export(model, form.output, form.precision[0], **options)
        return {report.precision: report}
    return export_all(model, form.output, None if ALL in form.precision else form.precision, **options)


def _check_path(form: Export, one: bool) -> None:
    """Raises `InvalidValueError` unless the output is a LiteRT file, or for several a folder."""
    if form.output.suffix == ".onnx":
        raise InvalidValueError(f"{form.output} is an ONNX file; say --onnx")
    if one:
        check_path(form.output)
    elif form.output.suffix == ".tflite":
        raise InvalidValueError(f"{form.output} is one file; for several precisions give a folder")
    elif "auto" in form.precision:
        raise InvalidValueError("--precision auto chooses one of all; it stands alone")


def _open(form: Export) -> tuple[keras.Model, Card]:
    """The model, and what the card of its files tells."""
    if form.model.endswith(".keras"):
        if form.weights is not None:
            raise InvalidValueError(f"{form.model} has its own weights; --weights goes with a name of the zoo")
        model = open_keras(form.model)
    else:
        options: dict[str, Any] = {"auxiliary": True} if form.auxiliary else {}
        model = build(form.model, weights=form.weights, **options)
    main = without_auxiliary(model)
    if form.auxiliary and main is model:
        raise InvalidValueError(f"{form.model} has no auxiliary heads; leave --auxiliary out")
    class_names = None if form.labels is None else read_class_names(form.labels)
    output = _output(form, main, class_names)
    pixels = known_pixels(form.model, main, form.weights, output.of_whole)
    return model if form.auxiliary else main, Card(output, pixels.changed(**form.pixel_options))


def _output(form: Export, model: keras.Model, class_names: list[str] | None) -> Output:
    """Meaning of the output, or of the one of several that answers what is in a picture."""
    if len(getattr(model, "outputs", None) or []) > 1:
        answer = answer_of(model)
        if answer is None and (class_names is not None or form.values or form.evaluate):
            raise InvalidValueError(
                f"{form.model} gives {', '.join(outputs_by_name(model))}, none of which answers what is in a picture; "
                "leave --labels, --values and --evaluate out"
            )
        if answer is None:
            return NO_ANSWER
        model = model if scores_of(model) is not None else only(model, answer)
    return known_output(form.model, model, class_names, form.values)


def _images(
    form: Export, dataset: str, model: keras.Model, card: Card
) -> tuple[np.ndarray, tuple[np.ndarray, Truth] | None]:
    """Training images, and test images with their labels, or boxes and their classes."""
    if len(model.inputs) > 1:
        raise InvalidValueError(
            f"{form.model} takes {', '.join(input_names(model))}, and a dataset gives one image at a time; leave "
            "--dataset out, or export in Python: kzoo.export(model, path, calibration={name: images})"
        )
    shape = model.inputs[0].shape[1:]
    if len(shape) != 3 or None in shape or shape[2] != 3:
        raise InvalidValueError(f"the model takes images of {tuple(shape)}; datasets give RGB images of one size")
    output, pixels = card.output, card.pixels
    if not form.evaluate:
        return training_images(form, output, tuple(shape[:2]), pixels, form.images), None
    data = load(form, output, tuple(shape[:2]), pixels)
    relabel = match_classes(output, data.classes, form.model, dataset)
    test = data.test.arrays(form.evaluate)
    labels = relabel(test[task_of_output(output, form.model).truth])
    truth = {"boxes": test["boxes"], "classes": labels} if output.detects else labels
    return data.train.arrays(form.images)["image"], (test["image"], truth)


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


def _score(metric: str, report: ExportReport) -> str:
    return f"{report.scores[metric]['file']:.4f}"


def _latency(threads: int, report: ExportReport) -> str:
    return f"{report.latency_ms[threads]:.2f} ms"


def _table(reports: dict[str, ExportReport], answers: str) -> Table:
    """A row for each file, with what differs between them, `answers` among it; the caption tells the rest."""
    any_report = next(iter(reports.values()))
    columns: dict[str, Callable[[ExportReport], str]] = {
        "precision": lambda r: r.precision,
        "size": lambda r: f"{r.size_bytes / 1e6:.2f} MB",
        "XNNPACK\npartitions": lambda r: str(r.xnnpack_partitions),
        "relative\nerror": lambda r: f"{r.relative_error:.1e}",
        f"same\n{answers}": lambda r: "-" if r.agreement is None else f"{r.agreement:.1%}",
    }
    for metric in any_report.scores:
        columns[metric.replace("_", "\n")] = partial(_score, metric)
    for count in any_report.latency_ms:
        columns[f"latency,\n{threads_of(count)}"] = partial(_latency, count)
    table = make_table(*columns)
    table.columns[0].no_wrap = True
    for report in reports.values():
        table.add_row(*(show(report) for show in columns.values()))
    folder = Path(any_report.path).parent
    names = ", ".join(Path(report.path).name for report in reports.values())
    keras_scores = (f"{metric.replace('_', ' ')} {told['keras']:.4f}" for metric, told in any_report.scores.items())
    compared: dict[str, list[str]] = {}
    on_gpu: dict[str, list[str]] = {}
    for report in reports.values():
        compared.setdefault(report.verified_on, []).append(report.precision)
        on_gpu.setdefault(gpu_in_words(report.gpu_refuses), []).append(report.precision)
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
        *(f"GPU: {told} ({', '.join(group)})" for told, group in on_gpu.items()),
    ]
    table.caption = "\n".join(map(terminal, lines))
    table.caption_justify = "left"
    return table
