"""ONNX files and SavedModels: they compute what Keras computes, or nothing is kept."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import kinds, pixels, randomise, relative_error, slow_but

import kzoo
from kzoo.check.narrow_model import NarrowModel
from kzoo.edge import read_card
from kzoo.edge.onnx_file import PACKAGES, OnnxModel
from kzoo.edge.saved_model import SavedModel
from kzoo.errors import BackendError, ExportError, InvalidValueError, OutputError

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason='not installed: pip install -e ".[onnx]"'
)
both = pytest.mark.parametrize(
    ("export", "name", "runner"),
    [
        pytest.param(kzoo.export_onnx, "model.onnx", OnnxModel, marks=needs_onnx, id="onnx"),
        pytest.param(kzoo.export_saved_model, "model", SavedModel, id="savedmodel"),
    ],
)


@pytest.fixture(scope="module")
def model():
    """Never called."""
    return randomise(kzoo.build("cifar_resnet20_cbam", input_shape=(13, 18, 3), depths=(1, 1), widths=(8, 12)))


@pytest.fixture(scope="module")
def small():
    inputs = keras.Input((13, 18, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    return randomise(keras.Model(inputs, keras.layers.Dense(10)(x), name="small"))


@needs_onnx
def test_onnxruntime_computes_what_keras_computes(model, tmp_path):
    import onnxruntime

    path, images = tmp_path / "model.onnx", pixels(5, 13, 18, 3)
    report = kzoo.export_onnx(kzoo.fold_batch_norm(model), path, reference=model, class_names=list("abcdefghij"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("image", ["batch", 13, 18, 3])
    assert (result.name, result.shape) == ("output_0", ["batch", 10])
    (outputs,) = session.run(["output_0"], {"image": images})
    assert relative_error(outputs, model(images)) < 1e-5
    assert report.input_shape == (None, 13, 18, 3)
    assert report.size_bytes == path.stat().st_size
    assert report.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert report.ops["Conv"] == 8  # 5 convolutions, 2 spatial gates, and the shortcut
    assert report.verified_on == "16 images of noise"
    assert 0 < report.relative_error < 1e-5

    told = json.loads((tmp_path / "model.onnx.json").read_text())
    assert told["input"]["shape"] == [None, 13, 18, 3]
    assert read_card(path).output.class_names == tuple("abcdefghij")


def test_a_saved_model_computes_without_keras_what_keras_computes(model, tmp_path):
    import tensorflow as tf

    images = pixels(5, 13, 18, 3)
    report = kzoo.export_saved_model(model, tmp_path / "model", pixels(20, 13, 18, 3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "model.json"]
    layer = keras.layers.TFSMLayer(tmp_path / "model", call_endpoint="serving_default")
    assert relative_error(layer(images)["output_0"], model(images)) < 1e-5
    assert relative_error(tf.saved_model.load(tmp_path / "model").serve(images[:1]), model(images[:1])) < 1e-5
    assert (report.format, report.input_shape) == ("SavedModel", (None, 13, 18, 3))
    assert report.verified_on == "16 images"
    assert report.size_bytes == sum(file.stat().st_size for file in (tmp_path / "model").rglob("*") if file.is_file())
    assert json.loads((tmp_path / "model.json").read_text())["input"]["shape"] == [None, 13, 18, 3]


@both
def test_a_batch_of_one_size(small, export, name, runner, tmp_path):
    images, labels = pixels(5, 13, 18, 3), np.arange(5)
    report = export(small, tmp_path / name, images, batch_size=2, evaluation=(images, labels))
    assert (report.input_shape, runner(tmp_path / name).inputs["image"]["shape"]) == ((2, 13, 18, 3), [2, 13, 18, 3])
    assert report.verified_on == "5 images"  # two batches and a half
    accuracy = np.mean(np.argmax(small(images), axis=-1) == labels)
    assert report.scores == {"accuracy": {"keras": accuracy, "file": accuracy}}
    assert report.agreement == 1
    report.save(tmp_path)
    assert json.loads((tmp_path / "model_report.json").read_text())["relative_error"] == report.relative_error
    assert "| input | 2 × 13 × 18 × 3 |" in (tmp_path / "model_report.md").read_text()


@both
@pytest.mark.parametrize("wrong", [1.0001, np.nan], ids=["scaled", "nan"])
def test_what_disagrees_is_not_kept(small, export, name, runner, wrong, tmp_path, monkeypatch):
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda self, batch: {name: wrong * y for name, y in run(self, batch).items()})
    with pytest.raises(ExportError, match=r"disagrees with Keras: relative error .*accepted 1e-05; nothing was writ"):
        export(small, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@both
def test_what_was_there_is_replaced_once_the_new_one_has_passed(small, export, name, runner, tmp_path, monkeypatch):
    path, images = tmp_path / name, pixels(2, 13, 18, 3)
    export(small, path)
    export(randomise(keras.models.clone_model(small), seed=7), path)
    other = runner(path).run({"image": images})["output_0"]
    assert relative_error(other, small(images)) > 0.01
    monkeypatch.setattr(runner, "run", lambda self, batch: {"output_0": np.ones((16, 10))})
    with pytest.raises(ExportError, match="disagrees"):
        export(small, path)
    monkeypatch.undo()
    np.testing.assert_array_equal(runner(path).run({"image": images})["output_0"], other)
    assert len(list(tmp_path.iterdir())) == 2


@both
def test_several_inputs_and_outputs_keep_names_and_order(export, name, runner, tmp_path):
    left, right = keras.Input((5, 7, 3), name="left"), keras.Input((5, 7, 2), name="a right")
    x = keras.layers.Concatenate()([keras.layers.Conv2D(4, 3)(left), keras.layers.Conv2D(2, 3)(right)])
    outputs = {"z": keras.layers.GlobalAveragePooling2D()(x), "a": keras.layers.Conv2D(3, 1)(x)}
    model = randomise(keras.Model([left, right], outputs))
    images = {"left": pixels(3, 5, 7, 3), "a_right": pixels(3, 5, 7, 2, seed=2)}
    report = export(model, tmp_path / name, images)
    found = runner(tmp_path / name).run(images)
    expected = model(list(images.values()))
    assert set(found) == {"z", "a"}
    for output in found:
        assert relative_error(found[output], expected[output]) < 1e-5
        assert report.outputs[output]["relative_error"] <= report.relative_error < 1e-5
    told = json.loads((tmp_path / f"{name}.json").read_text())
    assert set(told["outputs"]) == {"z", "a"}
    assert (told["answer"], told["output"]["argument"]) == ("z", "z")
    listed = keras.Model(model.inputs, [outputs["z"], outputs["a"]])
    assert list(export(listed, tmp_path / name, images).outputs) == ["output_0", "output_1"]


@needs_onnx
def test_outputs_of_onnx_stand_in_the_order_of_the_model(tmp_path):
    image = keras.Input((5, 7, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="z")(image)  # as an output is called too
    model = keras.Model(image, {"z": keras.layers.GlobalAveragePooling2D()(x), "a": x + 1})
    kzoo.export_onnx(model, tmp_path / "model.onnx")
    assert list(OnnxModel(tmp_path / "model.onnx").outputs) == ["z", "a"]


class Gamma(keras.layers.Layer):
    """Needs an op that ONNX does not have."""

    def call(self, x):
        import tensorflow as tf

        return tf.math.igamma(tf.abs(x) + 1, tf.abs(x))


@needs_onnx
def test_an_op_that_onnx_lacks_is_named_with_its_layer(tmp_path):
    inputs = keras.Input((8, 8, 3))
    y = Gamma(name="second_gamma")(keras.layers.Conv2D(2, 3, name="first")(inputs))
    broken = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(y), name="broken")
    with pytest.raises(ExportError, match=r"cannot export broken to ONNX: layer 'second_gamma' needs Igamma, which"):
        kzoo.export_onnx(broken, tmp_path / "broken.onnx")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_gelu(tmp_path):
    """Keras computes it by erfc, which tf2onnx does not know."""
    inputs = keras.Input((5, 7, 3))
    model = keras.Model(inputs, keras.layers.Activation("gelu")(inputs / 50 - 2))
    assert kzoo.export_onnx(model, tmp_path / "gelu.onnx").max_abs_error < 1e-6


def test_lacking_packages_are_named_before_any_work(small, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if name == "tensorflow" else None)
    message = r'^exporting to ONNX needs tf2onnx, onnx, onnxruntime, not installed here; pip install -e "\.\[onnx\]"$'
    with pytest.raises(BackendError, match=message):
        kzoo.export_onnx(small, tmp_path / "new" / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_folders_with_something_else_in_them_are_left_alone(small, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "saved_model.pb").touch()
    (tmp_path / "photos" / "cat.jpg").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(OutputError, match=f"{name} is there and no SavedModel; give a folder that is new"):
            kzoo.export_saved_model(small, tmp_path / name)
    assert len(list((tmp_path / "photos").iterdir())) == 2


@needs_onnx
def test_bad_arguments(small, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    for path, options, error, message in (
        ("model.tflite", {}, InvalidValueError, r"must end in \.onnx"),
        ("folder.onnx", {}, OutputError, "is a folder; give the path of a file"),
        ("model.onnx", dict(batch_size=0), InvalidValueError, "batch_size=0 must be a positive integer"),
        ("model.onnx", dict(images=pixels(2, 8, 8, 3)), InvalidValueError, r"has shape \(2, 8, 8, 3\)"),
    ):
        with pytest.raises(error, match=message):
            kzoo.export_onnx(small, tmp_path / path, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.parametrize(
    ("name", "export", "file"),
    slow_but(
        [(name, kzoo.export_onnx, "model.onnx") for name in ("unet",)],
        [
            (name, export, file)
            for name in kinds(kzoo.list_models())
            for export, file in ((kzoo.export_onnx, "model.onnx"), (kzoo.export_saved_model, "model"))
        ],
    ),
)
def test_models_of_every_kind(name, export, file, tmp_path):
    if export is kzoo.export_onnx and not all(map(importlib.util.find_spec, PACKAGES)):
        pytest.skip('not installed: pip install -e ".[onnx]"')
    narrow = NarrowModel(name, tmp_path)
    report = export(narrow.folded, tmp_path / file, narrow.images, reference=narrow.model)
    assert report.relative_error < 1e-5
    assert Path(report.path).exists()
