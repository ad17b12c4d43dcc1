"""MediaPipe Tasks runs kzoo's files, names the classes and says what kzoo says; skipped where it is not installed."""

import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import pixels
from keras import layers
from PIL import Image

import kzoo
from kzoo.edge import Card, LiteRTModel
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.recipe import recipe_dir

mediapipe = pytest.importorskip("mediapipe", reason="pip install mediapipe")
vision = pytest.importorskip("mediapipe.tasks.python.vision")
SHAPE = (19, 27, 3)
NAMES = ("né", "猫 и собака", "c")
SAMPLE = recipe_dir() / "samples" / "python" / "mediapipe_tasks.py"


def options(path: Path) -> dict:
    from mediapipe.tasks.python import BaseOptions

    return {"base_options": BaseOptions(model_asset_path=str(path))}


def picture(image: np.ndarray):
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)


def classified(path: Path, image: np.ndarray) -> dict[str, float]:
    """Name of each class that MediaPipe tells -> its score."""
    with vision.ImageClassifier.create_from_options(vision.ImageClassifierOptions(**options(path))) as runner:
        (found,) = runner.classify(picture(image)).classifications
    return {each.category_name: each.score for each in found.categories}


def exported(tmp_path: Path, units: int, activation: str | None, maps: bool, names, precision="float32", io=None):
    """A file, and its model."""
    keras.utils.set_random_seed(units)
    image = keras.Input(SHAPE)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.Rescaling(1 / 127.5, -1)(image))
    wide = keras.initializers.RandomNormal(stddev=2)
    if maps:
        outputs = layers.Conv2D(units, 1, activation=activation, kernel_initializer=wide)(x)
    else:
        outputs = layers.Dense(units, activation, kernel_initializer=wide)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, outputs)
    path = tmp_path / "model.tflite"
    card = Card(Output.of_model(model, names), Pixels("stretch"))
    kzoo.export(model, path, precision, pixels(24, *SHAPE), card=card, io=io)
    return path, card.output


@pytest.mark.parametrize(("precision", "io"), [("float32", None), ("int8", "uint8"), ("int8", "float32")])
def test_the_image_classifier_names_the_classes_and_says_what_kzoo_says(precision, io, tmp_path):
    path, output = exported(tmp_path, 3, "softmax", False, NAMES, precision, io)
    image = pixels(1, *SHAPE, seed=4)[0].astype("uint8")
    found = classified(path, image)
    expected = dict(zip(NAMES, output.probabilities(LiteRTModel(path).predict(image[None]))[0], strict=True))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("units", "activation", "names"), [(3, "sigmoid", NAMES), (1, None, ("no", "yes"))])
def test_scores_are_those_of_kzoo_for_several_labels_and_for_one_logit(units, activation, names, tmp_path):
    """Of several labels those from one half on are told; one logit becomes a probability by the calibration inside."""
    path, output = exported(tmp_path, units, activation, False, names)
    image = pixels(1, *SHAPE, seed=4)[0].astype("uint8")
    values = output.probabilities(LiteRTModel(path).predict(image[None]))[0]
    expected = dict(zip(names, values, strict=True))
    told = {name: value for name, value in expected.items() if value >= 0.5} if units > 1 else {"yes": expected["yes"]}
    assert 0 < len(told) < max(2, units)  # else a threshold would show nothing
    assert classified(path, image) == pytest.approx(told, abs=1e-6)


@pytest.mark.parametrize(("units", "activation"), [(3, "softmax"), (3, None), (1, None)])
def test_the_image_segmenter_gives_the_probabilities_of_kzoo(units, activation, tmp_path):
    path, output = exported(tmp_path, units, activation, True, NAMES[: max(2, units)])
    image = pixels(1, *SHAPE, seed=4)[0].astype("uint8")
    with vision.ImageSegmenter.create_from_options(vision.ImageSegmenterOptions(**options(path))) as runner:
        assert runner.labels == list(NAMES[: max(2, units)][-units:])
        maps = np.dstack([each.numpy_view() for each in runner.segment(picture(image)).confidence_masks])
    expected = output.probabilities(LiteRTModel(path).predict(image[None]))[0][..., -units:]
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("maps", [False, True])
def test_the_sample_says_what_kzoo_says(maps, tmp_path, monkeypatch, capsys):
    path, _ = exported(tmp_path, 3, "softmax", maps, NAMES)
    image = pixels(1, *SHAPE, seed=6)[0].astype("uint8")
    Image.fromarray(image).save(tmp_path / "seen.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mediapipe_tasks.py", str(path), "seen.png"])
    capsys.readouterr()
    runpy.run_path(str(SAMPLE), run_name="__main__")
    told = capsys.readouterr().out
    (expected,) = LiteRTModel(path).predict(image[None])
    if maps:
        np.testing.assert_array_equal(np.asarray(Image.open("seen_mask.png")), expected.argmax(axis=-1))
        assert told == f"seen.png: {', '.join(NAMES)}\n"
    else:
        best = np.argsort(-expected)
        assert told == f"seen.png: {', '.join(f'{NAMES[index]} {expected[index]:.2%}' for index in best)}\n"
