"""All precisions from one conversion: what is in the files, what they lose, and what the reports say of it."""

import json
import logging

import keras
import numpy as np
import pytest
from helpers import converted_once, pixels, randomise

import kzoo
from kzoo.edge import PRECISIONS, Card, LiteRTModel, draw_reports, exporting, read_card, source
from kzoo.edge.compare import agreement, output_errors, scores
from kzoo.edge.quantize import find_ranges
from kzoo.errors import ExportError, InvalidValueError
from kzoo.images import Pixels
from kzoo.output import Output

IMAGES = pixels(24, 16, 16, 3)
LABELS = np.arange(24) % 10
CLASSES = tuple("abcdefghij")
CARD = Card(Output("classification", "logits", 10, CLASSES), Pixels("crop", 0.9, "bicubic"))


def tiny(name="cifar_resnet20_cbam", **options):
    options = dict(input_shape=(16, 16, 3), depths=(1, 1), widths=(32, 48)) | options
    return kzoo.fold_batch_norm(randomise(kzoo.build(name, **options)))


@pytest.fixture(scope="module")
def model():
    with converted_once():
        yield tiny(classifier_activation=None)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    options = dict(evaluation=(IMAGES, LABELS), card=CARD, threads=(1,), find_layers=True)
    return directory, kzoo.export_all(model, directory, calibration=IMAGES, **options)


def test_all_precisions_from_one_conversion(model, tmp_path, monkeypatch):
    calls = []
    convert = exporting.convert
    monkeypatch.setattr(exporting, "convert", lambda *args: calls.append(args) or convert(*args))
    reports = kzoo.export_all(model, tmp_path, ("float32", "int8_dynamic", "float16"))
    assert len(calls) == 1
    assert list(reports) == ["float32", "int8_dynamic", "float16"]


# error of 8-bit and 4-bit steps on a random network of 30 ops
@pytest.mark.parametrize(
    ("precision", "size", "error"),
    [
        ("float32", 1.0, 1e-5),
        ("float16", 0.5, 2e-3),
        ("int8_weights", 0.25, 0.03),
        ("int8_dynamic", 0.25, 0.04),
        ("int8", 0.25, 0.1),
        ("int16x8", 0.25, 0.03),
        ("int4", 0.125, 0.1),
        ("int4_weights", 0.25, 0.2),
    ],
)
def test_every_precision(model, exported, precision, size, error):
    directory, reports = exported
    assert set(reports) == set(PRECISIONS)
    report = reports[precision]
    path = directory / f"{model.name}_{precision}.tflite"
    lite = LiteRTModel(path)
    assert (report.path, report.size_bytes) == (str(path), path.stat().st_size)
    assert 0 < report.relative_error < error
    assert report.cosine > 1 - error**2
    assert report.size_bytes < (size + 0.12) * reports["float32"].size_bytes
    assert report.latency_ms[1] > 0

    expected, outputs = np.array(model(IMAGES)), lite.predict(IMAGES)
    count = 16
    assert report.verified_on == "16 calibration images"
    relative = np.linalg.norm(outputs[:count] - expected[:count]) / np.linalg.norm(expected[:count])
    # an error is a difference of outputs of 1, which two ways of adding up (a batch of 16 and of 24) round to 1e-6
    assert report.relative_error == pytest.approx(relative, rel=1e-3, abs=1e-6)
    assert report.agreement == np.mean(outputs[:count].argmax(-1) == expected[:count].argmax(-1))
    assert report.scores == {
        "accuracy": {
            "keras": np.mean(expected.argmax(-1) == LABELS),
            "file": np.mean(outputs.argmax(-1) == LABELS),
        }
    }
    if PRECISIONS[precision].slow:  # no kernels in the delegate
        assert report.ops_outside_xnnpack["CONV_2D"] == report.ops["CONV_2D"]
    else:
        assert (report.xnnpack_partitions, report.ops_outside_xnnpack) == (1, {})


@pytest.mark.parametrize(
    ("precision", "kind"), [("int8", np.int8), ("int16x8", np.int16), ("int8_dynamic", np.float32)]
)
def test_types_of_input_and_output(model, exported, precision, kind):
    lite = LiteRTModel(exported[0] / f"{model.name}_{precision}.tflite")
    assert (lite.input["dtype"], lite.output["dtype"]) == (kind, kind)


def test_weights_are_of_the_type(model, exported):
    def types(precision):
        lite = LiteRTModel(exported[0] / f"{model.name}_{precision}.tflite")
        kernels = [d for d in lite._interpreter.get_tensor_details() if d["name"].endswith("/convolution")]
        assert len(kernels) == 7
        return {str(np.dtype(kernel["dtype"])) for kernel in kernels}

    found = {precision: types(precision) for precision in PRECISIONS}
    assert found["float32"] == {"float32"}
    assert found["float16"] == {"float16"}
    integers = ("int8_weights", "int8_dynamic", "int8", "int16x8", "int4")  # two of 4 bits lie in one int8
    assert all(found[precision] == {"int8"} for precision in integers)


def test_layers_that_lose_most(exported):
    _, reports = exported
    assert reports["float32"].layers == ()
    names, losses = zip(*reports["int8"].layers, strict=True)
    assert len(names) == 10
    assert list(losses) == sorted(losses, reverse=True)
    assert any("stage2_block1" in name for name in names)
    assert losses[0] > 5 * reports["float16"].layers[0][1]


def test_reports_are_json_markdown_and_a_chart(exported, tmp_path):
    _, reports = exported
    report = reports["int8"]
    report.save(tmp_path)
    stem = report.path.rsplit("/", 1)[-1].removesuffix(".tflite")
    told = json.loads((tmp_path / f"{stem}_report.json").read_text())
    assert told["policy"] == "whole"
    assert told["scores"]["accuracy"]["keras"] == report.scores["accuracy"]["keras"]
    page = (tmp_path / f"{stem}_report.md").read_text()
    assert f"| XNNPACK partitions | {report.xnnpack_partitions} |" in page
    assert "| ops outside XNNPACK | none |" in page
    assert report.layers[0][0] in page
    draw_reports(reports, tmp_path / "precisions.png")
    assert (tmp_path / "precisions.png").read_bytes().startswith(b"\x89PNG")


def test_slow_files_of_large_models_are_compared_on_fewer_images(model, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "SLOW_MACS", 5.5 * kzoo.graph.count_macs(model))
    results = kzoo.export_all(model, tmp_path, ("int16x8", "int8"), IMAGES)
    found = {precision: report.verified_on for precision, report in results.items()}
    assert found == {"int16x8": "5 calibration images", "int8": "16 calibration images"}
    monkeypatch.setattr(source, "SLOW_MACS", 1)
    report = kzoo.export(model, tmp_path / "model.tflite", "int16x8", IMAGES)
    assert report.verified_on == "2 calibration images"


def test_the_card_tells_what_to_feed(model, exported):
    directory, _ = exported
    path = directory / f"{model.name}_int8.tflite"
    assert read_card(path) == CARD
    told = json.loads((directory / f"{path.name}.json").read_text())
    assert told["input"] == {
        "name": "serving_default_image:0",
        "argument": "image",
        "shape": [1, 16, 16, 3],
        "dtype": "int8",
        "scale": 1.0,
        "zero_point": -128,
        "channels": "RGB",
        "values": "pixels of 0 to 255",
        "preprocessing": "(x - [123.7, 116.3, 103.5]) / [58.4, 57.12, 57.37] is computed by the file",
    }
    assert told["pixels"] == {"resize": "crop", "crop": 0.9, "interpolation": "bicubic"}
    assert told["precision"] == "int8"
    output = told["output"]
    assert (output["task"], output["values"], output["units"]) == ("classification", "logits", 10)
    assert output["class_names"] == list(CLASSES)
    assert (output["shape"], output["dtype"]) == ([1, 10], "int8")


def test_a_card_of_another_file_is_refused(model, exported, tmp_path):
    directory, _ = exported
    path = tmp_path / "model.tflite"
    path.write_bytes((directory / f"{model.name}_int8.tflite").read_bytes())
    assert read_card(path) is None
    card = tmp_path / "model.tflite.json"
    card.write_text((directory / f"{model.name}_float32.tflite.json").read_text())
    with pytest.raises(InvalidValueError, match=r"model\.tflite\.json is the card of another file .*; remove it"):
        read_card(path)
    card.write_text("{")
    with pytest.raises(InvalidValueError, match=r"cannot read the card .*model\.tflite\.json"):
        read_card(path)


def test_auto_takes_the_fastest_that_is_close_enough(model, tmp_path, monkeypatch):
    speed = {np.float32: 5.0, np.int8: 1.0}
    monkeypatch.setattr(LiteRTModel, "latency_ms", lambda self: speed[self.input["dtype"]])
    path = tmp_path / "tiny.tflite"
    report = kzoo.export(model, path, "auto", IMAGES, max_error=0.2)
    assert report.precision == "int8"
    assert kzoo.export(model, path, "auto", IMAGES, max_error=1e-4).precision == "float32"
    before = path.read_bytes()
    with pytest.raises(ExportError, match=r"no precision of .* keeps the relative error at 1e-12: float32 .*, int8 "):
        kzoo.export(model, path, "auto", IMAGES, max_error=1e-12)
    assert path.read_bytes() == before


def test_a_precision_that_fails_does_not_lose_the_others(model, tmp_path, monkeypatch, caplog):
    bounds = {name: PRECISIONS[name] for name in ("float32", "int8_dynamic")}
    monkeypatch.setattr(source, "PRECISIONS", bounds | {"int8_dynamic": type(bounds["float32"])("", 1e-9)})
    with caplog.at_level(logging.WARNING, "kzoo"):
        reports = kzoo.export_all(model, tmp_path, ("float32", "int8_dynamic"))
    assert list(reports) == ["float32"]
    assert "the int8_dynamic file of" in caplog.text
    assert sorted(file.name for file in tmp_path.glob("*.tflite")) == [f"{model.name}_float32.tflite"]
    with pytest.raises(ExportError, match="the int8_dynamic file of"):
        kzoo.export_all(model, tmp_path, ("int8_dynamic",))


def test_what_the_quantizer_raises_names_model_and_precision(model, tmp_path, monkeypatch):
    def fail(content, precision, ranges):
        if precision == "int8_dynamic":
            raise KeyError("no such tensor")
        return quantize(content, precision, ranges)

    quantize = source.quantize
    monkeypatch.setattr(source, "quantize", fail)
    with pytest.raises(ExportError, match="cannot be quantized to int8_dynamic: KeyError: 'no such tensor'; nothing"):
        kzoo.export(model, tmp_path / "model.tflite", "int8_dynamic")
    assert list(tmp_path.iterdir()) == []
    results = dict(kzoo.edge.export_each(model, tmp_path, ("int8_dynamic", "float32"), name="tiny"))
    assert isinstance(results["int8_dynamic"], ExportError)
    assert results["float32"].path == str(tmp_path / "tiny_float32.tflite")
    assert kzoo.export(model, tmp_path / "model.tflite", "auto", max_error=0.01).precision != "int8_dynamic"


def test_large_kernels(tmp_path):
    """36 MiB of four axes, as in the last stage of `unet`."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(1024, 1)(inputs)
    model = randomise(keras.Model(inputs, keras.layers.Conv2D(1024, 3)(x)))
    reports = kzoo.export_all(model, tmp_path, ("int8_dynamic", "int8"), pixels(8, 4, 4, 3))
    assert len(reports) == 2
    for report in reports.values():
        assert report.relative_error < 0.02
        assert report.size_bytes < 10e6


@pytest.mark.parametrize("layer", ["Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense"])
def test_channels_without_a_kernel_keep_their_bias(layer, tmp_path):
    inputs = keras.Input((8, 8, 3))
    if layer == "Dense":
        x, linear = keras.layers.Flatten()(inputs), keras.layers.Dense(4, name="linear")
    else:
        x = inputs
        options = {} if layer == "DepthwiseConv2D" else dict(filters=4)
        linear = getattr(keras.layers, layer)(kernel_size=3, name="linear", **options)
    model = randomise(keras.Model(inputs, linear(x)))
    kernel, bias = linear.get_weights()
    bias[:] = np.linspace(100, -200, len(bias))
    if layer in ("Conv2DTranspose", "DepthwiseConv2D"):  # their last axis is not that of the output
        kernel[:, :, 0] = 0
    else:
        kernel[..., 0] = 0
    linear.set_weights([kernel, bias])
    images = pixels(4, 8, 8, 3)
    expected = np.array(model(images))
    kzoo.export(model, tmp_path / "model.tflite", "int8", images)
    found = LiteRTModel(tmp_path / "model.tflite").predict(images)
    assert np.ptp(expected[..., 0]) == 0
    step = np.ptp(expected) / 255
    np.testing.assert_allclose(found[..., 0], 100, atol=2 * step)


@pytest.mark.parametrize("name", ["cifar_resnet20", pytest.param("swin_tiny", marks=pytest.mark.slow)])
def test_folded_preprocessing_is_still_checked_and_told(name, tmp_path):
    entry = kzoo.registry.lookup(name)
    size = (entry.narrow_size, entry.narrow_size, 3)
    model = randomise(kzoo.build(name, input_shape=size, classifier_activation=None, **entry.narrow))
    folded = kzoo.surgery.fold_preprocessing(kzoo.fold_batch_norm(model))
    images = pixels(24, *size)
    report = kzoo.export(folded, tmp_path / "model.tflite", "int8", images)
    assert (report.relative_error < 0.15, report.xnnpack_partitions) == (True, 1)
    told = json.loads((tmp_path / "model.tflite.json").read_text())
    assert told["input"]["values"] == "pixels of 0 to 255"
    with pytest.raises(InvalidValueError, match="calibration pixels are 0 to 1"):
        kzoo.export(folded, tmp_path / "model.tflite", "int8", images / 255)


def test_layer_normalisation_and_softmax_stay_float_in_int8(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Reshape((16, 32))(keras.layers.Conv2D(32, 4, 4)(inputs))
    x = keras.layers.LayerNormalization(epsilon=1e-5)(x)
    x = x + keras.layers.MultiHeadAttention(4, 8)(x, x)
    x = keras.layers.Dense(32, activation="gelu")(keras.layers.LayerNormalization(epsilon=1e-5)(x))
    model = randomise(keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x))))
    report = kzoo.export(model, tmp_path / "model.tflite", "int8", IMAGES)
    assert (report.policy, report.xnnpack_partitions, report.ops_outside_xnnpack) == ("linear", 1, {})
    assert report.relative_error < 0.1  # 8 bits in random layers
    lite = LiteRTModel(report.path)
    assert (lite.input["dtype"], lite.output["dtype"]) == (np.int8, np.int8)


def test_probabilities_have_room_up_to_one(tmp_path):
    model = tiny(classifier_activation="softmax")
    sure = np.argmax(np.array(model(IMAGES)).max(axis=-1))
    others = np.delete(IMAGES, sure, axis=0)
    report = kzoo.export(model, tmp_path / "model.tflite", "int8", others)
    lite = LiteRTModel(report.path)
    scale, zero_point = lite.output["quantization"]
    assert (scale, zero_point) == (pytest.approx(1 / 255), -128)
    np.testing.assert_allclose(lite.predict(IMAGES), model(IMAGES), atol=0.06)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_logits_are_not_cut_off(precision, model, exported):
    """The quantizer's average of the ranges would cut what is above it."""
    lite = LiteRTModel(exported[0] / f"{model.name}_{precision}.tflite")
    scale, zero_point = lite.output["quantization"]
    limits = np.iinfo(lite.output["dtype"])
    lowest, highest = ((limit - zero_point) * scale for limit in (limits.min, limits.max))
    logits = np.array(model(IMAGES))
    assert lowest <= logits.min() + scale
    assert highest >= logits.max() - scale
    outputs = lite.predict(IMAGES)
    assert outputs.max() == pytest.approx(logits.max(), rel=0.2)


def test_16_bits_hold_whole_ranges(model, exported):
    ranges = find_ranges((exported[0] / f"{model.name}_float32.tflite").read_bytes(), {"image": IMAGES})
    wider = [name for name, values in ranges.averaged.items() if (ranges.whole[name]["max"] > values["max"]).any()]
    assert len(wider) > 10
    for name, values in ranges.averaged.items():
        assert (ranges.whole[name]["max"] >= values["max"]).all()
        assert (ranges.whole[name]["min"] <= values["min"]).all()


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_attention_stays_in_integers(precision, exported):
    _, reports = exported
    ops = reports[precision].ops
    assert ops["REDUCE_MAX"] == 4  # of channels and of positions, in two blocks
    assert "DEQUANTIZE" not in ops


def test_average_pooling_stays_float_in_int8(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(8, 3)(keras.layers.AveragePooling2D(3, 1, "same")(x))
    model = randomise(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    report = kzoo.export(model, tmp_path / "model.tflite", "int8", IMAGES)
    assert (report.policy, report.xnnpack_partitions, report.ops_outside_xnnpack) == ("whole", 1, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(precisions=()), "no precision given"),
        (dict(precisions=("float32", "int7")), "precision='int7' is not accepted"),
        (dict(precisions=("float32", "auto")), "precision='auto' is not accepted"),
        (dict(precisions=("int16x8",), calibration=None), "precision='int16x8' needs calibration images"),
        (dict(threads=(0,)), r"threads=\(0,\) must be a tuple of positive integers"),
        (dict(threads="12"), "threads='12' must be a tuple of positive integers"),
        (dict(evaluation=(IMAGES, LABELS[:3])), r"labels of shape \(3,\) and type int64; .* shape \(24,\) are needed"),
        (dict(evaluation=(IMAGES, LABELS / 2)), "type float64"),
        (dict(evaluation=(IMAGES / 255, LABELS)), "evaluation pixels are 0 to 1"),
    ],
)
def test_bad_arguments(model, options, message, tmp_path):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.export_all(model, tmp_path, **(dict(calibration=IMAGES) | options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_measures():
    expected, outputs = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 1.0]])
    found = output_errors(outputs, expected)
    assert found == pytest.approx(
        {
            "max_abs_error": 1.0,
            "max_rel_error": 0.25,
            "relative_error": 1 / np.sqrt(26),
            "cosine": 26 / np.sqrt(26 * 27),
        }
    )
    assert agreement({"a": outputs}, {"a": expected}, "a", Output("classification", "softmax", 2)) == 0.5
    masks = np.array([[[0, 1], [1, 255]]])
    maps = np.eye(2)[[[[0, 1], [0, 0]]]]
    assert scores(
        lambda images: maps, np.zeros((1, 2, 2, 3)), masks, Output("segmentation", "softmax", 2)
    ) == pytest.approx({"mean_iou": (1 / 2 + 1 / 2) / 2, "pixel_accuracy": 2 / 3})


@pytest.mark.parametrize("loud", [600.0, 1.0])
def test_a_dynamic_file_whose_activations_do_not_bear_8_bits_is_told_of(loud, tmp_path, caplog):
    """One channel is far larger than the others, and the gates read the others alone."""
    image = keras.Input((6, 7, 3))
    features = keras.layers.Conv2D(4, 1, name="features")(image)
    gates = keras.layers.Conv2D(4, 1, name="gates")(features)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(gates), name="gated")
    rng = np.random.default_rng(0)
    kernel, gate = rng.normal(size=(1, 1, 3, 4)), rng.normal(size=(1, 1, 4, 4))
    kernel[..., 0] *= loud
    gate[:, :, 0] = 0
    model.get_layer("features").set_weights([kernel, np.zeros(4)])
    model.get_layer("gates").set_weights([gate, np.zeros(4)])
    with caplog.at_level("WARNING"):
        report = kzoo.export(model, tmp_path / "model.tflite", "int8_dynamic", pixels(8, 6, 7, 3))
    told = f"the int8_dynamic file of gated has a relative error of {report.relative_error:.2g}, and int8_weights"
    assert (told in caplog.text) is (report.relative_error > 0.1) is (loud > 1)
