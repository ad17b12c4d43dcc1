"""`kzoo evaluate`: what it tells of one sigmoid, what it writes, the temperature, and what it refuses."""

import csv
import html
import json
import re
import shutil

import keras
import numpy as np
import pytest
from helpers import fails
from keras import layers
from PIL import Image

from kzoo.cli import main
from kzoo.escape import printable
from kzoo.report.judging import fit_temperature, scaled
from kzoo.report.probabilities import Probabilities

CAPTIONS = {
    "confusion": "Confusion matrix",
    "predictions": "Predictions",
    "ranking": "ROC, precision and recall",
    "reliability": "Calibration",
}
NAMES = ("a|b <img>", "犬\nx")  # in the order of folders


def redness(units: int, activation) -> keras.Model:
    """How red a picture is, for its second class; four times too sure."""
    image = keras.Input((8, 8, 3))
    dense = layers.Dense(units, activation)
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))))
    dense.set_weights([np.array([[24.0], [-24], [0]]) * np.ones((1, units)), np.zeros(units)])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two classes, red and green more or less; one sigmoid, one logit, and two sigmoids."""
    folder, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    for split, counts in (("train", (3, 3)), ("validation", (20, 20)), ("test", (17, 9))):
        for name, sign, count in zip(NAMES, (-1, 1), counts, strict=True):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for index in range(count):
                red = 128 + sign * 12 + rng.normal(0, 20)
                pixels = np.full((8, 8, 3), (red, 256 - red, 60)) + rng.normal(0, 3, (8, 8, 3))
                Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(place / f"{index:02}.png")
    redness(1, "sigmoid").save(folder / "sigmoid.keras")
    redness(1, None).save(folder / "logit.keras")
    redness(2, "sigmoid").save(folder / "several.keras")
    return folder


def pixels_of(folder, split: str) -> tuple[np.ndarray, np.ndarray]:
    paths = [path for name in NAMES for path in sorted((folder / "images" / split / name).iterdir())]
    labels = np.array([NAMES.index(path.parent.name) for path in paths])
    return np.stack([np.asarray(Image.open(path), "float32") for path in paths]), labels


def judged_by_hand(folder, split: str) -> Probabilities:
    images, labels = pixels_of(folder, split)
    second = redness(1, "sigmoid").predict(images, verbose=0)[:, 0]
    scorer = Probabilities(NAMES)
    scorer.add(np.stack([1 - second, second], axis=1), {"label": labels})
    return scorer


def evaluated(capsys, *args) -> dict:
    capsys.readouterr()
    main(["evaluate", *map(str, args), "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", ["sigmoid.keras", "logit.keras"])
def test_one_number_for_two_classes_is_judged_as_two_probabilities(model, folder, capsys):
    found = evaluated(capsys, folder / model, "--dataset", folder / "images")
    scorer = judged_by_hand(folder, "test")
    expected = scorer.scores()
    assert 0.6 < expected["accuracy"] < 1, "some are wrong"
    assert found["images"] == 26
    assert found["scores"].pop("top5_accuracy") is None
    for key, value in found["scores"].items():
        assert value == pytest.approx(expected[key], rel=1e-4), key
    assert 0.5 < found["scores"]["roc_auc"] < 1
    assert found["classes"][NAMES[1]]["support_by_class"] == 9
    for index, name in enumerate(NAMES):
        said, true = scorer.probabilities.argmax(axis=1) == index, scorer.labels == index
        assert found["classes"][name]["precision_by_class"] == pytest.approx((said & true).sum() / said.sum())
        assert found["classes"][name]["recall_by_class"] == pytest.approx((said & true).sum() / true.sum())


def test_the_temperature_is_fitted_to_validation_images_and_judged_on_the_others(folder, capsys):
    found = evaluated(capsys, folder / "sigmoid.keras", "--dataset", folder / "images", "--temperature")
    held_out, judged = judged_by_hand(folder, "validation"), judged_by_hand(folder, "test")
    told = found["temperature"]
    temperature = fit_temperature(held_out.probabilities, held_out.labels)
    assert told["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert (told["fitted_on"], temperature > 1.5) == (40, True)
    assert told["ece_before"] == pytest.approx(found["scores"]["ece"])
    assert told["loss_before"] == pytest.approx(found["scores"]["loss"])
    after = scaled(judged.probabilities, temperature)[np.arange(26), judged.labels]
    assert told["loss_after"] == pytest.approx(-np.log(after).mean(), rel=1e-3)
    assert told["loss_after"] < told["loss_before"]


def test_validation_images_that_are_all_right_are_told_in_place_of_a_temperature(folder, capsys, tmp_path):
    for split, counts in (("train", (2, 2)), ("validation", (3, 4)), ("test", (2, 2))):
        for name, colour, count in zip(NAMES, ("lime", "red"), counts, strict=True):
            (tmp_path / "sure" / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8), colour).save(tmp_path / "sure" / split / name / f"{index}.png")
    command = [str(folder / "sigmoid.keras"), "--dataset", str(tmp_path / "sure"), "--temperature"]
    main(["evaluate", *command, "--json", "--output", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert "all 7 validation images are right: no temperature can be fitted" in told.err
    assert json.loads(told.out)["temperature"] is None
    assert "temperature" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def fresh(folder, tmp_path):
    """The 72 pictures in a folder of classes without splits, 40 and 32, and the models beside no report."""
    for split in ("train", "validation", "test"):
        for name in NAMES:
            for path in (folder / "images" / split / name).iterdir():
                place = tmp_path / "fresh" / name / f"{split}_{path.name}"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
    return tmp_path / "fresh"


def test_of_a_folder_without_splits_it_says_which_part_is_measured_and_takes_everything_if_asked(
    folder, fresh, capsys
):
    command = [str(folder / "sigmoid.keras"), "--dataset", str(fresh)]
    main(["evaluate", *command])
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if "of its own" in line]
    assert "these are 14 of its 72 images, the test part" in line
    assert "--split all takes everything" in line
    assert "\ttest\t14 of 72\t" in told.out
    part = evaluated(capsys, *command)
    assert (part["images"], part["of"]) == (14, 72)

    main(["evaluate", *command, "--split", "all"])
    told = capsys.readouterr()
    assert "of its own" not in told.err
    assert "\tall\t72\t" in told.out
    found = evaluated(capsys, *command, "--split", "all")
    assert (found["images"], found["of"]) == (72, 72)
    parts = [judged_by_hand(folder, split) for split in ("train", "validation", "test")]
    right = sum(int((part.probabilities.argmax(axis=1) == part.labels).sum()) for part in parts)
    assert found["scores"]["accuracy"] == pytest.approx(right / 72)
    assert [found["classes"][name]["support_by_class"] for name in NAMES] == [40, 32], "no picture twice"


def test_of_a_folder_with_splits_nothing_is_said(folder, capsys):
    main(["evaluate", str(folder / "sigmoid.keras"), "--dataset", str(folder / "images")])
    told = capsys.readouterr()
    assert told.err == ""
    assert "\ttest\t26 of 72\t" in told.out


def test_a_model_that_left_its_run_is_judged_on_the_split_of_its_run_by_its_options(folder, fresh, capsys, tmp_path):
    division = dict(test_fraction=0.4, validation_fraction=0.3, group_by=r"(\d)[.]png", seed=3)
    (tmp_path / "run").mkdir()
    shutil.copy(folder / "sigmoid.keras", tmp_path / "run" / "model.keras")
    (tmp_path / "run" / "report.json").write_text(json.dumps({"recipe": {"dataset": str(fresh), **division}}))
    options = [word for flag, value in division.items() for word in (f"--{flag.replace('_', '-')}", value)]
    for split in ("test", "validation"):
        main(["evaluate", str(tmp_path / "run" / "model.keras"), "--dataset", str(fresh), "--split", split, "--json"])
        told = capsys.readouterr()
        assert "of its own" not in told.err, "it is the part of its run"
        expected = json.loads(told.out)
        command = [folder / "sigmoid.keras", "--dataset", fresh, "--split", split]
        found = evaluated(capsys, *command, *options)
        assert (found["images"], found["scores"]) == (expected["images"], expected["scores"])
        assert evaluated(capsys, *command)["images"] != found["images"]


def test_all_splits_of_a_run_are_told_to_hold_what_it_was_trained_on(folder, fresh, capsys, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(folder / "sigmoid.keras", tmp_path / "run" / "model.keras")
    (tmp_path / "run" / "report.json").write_text(json.dumps({"recipe": {"dataset": str(fresh), "seed": 0}}))
    main(["evaluate", str(tmp_path / "run" / "model.keras"), "--dataset", str(fresh), "--split", "all"])
    assert "model.keras was trained on some of the images of --split all" in capsys.readouterr().err


@pytest.mark.filterwarnings("error:Glyph")
def test_the_folder_has_the_numbers_tables_and_pictures(folder, capsys, tmp_path):
    command = [folder / "sigmoid.keras", "--dataset", folder / "images", "--temperature", "--output", tmp_path / "x"]
    main(["evaluate", *map(str, command)])
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "x" / "evaluation.json").read_text())
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        *("README.md", "classes.csv", "confusion.csv", "confusion.png", "evaluation.json"),
        *("mistakes.html", "predictions.png", "ranking.png", "reliability.png"),
    ]
    page = (tmp_path / "x" / "README.md").read_text(encoding="utf-8")
    for told in (text, page):
        assert f"{found['scores']['roc_auc']:.4f}" in told
        assert f"{found['temperature']['ece_after']:.4f}" in told
        low, high = found["scores"]["accuracy_interval"]
        assert f"{low:.2%} to {high:.2%}" in told
    assert "\n| a\\|b &lt;img&gt; | " in page
    assert "\n| 犬\\\\nx | " in page
    with (tmp_path / "x" / "classes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["a|b <img>", "犬\\nx"]
    for row, name in zip(rows, NAMES, strict=True):
        for key, value in found["classes"][name].items():
            assert float(row[key]) == pytest.approx(value)
    for name in ("confusion", "predictions", "ranking", "reliability"):
        assert f"![{CAPTIONS[name]}]({name}.png)" in page
    assert "\n[What it gets wrong, image by image](mistakes.html)\n" in page
    paths = [path for name in NAMES for path in sorted((folder / "images/test" / name).iterdir())]
    scorer = judged_by_hand(folder, "test")
    wrong = {
        html.escape(printable(path.relative_to(folder / "images").as_posix()))
        for path, label, row in zip(paths, scorer.labels, scorer.probabilities, strict=True)
        if row.argmax() != label
    }
    mistakes, unsure = (tmp_path / "x" / "mistakes.html").read_text(encoding="utf-8").split("<h2>Right but unsure")
    assert {*re.findall('<bdi dir="ltr">(.*?)</bdi>', mistakes)} == wrong
    assert len(wrong) > 1
    assert not any(path in unsure for path in wrong)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("several.keras", ("--temperature",), "--temperature is for one class for each image, and"),
        ("sigmoid.keras", ("--temperature", "--split", "validation"), "judge it on --split test or train"),
        ("sigmoid.keras", ("--temperature", "--split", "all"), "judge it on --split test or train"),
        ("sigmoid.keras", ("--output", "run"), "run holds the report of a run; give --output another folder"),
        ("sigmoid.keras", ("--output", "run/report.json"), "cannot write to"),
        ("maps.keras", ("--temperature",), "--temperature is for one class for each image, and"),
    ],
)
def test_what_cannot_be_is_refused_before_any_image_is_read(model, options, message, folder, capsys, monkeypatch):
    monkeypatch.setattr("kzoo.commands.evaluate.load", lambda *_: pytest.fail("read"))
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "report.json").write_text("{}")
    if model == "maps.keras":
        image = keras.Input((8, 8, 3))
        keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(image)).save(folder / model)
    words = [str(folder / word) if word.startswith("run") else word for word in options]
    assert message in fails(capsys, "evaluate", str(folder / model), "--dataset", str(folder / "images"), *words)


def test_of_more_than_50_classes_the_weakest_are_shown():
    from kzoo.tasks import Classification
    from kzoo.tasks.tables import classes_table, shown_classes

    rng, names = np.random.default_rng(0), tuple(f"c{index:02}" for index in range(60))
    scorer = Probabilities(names)
    labels = rng.integers(0, 59, 400)  # none of the last
    scorer.add(rng.dirichlet(np.ones(60), 400) + 0.1 * np.eye(60)[labels], {"label": labels})
    scores = scorer.scores()
    shown, note = shown_classes(Classification(), scores)
    known = {name: value for name, value in scores["f1_by_class"].items() if value is not None}
    assert note == "The 50 of 60 classes with the lowest F1."
    assert shown == sorted(known, key=lambda name: (known[name], name))[:50]
    table = classes_table(Classification(), {"m.keras": scores})
    assert note in table
    assert sum(line.startswith("| c") for line in table.splitlines()) == 51  # and the header
