"""Metadata and cards for the LiteRT files of saved_models, which older kzoos wrote without them.

    python recipes/studies/saved_cards.py

takes names, pixels and scores from each run's report.json, and what the model does to its pixels from model.keras (or
from the recipe's model, where that is not kept). No number that a file computes changes, which is checked; sizes in
report.json and README.md follow.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import tyro

import kzoo
from kzoo.class_names import known_output
from kzoo.edge import Card, LiteRTModel
from kzoo.edge.card import card_path, describe, write_card
from kzoo.edge.tensors import answer_of
from kzoo.files import atomic_path, write_text
from kzoo.known_pixels import known_pixels

SCORES = {  # task -> key in the report -> what the card calls it
    "classification": {"accuracy": "accuracy"},
    "segmentation": {"mean_iou": "mean_iou", "accuracy": "pixel_accuracy"},
    "detection": {"ap": "ap", "ap50": "ap50"},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the study."""

    folder: Path = Path("saved_models")
    """Folder with a folder for each run."""


def main(options: Options) -> list[Path]:
    """Writes and prints; returns the files that now have cards."""
    done = []
    for report in sorted(options.folder.glob("*/report.json")):
        run = report.parent
        told = json.loads(report.read_text())
        rows = {name: row for name, row in told["models"].items() if (run / row["file"]).suffix == ".tflite"}
        for name, row in rows.items():
            if (run / row["file"]).exists():
                _describe(run, told, name)
                done.append(run / row["file"])
                print(f"{done[-1]}: {row['size_bytes']:,} bytes")
    return done


def _describe(run: Path, told: dict, name: str) -> None:
    """Metadata and card of the file of one row of a report, which is written anew with the file's size."""
    row = told["models"][name]
    path = run / row["file"]
    before = path.read_bytes()
    model = model_of(run, told, LiteRTModel(before))
    output = known_output(str(run / "model.keras"), model)
    answer = answer_of(model) if output.detects else None
    card = Card(output, known_pixels(str(run / "model.keras"), model, of_whole=output.of_whole), answer)
    measured = {metric: row[key] for key, metric in SCORES[output.task].items()}
    precision = told["exports"][name]["precision"]
    content, card_told = describe(before, card, model, precision, measured, told["dataset"]["test"])
    images = np.random.default_rng(0).integers(0, 256, (2, *LiteRTModel(before).input_shape[1:]))
    was, now = (LiteRTModel(each).predict_each(images) for each in (before, content))
    for output_name, values in was.items():
        np.testing.assert_array_equal(now[output_name], values)
    with atomic_path(card_path(path)) as partial_card, atomic_path(path) as partial:
        partial.write_bytes(content)
        write_card(card_told, content, partial_card)
    page = (run / "README.md").read_text()
    write_text(run / "README.md", page.replace(f"| {row['size_bytes']:,} |", f"| {len(content):,} |"))
    row["size_bytes"] = told["exports"][name]["size_bytes"] = len(content)
    write_text(run / "report.json", json.dumps(told, indent=2) + "\n")


def model_of(run: Path, told: dict, lite: LiteRTModel) -> keras.Model:
    """The model that was exported, or one that does the same to its pixels."""
    if (run / "model.keras").exists():
        return keras.saving.load_model(run / "model.keras")
    classes = len(told["dataset"]["classes"])
    return kzoo.build(told["recipe"]["model"], input_shape=lite.input_shape[1:], num_classes=classes)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
