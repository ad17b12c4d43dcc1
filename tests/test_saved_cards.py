"""Every LiteRT file of saved_models has its card and carries it inside."""

import json
import zipfile
from pathlib import Path

import pytest

from kzoo.edge import LiteRTModel, read_card
from kzoo.output import Output
from kzoo.reading import read_report
from kzoo.recipe import recipe_dir

FILES = sorted(recipe_dir().parent.glob("saved_models/*/*.tflite"))  # not runs, which lie deeper
pytestmark = pytest.mark.skipif(not FILES, reason="a checkout alone has saved models")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_saved_file_has_the_card_that_belongs_to_it(path: Path):
    """`read_card` checks the sum of the file's bytes; scores and size are those of the run's report."""
    card = read_card(path)
    told = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    assert told["kzoo_card"] == 3
    assert card.output.class_names
    assert card.output.values == Output.of_file(LiteRTModel(path)).values == "softmax"
    with zipfile.ZipFile(path) as archive:
        packed = json.loads(archive.read("kzoo_card.json"))
        labels = archive.read("labels.txt").decode("utf-8").splitlines()
    assert packed == {name: value for name, value in told.items() if name != "sha256"}
    assert labels == list(card.output.class_names)
    report = read_report(path)
    (row,) = (row for row in report["models"].values() if row["file"] == path.name)
    assert row["size_bytes"] == path.stat().st_size
    metric = "mean_iou" if card.output.task == "segmentation" else "accuracy"
    assert told["measured"][metric] == {"value": row[metric], "images": report["dataset"]["test"]}
