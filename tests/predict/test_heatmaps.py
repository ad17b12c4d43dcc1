"""`kzoo predict --heatmap`: the map of the most probable class over the image, of models and of files."""

import json

import keras
import numpy as np
import pytest
from helpers import fails, pixels
from keras import layers
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.images.overlay import HEAT, OPACITY, draw_heatmap
from kzoo.predict.classifier import open_model
from kzoo.predict.heatmaps import heatmaps_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier that sees red on the left and green on the right of a picture, as file and as model."""
    folder = tmp_path_factory.mktemp("heatmaps")
    image = keras.Input((8, 12, 3), name="image")
    x = layers.AveragePooling2D(4, name="features")(layers.Rescaling(1 / 255)(image))
    dense = layers.Dense(2, activation="softmax")
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(x)))
    dense.set_weights([np.array([[9.0, -1], [-1, 7], [0, 0]]), np.zeros(2)])
    model = kzoo.with_classes(model, ["red", "green"])
    model.save(folder / "model.keras")
    kzoo.export(model, folder / "maps.tflite", heatmap=True)
    kzoo.export(model, folder / "plain.tflite")
    picture = np.zeros((8, 12, 3), "uint8")
    picture[:, :4, 0] = picture[:, 8:, 1] = 200
    Image.fromarray(picture).save(folder / "picture.png")
    return folder


@pytest.mark.parametrize("name", ["model.keras", "maps.tflite"])
def test_the_most_probable_class_is_tinted_where_it_is(folder, name, tmp_path, capsys):
    command = ["predict", str(folder / name), str(folder / "picture.png"), "--heatmap"]
    main([*command, "--output-dir", str(tmp_path / "out"), "--json"])
    (told,) = json.loads(capsys.readouterr().out)
    assert told["predictions"][0]["class"] == "red"
    assert told["heatmap"] == str(tmp_path / "out" / "picture_heatmap.png")
    drawn = np.asarray(Image.open(told["heatmap"]), "float32")
    scale = drawn.shape[1] // 12
    assert drawn.shape == (8 * scale, 12 * scale, 3)
    left, middle = drawn[4 * scale, 2 * scale], drawn[4 * scale, int(5.9 * scale)]
    np.testing.assert_allclose(left, 0.299 * 200 * (1 - OPACITY) + OPACITY * np.array(HEAT), atol=3)
    assert middle.max() < 30, "nothing is there"


def test_maps_of_models_and_files_are_equal(folder):
    images = pixels(3, 8, 12, 3)
    found = [heatmaps_of(open_model(str(folder / name)))(images) for name in ("model.keras", "maps.tflite")]
    assert found[0].shape == (3, 2, 3, 2)
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


def test_what_speaks_against_a_class_is_not_tinted():
    drawn = np.asarray(draw_heatmap(np.full((4, 6, 1), 90.0), np.array([[-3.0, -1], [-2, 0]])))
    assert (drawn == 90).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plain.tflite", "picture.png", "--heatmap"), "gives no heat map; export it with --heatmap"),
        (("maps.tflite", "picture.png", "--output-dir", "x"), "--output-dir goes with a model for segmentation"),
    ],
)
def test_mistakes(folder, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert message in fails(capsys, "predict", *arguments)


def test_two_pictures_of_one_name_are_refused(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "picture.png").write_bytes((folder / "picture.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    command = ("predict", str(folder / "maps.tflite"), str(folder / "picture.png"), "picture.png", "--heatmap")
    assert "would both be written as predictions/picture_heatmap.png" in fails(capsys, *command)
    assert not (tmp_path / "predictions").exists()
