"""The end of a run: the best epoch evaluated on test images, folded, exported, measured and reported."""

import dataclasses
import json
import os
import platform
from pathlib import Path

import keras
import numpy as np
import rich
from rich.table import Table

import kzoo
from kzoo.edge import LiteRTModel, export
from kzoo.files import atomic_path, write_text
from kzoo.surgery import fold_batch_norm
from kzoo.train import callbacks
from kzoo.train.card import model_card
from kzoo.train.data import ImageDataset
from kzoo.train.measure import Measurement, keras_runner, measure
from kzoo.train.pictures import draw_curves, draw_predictions
from kzoo.train.recipe import Recipe
from kzoo.zoo import build

CALIBRATION_IMAGES = 200


def finish(recipe: Recipe, data: ImageDataset, directory: Path) -> dict:
    """Turns the checkpoints of `directory` into finished, measured files; returns the report."""
    rich.print("evaluating on the test images")
    history = callbacks.read_history(directory / "history.csv")
    draw_curves(history, directory / "curves.png", title=recipe.name)
    best_path, best_epoch = callbacks.best_checkpoint(directory / "checkpoints")
    best = keras.saving.load_model(best_path, compile=False)
    model = build(recipe.model, input_shape=data.image_shape, num_classes=len(data.classes))
    model.set_weights(best.get_weights())
    images, labels = data.test.arrays()
    models = {"keras": (directory / "model.keras", _predictor(model), keras_runner(model))}
    _save(model, models["keras"][0])

    rich.print("folding batch normalisation")
    folded = fold_batch_norm(model)
    models["folded"] = (directory / "folded.keras", _predictor(folded), keras_runner(folded))
    _save(folded, models["folded"][0])

    reports = {}
    calibration = data.train.arrays(CALIBRATION_IMAGES)[0] if recipe.export else None
    for precision in recipe.export:
        rich.print(f"exporting {precision}")
        path = directory / f"model_{precision}.tflite"
        reports[precision] = export(folded, path, precision=precision, calibration=calibration)
        lite = LiteRTModel(path)
        models[precision] = (path, lite.predict, lite.predict)

    rich.print("measuring")
    measurements, probabilities = measure(models, images, labels)
    draw_predictions(images, labels, probabilities, data.classes, directory / "predictions.png")
    report = {
        "recipe": recipe.to_json(),
        "kzoo": kzoo.__version__,
        "environment": environment(),
        "dataset": {
            "name": data.name,
            "classes": list(data.classes),
            "train": data.train.size,
            "validation": data.validation.size,
            "test": data.test.size,
        },
        "training_seconds": round(sum(row["seconds"] for row in history)),
        "best_epoch": best_epoch,
        "models": {name: dataclasses.asdict(measurement) for name, measurement in measurements.items()},
        "exports": {name: dataclasses.asdict(report) for name, report in reports.items()},
    }
    write_text(directory / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(directory / "README.md", model_card(recipe, report))
    print_measurements(measurements, data)
    rich.print(f"everything is in [bold]{directory}[/bold]")
    return report


def print_measurements(measurements: dict[str, Measurement], data: ImageDataset) -> None:
    """One table: accuracy, size, latency and largest output difference of each model."""
    table = Table(title=f"{data.name}, {data.test.size} test images")
    for column, justify in (
        ("model", "left"),
        ("accuracy", "right"),
        ("size", "right"),
        ("latency, 1 image", "right"),
        ("largest difference", "right"),
    ):
        table.add_column(column, justify=justify)
    for name, row in measurements.items():
        table.add_row(
            name,
            f"{row.accuracy:.2%}",
            f"{row.size_bytes / 1e6:.2f} MB",
            f"{row.latency_ms:.2f} ms",
            f"{row.max_difference:.1e}",
        )
    rich.print(table)


def environment() -> dict[str, str | int]:
    """What the numbers of a report depend on."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "accelerators": len(tf.config.list_physical_devices("GPU") + tf.config.list_physical_devices("TPU")),
    }


def _predictor(model: keras.Model):
    return lambda images: model.predict(np.asarray(images, "float32"), batch_size=256, verbose=0)


def _save(model: keras.Model, path: Path) -> None:
    with atomic_path(path) as partial:
        model.save(partial)
