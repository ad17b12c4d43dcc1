"""The card beside a file: what it tells, older ones, and what cannot be right, each one line."""

import hashlib
import json

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import pixels
from keras import layers

import kzoo
from kzoo.edge import Card, read_card
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.predict.classifier import open_classifier

NAMES = ("left", "right", "up")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file of three classes whose card was not touched."""
    path = tmp_path_factory.mktemp("card") / "model.tflite"
    image = keras.Input((8, 8, 3))
    outputs = layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image)))
    model = keras.Model(image, outputs, name="three")
    card = Card(Output.of_model(model, NAMES), Pixels("pad", interpolation="bicubic"))
    kzoo.export(model, path, card=card)
    return path, card, json.loads(path.with_name("model.tflite.json").read_text())


@pytest.fixture
def with_card(exported, tmp_path):
    """Writes a card beside a copy of the file; gives the path of the file."""
    path = tmp_path / "model.tflite"
    path.write_bytes(exported[0].read_bytes())

    def write(told) -> str:
        card = path.with_name("model.tflite.json")
        card.write_text(told if isinstance(told, str) else json.dumps(told))
        return str(path)

    return write


def test_a_card_comes_back_as_it_was_written(exported):
    path, card, told = exported
    assert read_card(path) == card
    assert card.output.class_names == NAMES
    assert (told["kzoo_card"], told["model"], told["precision"]) == (3, "three", "float32")
    assert told["input"]["preprocessing"] == "(x - 0) / 255 is computed by the file"
    assert told["output"]["meaning"] == "probability of each class; they sum to 1"


def test_a_card_tells_what_a_program_without_kzoo_needs(exported):
    path, _, told = exported
    (name, names), *others = Interpreter(str(path)).get_signature_list().items()
    assert not others
    assert told["signature"] == name
    assert (told["input"]["argument"], told["output"]["argument"]) == (names["inputs"][0], names["outputs"][0])
    (given,), (wanted,) = Interpreter(str(path)).get_input_details(), Interpreter(str(path)).get_output_details()
    assert (told["input"]["name"], told["output"]["name"]) == (given["name"], wanted["name"])
    assert (told["layout"], told["kzoo"], told["measured"]) == ("NHWC", kzoo.__version__, {})
    assert told["license"].startswith("Apache-2.0 for what is of kzoo")
    assert told["formula"].startswith("real = scale * (integer - zero_point); integer = round(real / scale) + zero_p")
    assert told["how"][1] == (
        "Resize it in its proportions to fit into 8 x 8 pixels (height x width): one side is that long, the other one "
        "rounded down; bicubic (a = -0.5) with antialiasing, which means a filter that widens as the picture shrinks."
    )


def test_a_card_tells_what_was_measured_and_on_how_many_images(tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(image)))
    images = pixels(7, 8, 8, 3)
    labels = np.arange(7) % 3
    report = kzoo.export(model, tmp_path / "m.tflite", evaluation=(images, labels))
    told = json.loads((tmp_path / "m.tflite.json").read_text())["measured"]
    right = np.mean(np.argmax(model.predict(images, verbose=0), axis=-1) == labels)
    assert told == {"accuracy": {"value": report.scores["accuracy"]["file"], "images": 7}}
    assert told["accuracy"]["value"] == pytest.approx(right)


def test_a_card_of_version_2_is_read(exported, with_card):
    """It told less of the file, and the same of pixels and output."""
    _, card, told = exported
    old = {name: told[name] for name in ("sha256", "model", "precision", "input", "pixels", "output")}
    assert read_card(with_card({"kzoo_card": 2} | old)) == card


def test_a_card_of_version_1_is_read(exported, with_card):
    _, _, told = exported
    old = {
        "kzoo_card": 1,
        "sha256": told["sha256"],
        "task": "classification",
        "input": {"shape": [1, 8, 8, 3], "crop": 0.9, "interpolation": "bicubic"},
        "output": {"shape": [1, 3], "dtype": "float32", "values": "probabilities"},
        "classes": list(NAMES),
    }
    found = read_card(with_card(old))
    assert found == Card(Output("classification", "softmax", 3, NAMES), Pixels("crop", 0.9, "bicubic"))
    assert read_card(with_card(old | {"classes": None})).output.class_names is None
    for wrong in ({"classes": "abc"}, {"classes": [1, 2, 3]}, {"input": None}, {"input": {"crop": 0}}):
        with pytest.raises(InvalidValueError, match=r"the card .* cannot be right: .*; remove it or export again"):
            read_card(with_card(old | wrong))


WRONG = {
    **{
        f"crop {crop!r}": ("pixels", {"resize": "crop", "crop": crop, "interpolation": "bilinear"})
        for crop in (1e-4, 0, -1, None, "a", [], 5, True, {})
    },
    "interpolation": ("pixels", {"resize": "crop", "crop": 1.0, "interpolation": "nearest"}),
    "interpolation of a list": ("pixels", {"resize": "crop", "crop": 1.0, "interpolation": ["bilinear"]}),
    "resize": ("pixels", {"resize": "squeeze", "crop": 1.0, "interpolation": "bilinear"}),
    "no crop": ("pixels", {"resize": "crop", "interpolation": "bilinear"}),
    "pixels as a list": ("pixels", []),
    "output as text": ("output", "softmax"),
    **{
        f"names {names!r}": ("names", names)
        for names in ("abc", {"a": 1}, [1, 2, 3], ["a", "b"], 7, [None] * 3, [["a"]] * 3)
    },
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_card_that_cannot_be_right_is_refused_in_one_line(kind, exported, with_card):
    field, value = WRONG[kind]
    told = json.loads(json.dumps(exported[2]))
    if field == "names":
        field, value = "output", told["output"] | {"class_names": value}
    path = with_card(told | {field: value})
    for read in (read_card, open_classifier):
        with pytest.raises(InvalidValueError, match=r"the card .*; remove it or export again") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        '{"kzoo_card": 3, "pixels": {"crop": NaN}}',
        '{"a": ' * 5000 + "1" + "}" * 5000,
        "\ud800",
        "\x00",
    ],
)
def test_what_is_no_json_is_refused_in_one_line(text, exported, with_card, tmp_path):
    path = with_card("{}")
    (tmp_path / "model.tflite.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidValueError, match=r"cannot read the card .*; remove it or export again") as caught:
        read_card(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (7, "version 7; 1 to 3 are read; update kzoo, remove it or export again"),
        (0, "version 0; 1 to 3 are read; remove it or export again"),
        ({}, "version {}; 1 to 3 are read; remove it or export again"),
        (None, "version None; 1 to 3 are read; remove it"),
        (True, "version True; 1 to 3 are read; remove it"),
        (2.0, "version 2.0; 1 to 3 are read; remove it"),
        ("2\n" * 99, r"version '2\\n2.*…; 1 to 3 are read; remove it"),
    ],
)
def test_a_card_of_an_unknown_version_is_refused_in_one_line(version, message, exported, with_card):
    path = with_card(exported[2] | {"kzoo_card": version})
    with pytest.raises(InvalidValueError, match=rf"the card .*model.tflite.json has {message}") as caught:
        read_card(path)
    assert "\n" not in str(caught.value)


def test_a_card_of_another_output_is_refused(exported, with_card):
    told = exported[2]
    for wrong in ({"units": 4, "class_names": None}, {"task": "segmentation"}):
        path = with_card(told | {"output": told["output"] | wrong})
        with pytest.raises(InvalidValueError, match=r"the card of .* and the file gives 3 for classification; remove"):
            open_classifier(path)
    path = with_card(told | {"output": told["output"] | {"values": "logits"}})
    with pytest.raises(InvalidValueError, match=r"the card of .* says logits, and the file ends in softmax; remove"):
        open_classifier(path)


def test_the_hash_ties_a_card_to_its_file(exported, with_card):
    path, _, told = exported
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InvalidValueError, match="is the card of another file than"):
        read_card(with_card(told | {"sha256": "0" * 64}))
    assert read_card(with_card({"somebody": "else's"})) is None


def test_calibration_that_is_no_array_says_how_to_make_one(tmp_path):
    import tensorflow as tf

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(image)))
    images = pixels(6, 8, 8, 3)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(4)
    for name in ("calibration", "evaluation"):
        value = dataset if name == "calibration" else (dataset, np.zeros(6, int))
        with pytest.raises(InvalidValueError, match=rf"{name} has shape \(\): _BatchDataset is no array .* np\.stack"):
            kzoo.export(model, tmp_path / "m.tflite", "int8", **{"calibration": images} | {name: value})
    advised = np.stack(list(dataset.unbatch().take(200).as_numpy_iterator()))
    labels = np.argmax(model.predict(images, verbose=0), axis=-1)
    report = kzoo.export(model, tmp_path / "m.tflite", "int8", advised, evaluation=(images.tolist(), labels.tolist()))
    assert report.scores["accuracy"]["keras"] == 1.0
