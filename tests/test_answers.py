"""What models answer along the whole path: Keras and LiteRT files, in Python and on the command line.

One sigmoid, one logit, several sigmoids, logits and softmaxes, wherever the last operation stands.
"""

import csv
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import fails
from keras import layers
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge import Card, LiteRTModel, read_card
from kzoo.errors import InvalidValueError
from kzoo.output import Output
from kzoo.predict.classifier import as_classifier, open_classifier, open_model
from kzoo.predict.segmenter import as_segmenter

SIZE = (8, 8, 3)
RED, GREEN, BLUE = (250, 20, 10), (10, 240, 30), (20, 30, 245)
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE}
FILES = ("model.keras", "model.tflite")


def classifier(weights, bias, activation=None, *, behind=()) -> keras.Model:
    """A classifier of the mean colour: `activation(weights · colour / 255 + bias)`."""
    image = keras.Input(SIZE)
    dense = layers.Dense(np.shape(weights)[1], activation=activation)
    x = dense(layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image)))
    dense.set_weights([np.array(weights, "float32"), np.array(bias, "float32")])
    for layer in behind:
        x = layer(x)
    return keras.Model(image, x)


def is_red(activation=None) -> keras.Model:
    """One number: class 1 where red is stronger than green."""
    return classifier([[4.0], [-4.0], [0.0]], [0.5], activation)


def has_colours(activation="sigmoid") -> keras.Model:
    """Four sigmoids, each for itself."""
    return classifier([[3.0, -3, 1, 0], [0, 3, 1, -2], [-1, 0, 2, 4]], [-1.0, 0.2, -0.6, -1], activation)


def strongest(activation=None, names_last=(0, 1, 2), **options) -> keras.Model:
    """Three classes: the strongest colour, in any order."""
    return classifier(np.eye(3)[:, list(names_last)] * 6, [0, 0, 0], activation, **options)


def images(seed=0, count=24) -> np.ndarray:
    """Plain colours of all kinds, with a little noise."""
    random = np.random.default_rng(seed)
    colours = random.uniform(10, 245, (count, 1, 1, 3))
    return np.clip(colours + random.normal(0, 4, (count, *SIZE)), 0, 255).astype("float32")


def pictures(folder, colours: dict, count=4):
    """Class folders of plain pictures, for training and test."""
    random = np.random.default_rng(1)
    for split in ("train", "test"):
        for name, colour in colours.items():
            directory = folder / split / name
            directory.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + random.integers(-9, 10, SIZE), 0, 255).astype("uint8")
                Image.fromarray(pixels).save(directory / f"{index}.png")
    return folder


def saved(model: keras.Model, folder, names=None) -> dict:
    """A model as files of both kinds; `names` go into the card."""
    model.save(folder / "model.keras")
    kzoo.export(model, folder / "model.tflite", card=names and Card(Output.of_model(model, names)))
    return {name: str(folder / name) for name in FILES}


def table(text: str) -> dict[str, str]:
    """class -> probability, of what `kzoo predict` prints."""
    rows = re.findall(r"^\d+\t(\S+)\t([\d.]+ ?%)$", text, re.MULTILINE)
    return {name: value.replace(" ", "") for name, value in rows}


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    """One sigmoid with two names, as both kinds of file, with folders of its two classes."""
    folder = tmp_path_factory.mktemp("binary")
    files = saved(is_red("sigmoid"), folder, ("other", "red"))
    pictures(folder / "images", {"other": GREEN, "red": RED})
    (folder / "names.txt").write_text("other\nred\n")
    return folder, files


@pytest.mark.parametrize("file", FILES)
def test_one_sigmoid_is_class_1_against_class_0(binary, file):
    _, files = binary
    opened = open_classifier(files[file])
    expected = is_red("sigmoid").predict(images(), verbose=0)[:, 0]
    assert 0.05 < expected.min() < 0.4 < 0.6 < expected.max() < 0.999
    found = opened.predict(images())
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-5)
    np.testing.assert_allclose(found[:, 0], 1 - expected, atol=1e-5)
    assert opened.class_names == (("other", "red") if file.endswith("tflite") else ("0", "1"))


def test_one_sigmoid_is_named_by_predict_and_judged_by_evaluate(binary, capsys):
    folder, files = binary
    picture = str(folder / "images/test/red/0.png")
    for file in FILES:
        main(["predict", files[file], picture, "--labels", str(folder / "names.txt")])
        shown = table(capsys.readouterr().out)
        value = is_red("sigmoid").predict(np.asarray(Image.open(picture), "float32")[None], verbose=0)[0, 0]
        assert shown == {"red": f"{value:.2%}", "other": f"{1 - value:.2%}"}
        main(["evaluate", files[file], "--dataset", str(folder / "images")])
        assert "100.00%" in capsys.readouterr().out


def test_the_command_exports_one_sigmoid_with_two_names_and_judges_it(binary, capsys, tmp_path):
    folder, files = binary
    arguments = ["--labels", str(folder / "names.txt"), "--dataset", str(folder / "images"), "--evaluate", "8"]
    main(["export", files["model.keras"], str(tmp_path / "x.tflite"), *arguments])
    assert "Keras: accuracy 1.0000" in capsys.readouterr().out
    assert read_card(tmp_path / "x.tflite").output == Output("classification", "sigmoid", 1, ("other", "red"))
    told = json.loads((tmp_path / "x.tflite.json").read_text())
    assert told["output"]["meaning"] == "probability of 'red' against 'other'; from one half on it is the former"
    (tmp_path / "one.txt").write_text("red\n")
    message = fails(
        capsys, "export", files["model.keras"], str(tmp_path / "y.tflite"), "--labels", str(tmp_path / "one.txt")
    )
    assert "labels for 1 class" in message
    assert "has 2" in message


# 11 bits of a half-precision weight; int8 cuts off what is rare in the calibration images, and has 8 bits
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 0.2}


@pytest.mark.parametrize(
    ("precision", "form"),
    [("float32", np.ndarray.tolist), ("int8", lambda labels: labels[:, None]), ("float16", lambda labels: labels > 0)],
)
def test_one_logit_with_perfect_labels_has_accuracy_1(tmp_path, precision, form):
    model, pixels = is_red(), images(3, count=80)
    logits = model.predict(pixels, verbose=0)[:, 0]
    pixels, logits = pixels[np.abs(logits) > 0.1], logits[np.abs(logits) > 0.1]  # 8 bits may turn the others
    labels = (logits >= 0).astype(int)
    assert 0.2 < labels.mean() < 0.8
    assert ((logits > 0) & (logits < 0.5)).any()  # where one half would be the wrong threshold
    report = kzoo.export(model, tmp_path / "m.tflite", precision, pixels, evaluation=(pixels, form(labels)))
    assert report.scores == {"accuracy": {"keras": 1.0, "file": 1.0}}
    assert report.agreement == 1.0
    found = open_classifier(str(tmp_path / "m.tflite")).predict(pixels)[:, 1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=TOLERANCES[precision])


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Four sigmoids as both kinds of file."""
    folder = tmp_path_factory.mktemp("several")
    return folder, saved(has_colours(), folder, ("red", "green", "light", "blue"))


@pytest.mark.parametrize("file", FILES)
def test_independent_sigmoids_stay_as_they_are(several, file):
    _, files = several
    opened = open_classifier(files[file])
    expected = has_colours().predict(images(), verbose=0)
    assert np.abs(expected.sum(axis=1) - 1).max() > 0.5
    np.testing.assert_allclose(opened.predict(images()), expected, atol=1e-5)
    assert opened.multi_label


def test_a_file_of_sigmoids_without_its_card_stays_as_it_is(several, tmp_path):
    _, files = several
    (tmp_path / "bare.tflite").write_bytes(Path(files["model.tflite"]).read_bytes())
    opened = open_classifier(str(tmp_path / "bare.tflite"))
    assert opened.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(opened.predict(images()), LiteRTModel(files["model.tflite"]).predict(images()))


def test_predict_shows_each_class_of_several_by_itself(several, capsys, tmp_path):
    _, files = several
    Image.fromarray(np.full(SIZE, (250, 240, 10), "uint8")).save(tmp_path / "yellow.png")
    main(["predict", files["model.tflite"], str(tmp_path / "yellow.png")])
    text = capsys.readouterr().out
    value = has_colours().predict(np.full((1, *SIZE), (250, 240, 10), "float32"), verbose=0)[0]
    assert table(text) == {
        name: f"{number:.2%}" for name, number in zip(("red", "green", "light", "blue"), value, strict=True)
    }
    assert "by itself" in text


def test_labels_of_several_sigmoids_are_zeros_and_ones(tmp_path):
    model, pixels = has_colours(), images(5)
    right = model.predict(pixels, verbose=0) >= 0.5
    wrong = right.astype("float32")
    wrong[:6, 0] = 1 - wrong[:6, 0]
    report = kzoo.export(model, tmp_path / "m.tflite", evaluation=(pixels, right))
    assert report.scores["label_accuracy"] == report.scores["accuracy"] == {"keras": 1.0, "file": 1.0}
    report = kzoo.export(model, tmp_path / "m.tflite", evaluation=(pixels, wrong.tolist()))
    assert report.scores["label_accuracy"]["file"] == pytest.approx(1 - 6 / 96)
    assert report.scores["accuracy"]["file"] == pytest.approx(1 - 6 / 24)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(24, int), r"labels of shape \(24,\) and type int64; 0 and 1 of shape \(24, 4\) are needed"),
        (np.full((24, 4), 2), "labels other than 0 and 1"),
        (np.full((24, 4), 0.5), "labels other than 0 and 1"),
    ],
)
def test_other_labels_of_several_sigmoids_are_refused_before_the_conversion(tmp_path, labels, message, monkeypatch):
    monkeypatch.setattr("kzoo.edge.exporting.convert", lambda *_: pytest.fail("converted"))
    with pytest.raises(InvalidValueError, match=message):
        kzoo.export(has_colours(), tmp_path / "m.tflite", evaluation=(images(), labels))


def wrapped(model: keras.Model) -> keras.Model:
    image = keras.Input(SIZE)
    return keras.Model(image, model(layers.RandomFlip()(image)))


LOGITS = {
    "dropout behind the head": lambda: strongest(behind=(layers.Dropout(0.5),)),
    "behind a random flip": lambda: wrapped(strongest()),
    "Sequential": lambda: keras.Sequential([keras.Input(SIZE), strongest()]),
    "Sequential in functional in Sequential": lambda: keras.Sequential(
        [keras.Input(SIZE), wrapped(keras.Sequential([keras.Input(SIZE), strongest(), layers.Dropout(0.1)]))]
    ),
    "softmax behind dropout": lambda: strongest(behind=(layers.Dropout(0.5), layers.Softmax())),
    "one head of two": lambda: one_head_of_two(),
}


def one_head_of_two() -> keras.Model:
    model = strongest()
    both = keras.Model(model.input, {"colour": model.output, "other": layers.Dense(2, "sigmoid")(model.output)})
    with pytest.raises(InvalidValueError, match=r"has 2 outputs .*; a model with one is needed: keras\.Model"):
        Output.of_model(both)
    return keras.Model(both.input, both.output["colour"])


@pytest.mark.parametrize("kind", LOGITS)
def test_logits_become_probabilities_wherever_the_head_stands(kind, tmp_path, capsys):
    model = LOGITS[kind]()
    model.save(tmp_path / "s.keras")
    expected = strongest("softmax").predict(images(), verbose=0)
    found = open_classifier(str(tmp_path / "s.keras")).predict(images())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    Image.fromarray(images()[0].astype("uint8")).save(tmp_path / "x.png")
    main(["predict", str(tmp_path / "s.keras"), str(tmp_path / "x.png")])
    assert len(table(capsys.readouterr().out)) == 3


def test_classes_of_a_folder_are_matched_by_name(tmp_path, capsys):
    """The model gives blue, red, green; the folder has blue, green, red."""
    saved(strongest("softmax", names_last=(2, 0, 1)), tmp_path)
    (tmp_path / "names.txt").write_text("blue\nred\ngreen\n")
    folder = pictures(tmp_path / "images", COLOURS)
    model, output = str(tmp_path / "model.keras"), str(tmp_path / "x.tflite")
    options = ["--labels", str(tmp_path / "names.txt"), "--dataset", str(folder)]
    main(["export", model, output, *options, "--evaluate", "12"])
    assert "Keras: accuracy 1.0000" in capsys.readouterr().out
    for arguments in ([output, "--dataset", str(folder)], [model, *options]):
        main(["evaluate", *arguments])
        assert "100.00%" in capsys.readouterr().out
    other = pictures(tmp_path / "other", {"rot": RED, "green": GREEN, "blue": BLUE}, count=2)
    message = fails(capsys, "evaluate", str(tmp_path / "x.tflite"), "--dataset", str(other))
    assert "has 'rot', which" in message
    assert "made for classes 'blue', 'red', 'green'" in message
    assert "--labels" in message


def test_a_folder_with_some_of_the_classes_is_judged_by_name_over_those_that_occur(tmp_path, capsys):
    """The model gives blue, red, green; the folder has red ones, and green ones of which one is blue."""
    strongest("softmax", names_last=(2, 0, 1)).save(tmp_path / "model.keras")
    (tmp_path / "names.txt").write_text("blue\nred\ngreen\n")
    folder = pictures(tmp_path / "images", {"green": GREEN, "red": RED}, count=3)
    Image.new("RGB", SIZE[:2], BLUE).save(folder / "test" / "green" / "0.png")
    command = [str(tmp_path / "model.keras"), "--labels", str(tmp_path / "names.txt"), "--dataset", str(folder)]
    main(["evaluate", *command, "--json", "--output", str(tmp_path / "out")])
    found = json.loads(capsys.readouterr().out)
    assert found["scores"]["accuracy"] == pytest.approx(5 / 6)
    assert found["scores"]["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2), "blue never occurs"
    assert found["scores"]["macro_f1"] == pytest.approx((1 + 0.8) / 2)
    assert {name: row["support_by_class"] for name, row in found["classes"].items()} == {
        "blue": 0,
        "red": 3,
        "green": 3,
    }
    with (tmp_path / "out" / "confusion.csv").open(newline="") as file:
        rows = [row[1:] for row in csv.reader(file)]
    assert rows == [["blue", "red", "green"], ["0", "0", "0"], ["0", "3", "0"], ["1", "0", "2"]]


class Doubled(keras.layers.Layer):
    """Somebody's own last layer, of which nobody knows what it gives."""

    def call(self, x):
        return keras.ops.softmax(2 * x)


@pytest.mark.parametrize("units", [1, 3])
def test_a_last_layer_of_ones_own_is_unknown_until_the_user_says(units, tmp_path):
    keras.saving.register_keras_serializable("tests")(Doubled)
    model = classifier(np.ones((3, units)) * 2, [0.1] * units, behind=(Doubled(),))
    model.save(tmp_path / "own.keras")
    path = str(tmp_path / "own.keras")
    with pytest.raises(InvalidValueError, match=r"own\.keras does not tell whether .*; say --values softmax, sigmoid"):
        open_classifier(path)
    np.testing.assert_allclose(
        open_classifier(path, values="softmax").predict(images())[:, -units:], model.predict(images(), verbose=0)
    )
    output = Output("classification", "softmax", units)
    report = kzoo.export(model, tmp_path / "own.tflite", card=Card(output))
    assert report.agreement == 1.0
    assert read_card(tmp_path / "own.tflite").output == output
    if units == 1:  # of several the largest is the answer, whatever they are
        assert kzoo.export(model, tmp_path / "unsaid.tflite").agreement is None
    strongest().save(tmp_path / "logits.keras")
    with pytest.raises(InvalidValueError, match=r"values='softmax': .*logits\.keras ends in logits; leave values out"):
        open_model(str(tmp_path / "logits.keras"), values="softmax")


def test_no_images_have_no_answers(several):
    found = LiteRTModel(several[1]["model.tflite"]).predict(np.zeros((0, *SIZE)))
    assert found.shape == (0, 4)
    assert found.dtype == "float32"
    with pytest.raises(InvalidValueError, match="takes images of shape"):
        LiteRTModel(several[1]["model.tflite"]).predict(np.zeros((0, 4, 4, 3)))


def test_maps_of_one_sigmoid_are_the_second_of_two_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = keras.Input((16, 16, 3))
    conv = layers.Conv2D(1, 1, activation="sigmoid")
    model = keras.Model(image, layers.Dropout(0.5)(conv(layers.Rescaling(1 / 255)(image))))
    conv.set_weights([np.array([6.0, -6, 0]).reshape(1, 1, 3, 1), np.array([0.5])])
    pixels = np.where(np.arange(16)[None, :, None] < 5, RED, GREEN).repeat(16, axis=0).astype("uint8")
    masks = np.zeros((1, 16, 16), int)
    masks[:, :, :5] = 1
    card = Card(Output.of_model(model, ("grass", "poppy")))
    report = kzoo.export(model, "m.tflite", card=card, evaluation=(pixels[None], masks))
    assert report.scores["mean_iou"] == {"keras": 1.0, "file": 1.0}
    model.save("m.keras")
    Image.fromarray(pixels).save("x.png")
    for file in ("m.keras", "m.tflite"):
        np.testing.assert_array_equal(as_segmenter(open_model(file)).segment(Image.fromarray(pixels)), masks[0])
    main(["predict", "m.tflite", "x.png"])
    assert "poppy\t80\t31.25%" in capsys.readouterr().out
    with pytest.raises(InvalidValueError, match=r"m\.keras is no classifier: its output is \(None, 16, 16, 1\)"):
        as_classifier(open_model("m.keras"))
