"""Images with any number of labels: from the table to the file on a device, by the numbers."""

import json
import logging
import os

import keras
import numpy as np
import pytest
from helpers import fails, make_recipe
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.output import Output
from kzoo.recipe import Classify, Data, recipe_beside
from kzoo.tasks import Classification, MultiLabel, task_of
from kzoo.tasks.multi_label import all_right
from kzoo.train import train

NAMES = ("blue", "green", "red")  # as they are sorted


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """120 pictures in which each of three colours is there or not, of every combination, and a table of them."""
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(120):
        has = [(number >> bit) % 2 == 1 for bit in range(3)]
        pixels = rng.integers(0, 60, (8, 8, 3)) + np.array([180 * has[2], 180 * has[1], 180 * has[0]])
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{number}.png")
        names = [name for name, there in zip(NAMES, has, strict=True) if there]
        lines.append(f"{number}.png,{' + '.join(reversed(names))}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


def recipe_of(table, model: str, **changes):
    settings = dict(name="colours", model=model, dataset=str(table), image_size=8, label_separator="+")
    return make_recipe(**settings | dict(loss="binary_cross_entropy", epochs=1, batch_size=16) | changes)


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    """A run of a network that sees the three colours, and its report."""
    from train.conftest import register_tiny

    with pytest.MonkeyPatch.context() as monkeypatch:
        model = register_tiny(monkeypatch)
        directory = tmp_path_factory.mktemp("run") / "run"
        changes = dict(epochs=12, learning_rate=0.1, export=("float32", "int8"), output_dir=directory)
        recipe = recipe_of(table, model, **changes)
        yield recipe, train(recipe)


def truth_of(files) -> np.ndarray:
    return np.array([[name in file.label.split("+") for name in NAMES] for file in files])


def test_every_picture_has_the_labels_of_its_row(table):
    data = MultiLabel().load(Data(str(table), image_size=8, label_separator="+"), Classify(), 0)
    assert data.classes == NAMES
    seen = 0
    for split in (data.train, data.validation, data.test):
        examples = split.arrays()
        assert (examples["label"].dtype, examples["label"].shape) == (np.dtype("uint8"), (split.size, 3))
        numbers = [int(file.path.removesuffix(".png")) for file in split.files]
        expected = [[(number >> bit) % 2 for bit in range(3)] for number in numbers]
        np.testing.assert_array_equal(examples["label"], expected)
        np.testing.assert_array_equal(truth_of(split.files), expected)
        bright = examples["image"].reshape(-1, 64, 3).mean(axis=1)[:, ::-1] > 100
        np.testing.assert_array_equal(bright, expected)
        seen += split.size
    assert seen == 120


def test_the_run_learns_judges_and_exports_sigmoids(run):
    recipe, report = run
    keras_scores = report["models"]["keras"]
    assert keras_scores["label_accuracy"] > 0.9
    model = keras.saving.load_model(recipe.run_dir / "model.keras")
    output = Output.of_model(model)
    assert output.multi_label
    assert output.class_names == NAMES
    data = task_of(recipe).load(recipe.data, recipe.task, recipe.seed)
    examples = data.test.arrays()
    probabilities = model.predict(examples["image"].astype("float32"), verbose=0)
    assert not np.allclose(probabilities.sum(axis=1), 1, atol=0.1)
    right = ((probabilities >= 0.5) == examples["label"]).all(axis=1)
    assert keras_scores["accuracy"] == pytest.approx(right.mean())
    for file in ("float32", "int8"):
        assert report["exports"][file]["xnnpack_partitions"] == 1
        assert report["models"][file]["label_accuracy"] > 0.9
    assert report["models"]["float32"]["max_difference"] < 1e-5
    assert "temperature" not in keras_scores
    assert set(report["pictures"]) == {"curves.png", "predictions.png", "ranking.png"}
    card = (recipe.run_dir / "README.md").read_text(encoding="utf-8")
    assert "mean average precision" in card
    assert "top-1" not in card


def test_evaluate_tells_the_same_of_the_file_and_of_another_order_of_classes(run, table, tmp_path, capsys):
    recipe, report = run
    capsys.readouterr()
    main(["evaluate", str(recipe.run_dir / "model.keras"), "--dataset", str(table), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["scores"]["average_precision"] == pytest.approx(report["models"]["keras"]["average_precision"])
    assert told["scores"]["accuracy"] == report["models"]["keras"]["accuracy"]

    elsewhere = keras.saving.load_model(recipe.run_dir / "model.keras")
    image = keras.Input((8, 8, 3))
    mixed = keras.layers.Dense(4, activation="sigmoid")
    shuffled = keras.Model(image, mixed(elsewhere(image)))
    kernel = np.zeros((3, 4))
    kernel[[2, 0, 1], [0, 1, 3]] = 20
    mixed.set_weights([kernel, np.full(4, -10.0)])
    names = ["red", "blue", "another", "green"]
    kzoo.with_classes(shuffled, names).save(tmp_path / "shuffled.keras")
    command = ["evaluate", str(tmp_path / "shuffled.keras"), "--dataset", str(table), "--label-separator", "+"]
    main([*command, "--seed", "0", "--json", "--output", str(tmp_path / "judged")])
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "has no 'another': these count as absent from every image" in printed.err
    assert found["scores"]["accuracy"] == told["scores"]["accuracy"]
    for name in NAMES:
        assert found["classes"][name]["recall_by_class"] == told["classes"][name]["recall_by_class"]
    assert found["classes"]["another"]["support_by_class"] == 0
    assert (tmp_path / "judged" / "ranking.png").exists()


def test_an_integer_file_is_made_again_with_images_and_labels_of_the_table(run, table, tmp_path, capsys):
    recipe, _ = run
    command = ["export", str(recipe.run_dir / "folded.keras"), str(tmp_path / "again.tflite"), "--precision", "int8"]
    capsys.readouterr()
    main([*command, "--dataset", str(table), "--evaluate", "24"])
    header, row, *_ = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    told = dict(zip(header, row, strict=True))
    assert float(told["accuracy"]) > 0.6
    assert float(told["same labels"].rstrip("%")) > 90


def test_the_loss_is_the_mean_binary_cross_entropy_of_the_labels(table, tiny):
    rng = np.random.default_rng(1)
    targets, logits = rng.integers(0, 2, (5, 3)).astype("float32"), rng.normal(0, 3, (5, 3)).astype("float32")
    for smoothing in (0.0, 0.2):
        recipe = recipe_of(table, tiny, label_smoothing=smoothing)
        smooth = targets * (1 - smoothing) + smoothing / 2
        p = 1 / (1 + np.exp(-logits.astype("float64")))
        expected = -np.mean(smooth * np.log(p) + (1 - smooth) * np.log(1 - p))
        assert float(task_of(recipe).loss(recipe, None, None)(targets, logits)) == pytest.approx(expected, rel=1e-5)


def test_an_image_is_right_if_all_its_labels_are():
    logits = np.array([[2.0, -1, 3], [0.1, -1, -3], [-2, 1, -3], [np.nan, 1, 1]])
    truth = np.array([[1.0, 0, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(all_right(truth, logits), [1, 0, 1, 0])


def test_mixed_images_have_the_labels_of_both(table, tiny):
    recipe = recipe_of(table, tiny, mixup=1.0)
    task, data = task_of(recipe), task_of(recipe).load(recipe.data, recipe.task, 0)
    for images, targets in task.training(recipe, data, 0):
        bright = np.asarray(images).reshape(-1, 64, 3).mean(axis=1)[:, ::-1]
        np.testing.assert_allclose((bright - 29.5) / 180, np.asarray(targets), atol=0.05)


@pytest.fixture
def tiny(monkeypatch) -> str:
    from train.conftest import register_tiny

    return register_tiny(monkeypatch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(loss="cross_entropy"), "loss='cross_entropy' is for one class for each image"),
        (dict(class_weights="balanced"), "class_weights is for one class for each image"),
        (dict(balanced_sampling=True), "balanced_sampling is for one class for each image"),
    ],
)
def test_what_is_for_one_class_is_refused_before_any_image_is_looked_at(changes, message, table, tiny, monkeypatch):
    monkeypatch.setattr(MultiLabel, "load", lambda *_: pytest.fail("read"))
    with pytest.raises(InvalidValueError, match=message):
        train(recipe_of(table, tiny, **changes))


def test_where_no_table_is_a_separator_is_refused_and_where_none_is_given_the_model_says_so(table, run, capsys):
    with pytest.raises(DatasetError, match=r"label_separator='\+' is for tables .*; digits is none"):
        MultiLabel().load(Data("digits", label_separator="+"), Classify(), 0)
    with pytest.raises(DatasetError, match="is for tables"):
        MultiLabel().load(Data(str(table.parent), label_separator="+"), Classify(), 0)
    with pytest.raises(InvalidValueError, match="must be a text that can be seen"):
        Data("x.csv", label_separator=" ")
    model = run[0].run_dir / "model.keras"
    assert "is read as one class for each image: give a table" in fails(
        capsys, "evaluate", str(model), "--dataset", str(table.parent)
    )
    one = kzoo.build("cifar_resnet20", input_shape=(8, 8, 3), num_classes=3)
    one.save(table.parent / "one.keras")
    command = ("evaluate", str(table.parent / "one.keras"), "--dataset", str(table), "--label-separator", "+")
    assert "label_separator='+' is for images with any number of classes" in fails(capsys, *command)
    assert "--temperature is for one class for each image" in fails(
        capsys, "evaluate", str(model), "--dataset", str(table), "--temperature"
    )


def test_pictures_without_labels_calibrate_too(table):
    images = MultiLabel().images(Data(str(table), image_size=8, label_separator="+"), 40)
    assert images.shape == (40, 8, 8, 3)


def test_a_separator_that_no_label_has_is_told(table, caplog):
    lone = table.with_name("lone.csv")
    lone.write_text("\n".join(line.split(" ")[0] for line in table.read_text().splitlines()))
    with caplog.at_level(logging.WARNING):
        data = MultiLabel().load(Data(str(lone), image_size=8, label_separator="|"), Classify(), 0)
    assert "has no image with two labels, such as 'a|b'" in caplog.text
    assert data.classes == NAMES


def test_a_wrong_separator_is_one_line_with_the_right_one(run, table, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", str(run[0].run_dir / "model.keras"), "--dataset", str(table), "--label-separator", "|"])
    (line,) = capsys.readouterr().err.splitlines()
    told = "label_separator='|' parts no label, and 'green + blue' has '+' between labels; give label_separator='+'"
    assert line == f"kzoo: {table}: {told}"


def test_a_class_that_a_row_names_twice_counts_once_and_is_told_once(table, caplog):
    twice = table.with_name("twice.csv")
    lines = table.read_text().splitlines()
    lines[2:4] = ["1.png,blue + blue", "2.png,green+blue + green"]
    twice.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        data = MultiLabel().load(Data(str(twice), image_size=8, label_separator="+"), Classify(), 0)
    same = MultiLabel().load(Data(str(table), image_size=8, label_separator="+"), Classify(), 0)
    told = f"{twice}, line 3: label 'blue + blue' names a class twice, which counts once; so does 1 more row"
    assert [record.message for record in caplog.records if "twice" in record.message] == [told]
    labels = {file.path: file.label for split in (data.train, data.validation, data.test) for file in split.files}
    assert (labels["1.png"], labels["2.png"], data.classes) == ("blue", "blue+green", same.classes)


def test_the_report_of_a_run_is_found_wherever_its_pictures_are_named_from(run, table, tmp_path, monkeypatch, capsys):
    model = run[0].run_dir / "model.keras"
    monkeypatch.chdir(table.parent)
    for place, spelled in ((table.parent, "labels.csv"), (tmp_path, os.path.relpath(table, tmp_path))):
        monkeypatch.chdir(place)
        assert recipe_beside(model, spelled)["label_separator"] == "+"
    (tmp_path / "labels.csv").touch()
    assert recipe_beside(model, "labels.csv") == {}


def test_a_recipe_of_one_class_stays_one_of_classification(tiny):
    assert type(task_of(make_recipe(name="x", model=tiny, dataset="digits"))) is Classification


def test_a_run_that_stopped_goes_on(table, tiny, tmp_path, capsys):
    recipe = recipe_of(table, tiny, epochs=1, output_dir=tmp_path / "run")
    train(recipe)
    capsys.readouterr()
    train(recipe.replace(epochs=2))
    assert "resuming after 1 of 2 epochs" in capsys.readouterr().out
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


def test_images_none_of_which_has_a_label_are_judged(run, table, tmp_path, capsys):
    lines = table.read_text().splitlines()
    empty = table.with_name("none.csv")
    empty.write_text("\n".join([lines[0], *(line.split(",")[0] + "," for line in lines[1:9])]))
    command = ["evaluate", str(run[0].run_dir / "model.keras"), "--dataset", str(empty), "--label-separator", "+"]
    capsys.readouterr()
    main([*command, "--split", "all", "--json", "--output", str(tmp_path / "out")])
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 8
    assert all(row["support_by_class"] == 0 for row in told["classes"].values())
    assert not (tmp_path / "out" / "ranking.png").exists(), "no class has curves"


def test_lists_of_a_parquet_file_are_labels(table):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"path": [f"{number}.png" for number in range(120)], "label": []}
    for number in range(120):
        rows["label"].append([name for bit, name in enumerate(NAMES) if (number >> bit) % 2])
    parquet.write_table(pyarrow.table(rows), table.with_name("lists.parquet"))
    options = dict(image_size=8, label_separator="+")
    found = MultiLabel().load(Data(str(table.with_name("lists.parquet")), **options), Classify(), 0)
    same = MultiLabel().load(Data(str(table), **options), Classify(), 0)
    assert {*found.train.files} == {*same.train.files}
    with pytest.raises(DatasetError, match=r"row 1: label holds a list; .* read with a label_separator"):
        Classification().load(Data(str(table.with_name("lists.parquet")), image_size=8), Classify(), 0)
    with pytest.raises(DatasetError, match="the label 'blue' holds 'e'; take another separator"):
        MultiLabel().load(
            Data(str(table.with_name("lists.parquet")), image_size=8, label_separator="e"), Classify(), 0
        )
