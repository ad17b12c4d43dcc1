"""The end of a run: the best epoch evaluated on test images, folded, exported, measured and reported."""

import dataclasses
import importlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.table import Table

import kzoo
from kzoo.console import show
from kzoo.data.split import ImageDataset
from kzoo.edge import Card, LiteRTModel, export_each
from kzoo.errors import ExportError, counted
from kzoo.escape import terminal
from kzoo.files import atomic_path, write_text
from kzoo.keras_file import open_keras
from kzoo.output import Output
from kzoo.recipe import Recipe
from kzoo.report.measure import Measurement, keras_runner, measure
from kzoo.report.plots import draw_curves
from kzoo.surgery import fold_batch_norm
from kzoo.tasks import Column, Evaluated, Task
from kzoo.train import quantization_aware
from kzoo.train.card import model_card
from kzoo.train.command import export_command_of
from kzoo.train.history import best_epoch, read_history
from kzoo.train.run_directory import HISTORY, checkpoints_of
from kzoo.zoo import build

CALIBRATION_IMAGES = 200


def finish(recipe: Recipe, task: Task, data: ImageDataset, directory: Path) -> dict:
    """Turns the checkpoints of `directory` into finished, measured files; returns the report."""
    show("evaluating on the test images")
    checkpoints = checkpoints_of(directory)
    history = read_history(directory / HISTORY, max(checkpoints.epochs()), task.monitor)
    draw_curves(history, directory / "curves.png", recipe.name, ("loss", task.monitor))
    epoch = best_epoch(history, task.monitor)
    best = open_keras(checkpoints.best(epoch, averaged=recipe.optimizer.ema is not None))
    options: dict[str, Any] = dict(input_shape=data.image_shape, num_classes=len(data.classes))
    options |= dict(classifier_activation=task.activation, **recipe.build_options)

    def with_names(finished: keras.Model) -> keras.Model:
        return task.finished(finished, data, recipe.data.pixels)

    model = with_names(quantization_aware.take_weights(recipe, build(recipe.model, **options), best))
    output = Output.of_model(model)
    models = {"keras": (directory / "model.keras", *_runners(model))}
    _save(model, models["keras"][0])

    show("folding batch normalisation")
    folded = fold_batch_norm(model)
    models["folded"] = (directory / "folded.keras", *_runners(folded))
    _save(folded, models["folded"][0])
    exported = {"model": (folded, model)}
    if recipe.quantization_aware:  # what it would have been without
        given = with_names(build(recipe.model, weights=recipe.weights, **options))
        start = fold_batch_norm(given)
        models["start"] = (directory / "start.keras", *_runners(start))
        _save(start, models["start"][0])
        exported["start"] = (start, given)

    reports, wanted = {}, recipe.export
    if wanted and keras.backend.backend() != "tensorflow":
        command = terminal(export_command_of(recipe, directory))
        show(
            f"not exported, as KERAS_BACKEND is {keras.backend.backend()}; export with KERAS_BACKEND=tensorflow "
            f"{command}"
        )
        wanted = ()
    calibration = data.train.arrays(CALIBRATION_IMAGES)["image"] if wanted else None
    for stem, (source, reference) in exported.items() if wanted else ():
        show(f"exporting {stem}")
        card = Card(output, recipe.data.pixels)
        named = dict(name=stem, card=card, reference=reference)
        for precision, result in export_each(source, directory, wanted, calibration, **named):
            if isinstance(result, ExportError):  # it must not cost the run its report
                show(f"[bold red]{terminal(str(result))}[/]")
                continue
            name = precision if stem == "model" else f"{stem}_{precision}"
            reports[name] = result
            lite = LiteRTModel(result.path)
            run = lite.predict_each if output.detects else lite.predict
            models[name] = (Path(result.path), run, run)

    show("measuring")
    test = data.test.batches(task.batch_size)
    scorer: Any
    measurements, scorer = measure(models, test, lambda: task.scorer(output, recipe.data.pixels))
    keras_predict = models["keras"][1]
    evaluated = Evaluated(
        file="model.keras",
        dataset=data.name,
        split="test",
        files=data.test.files,
        examples=lambda numbers: data.test.pick(numbers).arrays(),
        predict=keras_predict,
        scorer=scorer,
    )
    captions = task.draw(evaluated, directory)
    rows = {name: measurement.to_json() for name, measurement in measurements.items()}
    if task.calibrates:
        held_out: Any = task.scorer(output, recipe.data.pixels)
        for examples in data.validation.batches(task.batch_size):
            held_out.add(keras_predict(examples["image"]), examples)
        rows["keras"]["temperature"] = scorer.with_temperature(held_out)
    report = {
        "recipe": recipe.to_json(),
        "kzoo": kzoo.__version__,
        "environment": environment(),
        "dataset": {
            "name": data.name,
            "place": place_of(recipe.data.dataset, directory),
            "classes": list(data.classes),
            "train": data.train.size,
            "validation": data.validation.size,
            "test": data.test.size,
        },
        "pixels": recipe.data.pixels.to_json(),
        "input_shape": list(model.input_shape[1:]),
        "output": output.to_json(),
        "training_seconds": round(sum(row["seconds"] for row in history)),
        "best_epoch": epoch,
        "models": rows,
        "pictures": {"curves.png": "Training curves"} | captions,
        "exports": {
            name: dataclasses.asdict(report) | {"path": Path(report.path).name} for name, report in reports.items()
        },
    }
    write_text(directory / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(directory / "README.md", model_card(recipe, task, report))
    print_measurements(measurements, data, task.columns)
    show(f"everything is in [bold]{terminal(str(directory))}[/bold]")
    return report


def place_of(dataset: str, directory: Path) -> str | None:
    """The path of a dataset of files from the folder of a run, as it is found from anywhere; None for other ones."""
    try:
        return os.path.relpath(dataset, directory) if Path(dataset).exists() else None
    except ValueError:  # on another drive
        return str(Path(dataset).absolute())


def print_measurements(measurements: dict[str, Measurement], data: ImageDataset, columns: Sequence[Column]) -> None:
    """One table: scores, size, latency and largest output difference of each model."""
    table = Table(title=f"{terminal(data.name)}, {counted(data.test.size, 'test image')}")
    table.add_column("model")
    for title in (*(column.title for column in columns), "size", "latency, 1 image", "largest difference"):
        table.add_column(title, justify="right")
    for name, row in measurements.items():
        table.add_row(
            name,
            *(column.show(row.scores) for column in columns),
            f"{row.size_bytes / 1e6:.2f} MB",
            f"{row.latency_ms:.2f} ms",
            f"{row.max_difference:.1e}",
        )
    show(table)


def environment() -> dict[str, str | int]:
    """What the numbers of a report depend on; `backend` names what Keras computes with, and its version."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "backend": backend,
        backend: importlib.import_module(backend).__version__,
        "keras": keras.__version__,
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "accelerators": sum(not device.startswith("cpu") for device in keras.distribution.list_devices()),
    }


def _runners(model: keras.Model) -> tuple[Callable, Callable]:
    """What predicts a batch of images, and what is timed on one."""
    return lambda images: model.predict_on_batch(np.asarray(images, "float32")), keras_runner(model)


def _save(model: keras.Model, path: Path) -> None:
    with atomic_path(path) as partial:
        model.save(partial)
