"""Files with a heat map: each output as Keras gives it, in one partition, and the answer still the answer."""

import json

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error

import kzoo
from kzoo.cli import main
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.predict.classifier import open_classifier
from kzoo.surgery import with_heatmap


@pytest.fixture(scope="module")
def model():
    model = kzoo.build("cifar_resnet20_se", input_shape=(20, 28, 3), depths=(1, 1), widths=(8, 12), num_classes=5)
    return kzoo.with_classes(randomise(model), list("abcde"))


def test_a_file_gives_the_answer_and_the_maps(model, tmp_path):
    path, images = tmp_path / "model.tflite", pixels(3, 20, 28, 3)
    report = kzoo.export(kzoo.fold_batch_norm(model), path, reference=model, heatmap=True)
    assert report.xnnpack_partitions == 1
    assert list(report.outputs) == ["answer", "heatmap"]
    assert max(errors["relative_error"] for errors in report.outputs.values()) < 1e-5
    found, expected = LiteRTModel(path).predict_each(images), with_heatmap(model)(images)
    assert list(found) == ["answer", "heatmap"]
    assert found["heatmap"].shape == (3, 10, 14, 5)
    for name in found:
        assert relative_error(found[name], expected[name]) < 1e-5
    told = json.loads((tmp_path / "model.tflite.json").read_text())
    assert told["answer"] == "answer"
    assert told["outputs"]["heatmap"]["shape"] == [1, 10, 14, 5]
    assert "'heatmap' holds 5 maps of 10 x 14 places" in told["how"][-1]
    classifier = open_classifier(str(path))
    assert classifier.class_names == tuple("abcde")
    assert relative_error(classifier.predict(images), model(images)) < 1e-5


def test_integer_maps_are_close(model, tmp_path):
    images = pixels(30, 20, 28, 3)
    path = tmp_path / "model.tflite"
    report = kzoo.export(kzoo.fold_batch_norm(model), path, "int8", images, heatmap=True, io="float32")
    assert report.xnnpack_partitions == 1
    assert report.outputs["heatmap"]["relative_error"] < 0.1
    assert report.outputs["answer"]["relative_error"] < 0.1


def test_what_has_no_map_is_refused_before_any_work(model, tmp_path):
    inputs = keras.Input((20, 28, 3))
    flat = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)), name="flat")
    with pytest.raises(InvalidValueError, match="flat gives no heat map, which needs"):
        kzoo.export(flat, tmp_path / "model.tflite", heatmap=True)
    with pytest.raises(InvalidValueError, match="'x' is no Keras model"):
        kzoo.export(model, tmp_path / "model.tflite", heatmap=True, reference="x")
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(model, tmp_path, capsys):
    model.save(tmp_path / "model.keras")
    main(["export", str(tmp_path / "model.keras"), str(tmp_path / "out"), "--savedmodel", "--heatmap", "--json"])
    (told,) = json.loads(capsys.readouterr().out)
    assert list(told["outputs"]) == ["answer", "heatmap"]
    found = keras.layers.TFSMLayer(tmp_path / "out", call_endpoint="serving_default")(images := pixels(2, 20, 28, 3))
    np.testing.assert_allclose(found["heatmap"], with_heatmap(model)(images)["heatmap"], rtol=1e-3, atol=1e-4)
    main(["export", str(tmp_path / "model.keras"), str(tmp_path / "model.tflite"), "--heatmap"])
    assert list(LiteRTModel(tmp_path / "model.tflite").outputs) == ["answer", "heatmap"]
