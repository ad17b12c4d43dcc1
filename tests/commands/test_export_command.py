"""`kzoo export`: one file, several, their cards and reports, and mistakes."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import converted_once, fails, pixels, randomise
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge import LiteRTModel
from kzoo.predict.classifier import open_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of three classes, folders of images for it, and names of the classes."""
    directory = tmp_path_factory.mktemp("model")
    model = kzoo.build("cifar_resnet20", input_shape=(16, 16, 3), depths=(1, 1), widths=(8, 16), num_classes=3)
    randomise(model).save(directory / "model.keras")
    for split, count in (("train", 6), ("test", 4)):
        for label in ("x", "y", "z"):
            folder = directory / "images" / split / label
            folder.mkdir(parents=True)
            for i, image in enumerate(pixels(count, 16, 16, 3, seed=ord(label))):
                Image.fromarray(image.astype("uint8")).save(folder / f"{i}.png")
    (directory / "names.txt").write_text("left\nright\nup\n")
    with converted_once():
        yield directory


@pytest.mark.quick
def test_one_file_and_its_card(model, tmp_path, capsys):
    output = tmp_path / "model.tflite"
    main(["export", str(model / "model.keras"), str(output), "--labels", str(model / "names.txt"), "--threads", "1"])
    told = capsys.readouterr().out
    (row,) = (line for line in told.splitlines() if line.startswith("float32\t"))
    cells = row.split("\t")
    assert cells[1:3] == [f"{output.stat().st_size / 1e6:.2f} MB", "1"]
    assert cells[-1].endswith(" ms")
    assert "multiply-adds" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.tflite", "model.tflite.json"]
    assert open_classifier(str(output)).class_names == ("left", "right", "up")
    main(["predict", str(output), str(model / "images/test/x/0.png")])
    assert "left" in capsys.readouterr().out


def test_several_precisions_with_reports(model, tmp_path, capsys):
    arguments = ["--precision", "float32", "int8", "--dataset", str(model / "images"), "--evaluate", "12", "--report"]
    main(["export", str(model / "model.keras"), str(tmp_path), *arguments])
    names = {f"cifar_resnet20_{precision}" for precision in ("float32", "int8")}
    expected = {f"{name}{end}" for name in names for end in (".tflite", ".tflite.json", "_report.json", "_report.md")}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"precisions.png"}
    report = json.loads((tmp_path / "cifar_resnet20_int8_report.json").read_text())
    assert len(report["layers"]) == 10
    test = [(name, path) for i, name in enumerate("xyz") for path in sorted((model / "images/test" / name).iterdir())]
    images = np.stack([np.asarray(Image.open(path), "float32") for _, path in test])
    labels = np.array(["xyz".index(name) for name, _ in test])
    answers = np.argmax(keras.saving.load_model(model / "model.keras")(images), axis=-1)
    assert report["scores"]["accuracy"]["keras"] == pytest.approx(np.mean(answers == labels))
    told = capsys.readouterr().out
    assert f"Keras: accuracy {report['scores']['accuracy']['keras']:.4f}" in told
    (row,) = (line for line in told.splitlines() if line.startswith("int8\t"))
    assert row.endswith(f"\t{report['scores']['accuracy']['file']:.4f}")


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_other_types_of_input_and_output(io, model, tmp_path, capsys):
    output = tmp_path / "model.tflite"
    data = ["--precision", "int8", "--dataset", str(model / "images")]
    main(["export", str(model / "model.keras"), str(output), *data, "--io", io])
    lite = LiteRTModel(output)
    assert {lite.input["dtype"].__name__, lite.output["dtype"].__name__} == {io}
    capsys.readouterr()
    main(["predict", str(output), str(model / "images/test/x/0.png")])
    assert "0.png" in capsys.readouterr().out


def test_auxiliary_heads_on_request(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    names = "head", "auxiliary1", "auxiliary2"
    net = keras.Model(inputs, {name: keras.layers.Dense(3, name=name)(x) for name in names})
    net.save(tmp_path / "model.keras")
    main(["export", str(tmp_path / "model.keras"), str(tmp_path / "model.tflite"), "--auxiliary"])
    assert list(LiteRTModel(tmp_path / "model.tflite").outputs) == list(net.output)


def test_auto(model, tmp_path, capsys):
    output = tmp_path / "model.tflite"
    main(["export", str(model / "model.keras"), str(output), "--precision", "auto"])
    precision = json.loads((tmp_path / "model.tflite.json").read_text())["precision"]
    assert precision in ("float32", "float16", "int8_weights", "int8_dynamic", "int4_weights")
    assert f"\n{precision}\t" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "arguments", "message"),
    [
        ("files", (), "must end in .tflite"),
        ("one.tflite", ("--precision", "all"), "is one file; for several precisions give a folder"),
        ("one.tflite", ("--precision", "int8_dynamic", "float16"), "is one file"),
        ("files", ("--precision", "auto", "float16"), "it stands alone"),
        ("one.tflite", ("--evaluate", "5"), "--evaluate needs the images of a --dataset"),
        ("one.tflite", ("--evaluate", "-1"), "--evaluate -1"),
        ("one.tflite", ("--images", "0"), "--images 0 must be at least 1"),
        ("one.tflite", ("--precision", "int16x8"), "precision='int16x8' needs calibration images"),
        ("one.tflite", ("--io", "uint8"), "io='uint8' is of files whose activations are 8-bit integers"),
        ("one.tflite", ("--auxiliary",), "has no auxiliary heads; leave --auxiliary out"),
        ("one.tflite", ("--threads", "0"), "threads=(0,) must be a tuple of positive integers"),
        ("one.tflite", ("--weights", "imagenet"), "has its own weights"),
        ("one.tflite", ("--labels", "absent.txt"), "cannot read the labels in absent.txt"),
        ("one.tflite", ("--dataset", "digits", "--evaluate", "5"), "gives 3 classes, digits has 10"),
        ("model.keras/one.tflite", (), "cannot write to"),
    ],
)
def test_mistakes(model, output, arguments, message, capsys):
    before = sorted(model.iterdir())
    assert message in fails(capsys, "export", str(model / "model.keras"), str(model / output), *arguments)
    assert sorted(model.iterdir()) == before


def test_normalisation_of_pixels_folds_on_request(model, tmp_path):
    plain, folded = tmp_path / "plain.tflite", tmp_path / "folded.tflite"
    main(["export", str(model / "model.keras"), str(plain)])
    main(["export", str(model / "model.keras"), str(folded), "--fold-preprocessing"])
    scaling = {"MUL", "SUB", "ADD", "DIV"}
    plain, folded = LiteRTModel(plain), LiteRTModel(folded)
    sums = folded.op_histogram()["ADD"]  # of the shortcuts
    assert {op: count for op, count in folded.op_histogram().items() if op in scaling} == {"ADD": sums}
    assert sum(plain.op_histogram().get(op, 0) for op in scaling) > sums
    images = pixels(3, 16, 16, 3)
    np.testing.assert_allclose(folded.predict(images), plain.predict(images), atol=1e-5)


def test_a_report_in_this_folder_says_nothing_of_a_model_of_the_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("report.json").write_text(json.dumps({"recipe": {"dataset": "digits", "validation_fraction": "half"}}))
    main(["export", "cifar_resnet20", "file.tflite", "--dataset", "digits", "--images", "4", "--evaluate", "4"])
    assert Path("file.tflite").exists()
