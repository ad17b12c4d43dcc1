"""What integer files take and give: bytes and float32 for browsers, with the same numbers between them."""

import json

import keras
import numpy as np
import pytest
from helpers import converted_once, pixels, randomise

import kzoo
from kzoo.edge import LiteRTModel, with_io
from kzoo.edge.convert import convert
from kzoo.edge.flatbuffer import pack_file, unpack_file
from kzoo.edge.quantize import find_ranges, quantize
from kzoo.errors import InvalidValueError

IMAGES = pixels(24, 16, 16, 3)


def tiny(activation: str | None) -> keras.Model:
    inputs = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 64, -2)(inputs))
    x = keras.layers.Dense(10, activation=activation)(keras.layers.GlobalAveragePooling2D()(x))
    return randomise(keras.Model(inputs, x))


def attentive() -> keras.Model:
    """A net with layer normalisation, which computes in float32 but for what multiplies by weights."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Reshape((16, 32))(keras.layers.Conv2D(32, 4, 4)(inputs))
    x = keras.layers.Dense(32)(keras.layers.LayerNormalization(epsilon=1e-5)(x))
    return randomise(keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x))))


def segmenting() -> keras.Model:
    inputs = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    return randomise(keras.Model(inputs, keras.layers.Conv2D(4, 1, activation="softmax")(x)))


def sums() -> keras.Model:
    """An output that another op reads as well, and one that is an input as it is scaled."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(4, 3)(inputs)
    return randomise(keras.Model(inputs, {"inner": x, "outer": keras.layers.Conv2D(2, 3)(x)}))


NETS = {
    "logits": lambda: tiny(None),
    "softmax": lambda: tiny("softmax"),
    "sigmoid": lambda: tiny("sigmoid"),
    "layer normalisation": attentive,
    "segmentation": segmenting,
    "several outputs": sums,
}


@pytest.fixture(scope="module", params=NETS)
def net(request, tmp_path_factory):
    """The folder of a network's files, and their reports."""
    model, folder = NETS[request.param](), tmp_path_factory.mktemp("files")
    types = {"int8": None, "float32": "float32", "uint8": "uint8"}
    with converted_once():
        return folder, {
            name: kzoo.export(model, folder / f"{name}.tflite", "int8", IMAGES, io=io) for name, io in types.items()
        }


@pytest.fixture(scope="module")
def softmax():
    """An int8 file that ends in a softmax, and images for it."""
    content = convert(tiny("softmax"))
    return quantize(content, "int8", find_ranges(content, {"image": IMAGES}))[0], pixels(3, 16, 16, 3, seed=7)


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_other_types_hold_the_same_numbers(net, io):
    folder, reports = net
    plain, other = LiteRTModel(folder / "int8.tflite"), LiteRTModel(folder / f"{io}.tflite")
    assert {detail["dtype"].__name__ for detail in (*other.inputs.values(), *other.outputs.values())} == {io}
    assert (reports[io].io, reports[io].xnnpack_partitions, reports[io].ops_outside_xnnpack) == (io, 1, {})
    images = pixels(5, 16, 16, 3, seed=4)
    expected, found = plain.predict_each(images), other.predict_each(images)
    assert list(expected) == list(found) == list(plain.outputs)
    for name, values in expected.items():
        scale = plain.outputs[name]["quantization"][0]
        np.testing.assert_allclose(found[name], values, atol=0.501 * scale if io == "float32" else 1e-6)
    told = json.loads((folder / f"{io}.tflite.json").read_text())
    assert (told["input"]["dtype"], told["output"]["dtype"]) == (io, io)


def test_a_softmax_is_rounded_no_more(softmax):
    content, images = softmax
    rounded = LiteRTModel(content)
    exact = LiteRTModel(with_io(content, "float32"))
    assert np.abs(rounded.predict(images).sum(axis=-1) - 1).max() > 1e-4
    np.testing.assert_allclose(exact.predict(images).sum(axis=-1), 1, atol=1e-6)


def test_a_byte_is_a_pixel(softmax):
    """Where the input has scale 1, uint8 takes a picture as it is."""
    lite = LiteRTModel(with_io(softmax[0], "uint8"))
    assert lite.input["quantization"] == (1.0, 0)


def test_there_and_back(softmax):
    content, images = softmax
    assert with_io(content, "int8") == with_io(with_io(content, "int8"), "int8")
    back = LiteRTModel(with_io(with_io(content, "uint8"), "int8"))
    assert back.input["dtype"] == np.int8
    np.testing.assert_array_equal(back.predict(images), LiteRTModel(content).predict(images))


@pytest.mark.parametrize(
    ("precision", "io", "message"),
    [
        ("int8", "int16", "io='int16'.*'int8', 'uint8', 'float32'"),
        ("float32", "uint8", "io='uint8' is of files whose activations are 8-bit integers.*float32 takes and"),
        ("int8_dynamic", "int8", "io='int8' is of files.*io='float32'"),
        ("int16x8", "uint8", "io='uint8' is of files.*int16x8 takes"),
    ],
)
def test_bad_types(precision, io, message, tmp_path):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.export(attentive(), tmp_path / "model.tflite", precision, IMAGES, io=io)
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_such_integers(tmp_path):
    kzoo.export(attentive(), tmp_path / "model.tflite")
    with pytest.raises(InvalidValueError, match=r"io='uint8' is for files of 8-bit integers;.*is float32"):
        with_io(tmp_path / "model.tflite", "uint8")
    (tmp_path / "damaged.tflite").write_bytes((tmp_path / "model.tflite").read_bytes()[:3000])
    with pytest.raises(InvalidValueError, match="no LiteRT file that this interpreter can run"):
        with_io(tmp_path / "damaged.tflite", "uint8")


def changed(content: bytes, change) -> bytes:
    """The file with the tensors of its input and output changed."""
    model = unpack_file(content)
    graph = model.subgraphs[0]
    change(graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]])
    return pack_file(model)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_integers_without_a_scale_stay_what_they_are(softmax, monkeypatch, side, io):
    """Of others' files: indices and raw bytes have no scale, and no file would run that gives them one."""

    def bare(*tensors):
        tensors[side].quantization = None

    monkeypatch.setattr("kzoo.edge.interface.LiteRTModel", lambda content: None)  # which would refuse this one
    with pytest.raises(InvalidValueError, match=r"is int8 without a scale, which stands for itself: it cannot become"):
        with_io(changed(softmax[0], bare), io)


@pytest.mark.parametrize("side", [0, 1])
def test_numbers_of_another_type_stay_what_they_are(softmax, monkeypatch, side):
    def indices(*tensors):
        tensors[side].type = 2  # INT32

    monkeypatch.setattr("kzoo.edge.interface.LiteRTModel", lambda content: None)
    with pytest.raises(InvalidValueError, match=r"is another type without a scale.*cannot become float32"):
        with_io(changed(softmax[0], indices), "float32")


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_tensors_without_names(softmax, io):
    def unnamed(*tensors):
        for tensor in tensors:
            tensor.name = None

    content, images = changed(softmax[0], unnamed), softmax[1]
    found, expected = LiteRTModel(with_io(content, io)), LiteRTModel(content)
    np.testing.assert_allclose(
        next(iter(found.predict_each(images).values())),
        next(iter(expected.predict_each(images).values())),
        atol=0.501 / 256,
    )
