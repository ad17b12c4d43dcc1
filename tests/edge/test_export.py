"""Export: files that agree with Keras, a true report, and refusals that leave nothing behind."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import converted_once, feature_map, pixels, randomise, relative_error

import kzoo
from kzoo.edge import Card, LiteRTModel
from kzoo.errors import BackendError, ExportError, InvalidValueError, OutputError
from kzoo.output import Output

GOOD = pixels(4, 16, 16, 3)
TINY = dict(depths=(1, 1), widths=(32, 48))


def tiny(**options):
    options = {"input_shape": (16, 16, 3)} | TINY | options
    return kzoo.fold_batch_norm(randomise(kzoo.build("cifar_resnet20_cbam", **options)))


@pytest.fixture(scope="module")
def model():
    with converted_once():
        yield tiny(classifier_activation=None)


@pytest.mark.quick
def test_float32(model, tmp_path):
    path = tmp_path / "tiny.tflite"
    report = kzoo.export(model, path)
    assert (report.path, report.precision) == (str(path), "float32")
    assert report.size_bytes == path.stat().st_size > 4 * model.count_params()
    assert report.input_shape == (1, 16, 16, 3)
    # 5 convolutions and 2 spatial gates; 2 channel gates of 2 layers and the classifier
    assert (report.ops["CONV_2D"], report.ops["FULLY_CONNECTED"]) == (7, 5)
    assert report.ops["DEPTHWISE_CONV_2D"] == 1  # shortcut option A
    assert "DELEGATE" not in report.ops
    assert not any(op.startswith("Flex") for op in report.ops)
    assert report.xnnpack_partitions == 1
    assert report.verified_on == "16 images of noise"
    assert 0 < report.max_rel_error < 1e-5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.tflite", "tiny.tflite.json"]

    images = pixels(5, 16, 16, 3, seed=9)
    assert relative_error(LiteRTModel(path).predict(images), model(images)) < 1e-5


def test_half_precision_models_are_refused_by_layer(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8))
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ExportError, match=r"layer 'stem_conv' of cifar_resnet20 computes in float16; build"):
        kzoo.export(half, tmp_path / "half.tflite")


@pytest.mark.quick
def test_int8(model, tmp_path):
    path = tmp_path / "tiny.tflite"
    calibration = np.random.default_rng(3).integers(0, 256, (40, 16, 16, 3), dtype="uint8")
    report = kzoo.export(model, path, precision="int8", calibration=calibration)
    assert (report.precision, report.verified_on) == ("int8", "16 calibration images")
    assert report.xnnpack_partitions == 1
    lite = LiteRTModel(path)
    assert (lite.input["dtype"], lite.output["dtype"]) == (np.int8, np.int8)
    scale, zero_point = lite.input["quantization"]
    assert (scale, zero_point) == (1, -128)  # the integer is the pixel minus 128
    expected = np.array(model(calibration[:16]))
    difference = np.abs(lite.predict(calibration[:16]) - expected).max()
    assert difference == pytest.approx(report.max_abs_error, rel=1e-4)
    assert difference / np.abs(expected).max() == pytest.approx(report.max_rel_error, rel=1e-4)
    assert report.max_rel_error < 0.1  # 8 bits in each of 30 ops on a random network


def test_int8_of_units_that_never_fire(tmp_path):
    inputs = keras.Input((16, 16, 3))
    silent = keras.layers.Conv2D(2, 1, activation="relu", name="silent")
    y = keras.layers.Conv2D(4, 1)(silent(inputs)) + keras.layers.Conv2D(4, 3)(keras.layers.ZeroPadding2D(1)(inputs))
    model = randomise(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(y)))
    silent.bias.assign([-1e4, -1e4])
    assert not np.any(silent(GOOD))
    report = kzoo.export(model, tmp_path / "silent.tflite", "int8", calibration=GOOD[:1])
    assert report.max_rel_error < 0.05  # 8 bits


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_batches(model, precision, tmp_path):
    calibration = pixels(6, 16, 16, 3)  # no multiple of the batch
    report = kzoo.export(model, tmp_path / "tiny.tflite", precision, calibration, batch_size=4)
    assert report.input_shape == (4, 16, 16, 3)
    assert report.xnnpack_partitions == 1
    assert report.verified_on == "6 calibration images"
    images = pixels(7, 16, 16, 3, seed=5)
    error = relative_error(LiteRTModel(report.path).predict(images), model(images))
    assert error < (1e-5 if precision == "float32" else 0.1)


def test_a_model_without_preprocessing_eats_any_range(tmp_path):
    model = tiny(include_preprocessing=False)
    images = feature_map(8, 16, 16, 3)
    report = kzoo.export(model, tmp_path / "tiny.tflite", calibration=images)
    assert report.max_rel_error < 1e-5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            dict(precision="int5"),
            InvalidValueError,
            "precision='int5' is not accepted; use one of 'float32', 'float16'",
        ),
        (dict(path="tiny.onnx"), InvalidValueError, r"must end in \.tflite"),
        (dict(path="tiny"), InvalidValueError, r"must end in \.tflite"),
        (dict(batch_size=0), InvalidValueError, "batch_size=0 must be a positive integer"),
        (dict(batch_size=True), InvalidValueError, "batch_size=True"),
        (dict(batch_size=2.0), InvalidValueError, r"batch_size=2\.0"),
        (dict(precision="int8"), InvalidValueError, "precision='int8' needs calibration images"),
        (dict(calibration=GOOD[0]), InvalidValueError, r"calibration has shape \(16, 16, 3\)"),
        (dict(calibration=GOOD[:0]), InvalidValueError, r"calibration has shape \(0, 16, 16, 3\)"),
        (dict(calibration=GOOD[..., :1]), InvalidValueError, r"\(4, 16, 16, 1\); images of shape"),
        (dict(calibration=GOOD[:, :8]), InvalidValueError, r"calibration has shape \(4, 8, 16, 3\)"),
        (dict(calibration=np.where(GOOD > 250, np.nan, GOOD)), InvalidValueError, "holds NaN or infinite pixels"),
        (dict(calibration=np.where(GOOD > 250, np.inf, GOOD)), InvalidValueError, "holds NaN or infinite pixels"),
        (dict(calibration=GOOD / 255), InvalidValueError, "calibration pixels are 0 to 1; the model eats pixels of 0"),
        (dict(calibration=GOOD - 128), InvalidValueError, "calibration pixels are -128 to 127"),
        (dict(calibration=GOOD * 257), InvalidValueError, "the model eats pixels of 0 to 255"),
        (dict(calibration="images"), InvalidValueError, "calibration has shape"),
        (dict(calibration=[GOOD[0], GOOD[0, :8]]), InvalidValueError, "calibration is no array: .*resize the images"),
        (dict(threads=2), InvalidValueError, "threads=2 must be a tuple of positive integers"),
        (dict(precision="auto", max_error="0.1"), InvalidValueError, "max_error='0.1' must be a number above 0"),
        (dict(evaluation=GOOD), InvalidValueError, "evaluation must be a pair"),
        (dict(evaluation=(GOOD, np.full(4, 100))), InvalidValueError, "no label from 0 to 9, the classes of"),
        (dict(card="x"), InvalidValueError, "card='x' must be a kzoo.edge.Card"),
        (
            dict(card=Card(Output("classification", "logits", 2))),
            InvalidValueError,
            "2 classes by 2 units; .* 10 units",
        ),
        (dict(card=Card(Output("segmentation", "logits", 10))), InvalidValueError, "of segmentation with 10 classes"),
        (
            dict(card=Card(Output("classification", "softmax", 10))),
            InvalidValueError,
            "values are softmax; .* in logits",
        ),
    ],
)
def test_bad_arguments(model, options, error, message, tmp_path):
    path = tmp_path / options.pop("path", "tiny.tflite")
    with pytest.raises(error, match=message):
        kzoo.export(model, path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(model, tmp_path):
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(OutputError, match="is a folder; give the path of a file"):
        kzoo.export(model, tmp_path / "folder.tflite")


def test_what_is_no_model_is_refused(tmp_path):
    for export in (kzoo.export, kzoo.export_all):
        with pytest.raises(InvalidValueError, match="'resnet50' is no Keras model"):
            export("resnet50", tmp_path / "model.tflite")
    with pytest.raises(InvalidValueError, match="name='x/y' must be the beginning of a file name"):
        kzoo.export_all(tiny(), tmp_path, name="x/y")


HEADS = {  # what the last layers are, and what they give
    "softmax layer": (lambda x: keras.layers.Softmax()(x), "softmax"),
    "softmax op": (lambda x: keras.ops.softmax(x), "softmax"),
    "identity behind it": (lambda x: keras.layers.Identity()(keras.layers.Softmax()(x)), "softmax"),
    "model inside": (
        lambda x: keras.Sequential([keras.Input((3,)), keras.layers.Softmax()], name="inner")(x),
        "softmax",
    ),
    "sigmoid": (lambda x: keras.layers.Dense(1, activation="sigmoid")(x), "sigmoid"),
    "sum": (lambda x: x + 1.0, "logits"),
    "rectifier": (lambda x: keras.layers.ReLU()(x), "unknown"),
    "logits": (lambda x: x, "logits"),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_card_knows_probabilities_whatever_computes_them(head, tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    x = keras.layers.Dense(3)(x)
    compute, values = HEADS[head]
    model = keras.Model(inputs, compute(x))
    images = pixels(8, 8, 8, 3)
    for report in kzoo.export_all(model, tmp_path, ("float32", "int8"), images).values():
        told = json.loads(Path(f"{report.path}.json").read_text())
        assert told["output"]["values"] == values


def test_sequential_models_and_names_that_tensorflow_does_not_take(tmp_path):
    images = pixels(8, 8, 8, 3)
    inputs = keras.Input((8, 8, 3), name="in:0")
    layers = [inputs, keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    functional = keras.Model(inputs, layers[2](layers[1](inputs)), name="größe 1")
    for model in (functional, keras.Sequential(layers, name="plain")):
        report = kzoo.export(model, tmp_path / "model.tflite", "int8", images)
        assert report.relative_error < 0.05
    with pytest.raises(ExportError, match=r"layer 'conv2d.*' failed: .*'_m/.* is not a valid root scope name"):
        kzoo.export(
            keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)], name="_m"), tmp_path / "m.tflite"
        )
    wrong = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="my conv")], name="outer")
    with pytest.raises(ExportError, match="TensorFlow does not take the layer name 'my conv'"):
        kzoo.export(wrong, tmp_path / "wrong.tflite")
    assert {path.name for path in tmp_path.iterdir()} == {"model.tflite", "model.tflite.json"}


def test_one_probability_is_judged_at_one_half(tmp_path):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid")(keras.layers.Rescaling(1 / 50)(inputs))
    model = keras.Model(inputs, outputs)
    images = pixels(6, 8, 8, 3)
    masks = np.random.default_rng(0).integers(0, 2, (6, 8, 8))
    found = np.array(model(images))[..., 0] >= 0.5
    assert 0.05 < found.mean() < 0.95
    report = kzoo.export(model, tmp_path / "model.tflite", evaluation=(images, masks))
    assert report.scores["pixel_accuracy"]["file"] == pytest.approx(np.mean(found == masks))
    overlaps = [np.sum((found == k) & (masks == k)) / np.sum((found == k) | (masks == k)) for k in (0, 1)]
    assert report.scores["mean_iou"]["file"] == pytest.approx(np.mean(overlaps))


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_models_that_are_no_picture_classifier(tmp_path):
    path = tmp_path / "model.tflite"
    for other, message in (
        (tiny(input_shape=(None, None, 3)), r"inputs of shape \(None, None, 3\); .* build with input_shape="),
        (Subclassed(), r"has 0 inputs and 0 outputs \(a subclassed model has none\)"),
        (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), r"inputs of shape \(4,\)"),
    ):
        with pytest.raises(ExportError, match=message):
            kzoo.export(other, path)
    assert list(tmp_path.iterdir()) == []


class Gamma(keras.layers.Layer):
    """Needs an op that LiteRT does not have."""

    def call(self, x):
        import tensorflow as tf

        return tf.math.igamma(tf.abs(x) + 1, tf.abs(x))


def test_an_unsupported_op_is_named_with_its_layer(tmp_path):
    inputs = keras.Input((8, 8, 3))
    y = Gamma(name="second_block_gamma")(keras.layers.Conv2D(2, 3, name="first")(inputs))
    broken = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(y), name="broken")
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"the file before")
    with pytest.raises(ExportError, match=r"cannot export broken: layer 'second_block_gamma' needs tf\.Igamma"):
        kzoo.export(broken, path)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.tflite"]
    assert path.read_bytes() == b"the file before"


@pytest.mark.parametrize("wrong", [lambda y: y * 1.01, lambda y: y * np.nan, lambda y: y[::-1]])
def test_a_file_that_disagrees_is_not_written(model, wrong, tmp_path, monkeypatch):
    predict = LiteRTModel.predict_each

    def changed(self, images):
        return {name: wrong(values) for name, values in predict(self, images).items()}

    monkeypatch.setattr(LiteRTModel, "predict_each", changed)
    path = tmp_path / "tiny.tflite"
    path.write_bytes(b"the file before")
    with pytest.raises(ExportError, match=r"disagrees with Keras: relative error .*; nothing was written"):
        kzoo.export(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.tflite"]
    assert path.read_bytes() == b"the file before"


def test_an_existing_file_is_replaced(model, tmp_path):
    path = tmp_path / "new" / "tiny.tflite"
    path.parent.mkdir()
    path.write_bytes(b"the file before")
    report = kzoo.export(model, path)
    assert path.stat().st_size == report.size_bytes


def test_directories_that_cannot_be_written(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        kzoo.export(model, tmp_path / "file" / "tiny.tflite")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1000))
    with pytest.raises(OutputError, match=r"has 0\.0 MB free"):
        kzoo.export(model, tmp_path / "tiny.tflite")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_another_backend(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for export, place in ((kzoo.export, tmp_path / "tiny.tflite"), (kzoo.export_all, tmp_path)):
        with pytest.raises(BackendError, match=r"^exporting needs KERAS_BACKEND=tensorflow, and it is 'jax'"):
            export(model, place)


def test_runtime(model, tmp_path):
    path = tmp_path / "tiny.tflite"
    kzoo.export(model, path)
    lite = LiteRTModel(path, num_threads=1)
    images = pixels(3, 16, 16, 3)
    np.testing.assert_array_equal(LiteRTModel(path.read_bytes()).predict(images), lite.predict(images))
    with pytest.raises(InvalidValueError, match=r"takes images of shape \(16, 16, 3\), got \(8, 16, 3\)"):
        lite.predict(pixels(3, 8, 16, 3))
    with pytest.raises(InvalidValueError, match=r"cannot read .*none"):
        LiteRTModel(tmp_path / "none.tflite")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidValueError, match="no LiteRT file that this interpreter can run"):
        LiteRTModel(path)
