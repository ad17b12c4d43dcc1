"""Every LiteRT file of saved_models has its card and carries it inside."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import pixels

from kzoo.edge import LiteRTModel, read_card
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
    assert card.output.values == ("sigmoid" if card.output.detects else "softmax")
    with zipfile.ZipFile(path) as archive:
        packed = json.loads(archive.read("kzoo_card.json"))
        labels = archive.read("labels.txt").decode("utf-8").splitlines()
    assert packed == {name: value for name, value in told.items() if name != "sha256"}
    assert labels == list(card.output.class_names)
    report = read_report(path)
    (row,) = (row for row in report["models"].values() if row["file"] == path.name)
    assert row["size_bytes"] == path.stat().st_size
    metric = {"segmentation": "mean_iou", "detection": "ap"}.get(card.output.task, "accuracy")
    assert told["measured"][metric] == {"value": row[metric], "images": report["dataset"]["test"]}


def test_the_study_writes_the_cards_of_files_that_have_none(tmp_path, monkeypatch):
    """As older kzoos left them; the numbers that a file computes stay as they are."""
    monkeypatch.syspath_prepend(recipe_dir() / "studies")
    import saved_cards

    run = tmp_path / "run"
    shutil.copytree(FILES[0].parents[1] / "fashion_mnist_resnet20", run)
    for card in run.glob("*.tflite.json"):
        card.unlink()
    images = pixels(3, 28, 28, 3)
    expected = {path.name: LiteRTModel(path).predict(images) for path in sorted(run.glob("*.tflite"))}
    assert [path.name for path in saved_cards.main(saved_cards.Options(tmp_path))] == list(expected)
    for name, values in expected.items():
        assert read_card(run / name) == read_card(FILES[0].parents[1] / "fashion_mnist_resnet20" / name)
        np.testing.assert_array_equal(LiteRTModel(run / name).predict(images), values)
        told = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
        assert told["measured"]["accuracy"]["images"] == 10_000
