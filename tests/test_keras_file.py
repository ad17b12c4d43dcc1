"""`.keras` files from anywhere: refused by what they claim before it is done, in one line."""

import io
import json
import resource
import struct
import subprocess
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

import kzoo.layers
from kzoo.errors import InvalidValueError, WeightsError
from kzoo.keras_file import open_keras
from kzoo.predict.classifier import load_keras
from kzoo.weights.files import open_keras_weights

CAPTURED = dict(capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The parts of a small file, with the state of an optimizer."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = kzoo.layers.SqueezeExcite(name="attention")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="dense")(x), name="small")
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5), "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    path = tmp_path_factory.mktemp("keras") / "small.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, parts: dict[str, bytes], *more: tuple[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in (*parts.items(), *more):
            archive.writestr(name, part)
    return path


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def config_with(parts, change) -> dict[str, bytes]:
    config = json.loads(parts["config.json"])
    change({layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]}, config)
    return parts | {"config.json": json.dumps(config).encode()}


def test_model_and_optimizer_come_back(parts, tmp_path):
    model = open_keras(pack(tmp_path / "m.keras", parts), compile=True)
    assert [layer.name for layer in model.layers][1:] == ["conv", "attention", "pool", "dense"]
    assert (float(model.optimizer.learning_rate), model.optimizer.momentum) == (0.25, 0.5)
    assert len(model.optimizer.variables) == 2 + len(model.trainable_variables)
    assert load_keras(tmp_path / "m.keras").name == "small"


def test_a_file_that_unpacks_to_more_than_it_may_is_refused(parts, tmp_path):
    zeros = {"model.weights.h5": parts["model.weights.h5"] + bytes(300_000_000)}
    path = pack(tmp_path / "m.keras", parts | zeros)
    before = peak_mb()
    with pytest.raises(InvalidValueError, match=r"and unpacks to 300,\d+,\d+; at most \d+,\d+,\d+ would be unpacked"):
        load_keras(path)
    assert peak_mb() - before < 100
    with pytest.raises(InvalidValueError, match="unpacks to 300"):  # whichever part it is
        load_keras(pack(path, parts, ("assets/x", bytes(300_000_000))))


@pytest.mark.parametrize(
    ("layer", "field", "value", "numbers"),
    [
        ("dense", "units", 10**10, "70,000,"),
        ("conv", "filters", 10**9, r"\d+,\d+,\d+"),
        ("attention", "reduction", -1, ""),
    ],
)
def test_a_model_larger_than_its_weights_is_never_made(layer, field, value, numbers, parts, tmp_path):
    path = pack(tmp_path / "m.keras", config_with(parts, lambda layers, _: layers[layer].update({field: value})))
    before = peak_mb()
    with pytest.raises(InvalidValueError, match="cannot be read as a Keras model") as caught:
        load_keras(path)
    assert len(str(caught.value).splitlines()) == 1
    assert peak_mb() - before < 100


def test_a_model_of_more_numbers_than_the_file_holds_is_told(parts, tmp_path):
    wide = config_with(parts, lambda layers, _: layers["dense"].update(units=10**8))
    with pytest.raises(InvalidValueError, match=r"describes a model of 500,000,\d+ numbers and holds \d+"):
        load_keras(pack(tmp_path / "m.keras", wide))


def test_weights_in_another_file_are_refused_by_name(parts, tmp_path):
    np.full(3, 1234.5, "float32").tofile(tmp_path / "secret")
    buffer = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        del file["layers/dense/vars/1"]
        file.create_dataset("layers/dense/vars/1", (3,), "float32", external=[(str(tmp_path / "secret"), 0, 12)])
    path = pack(tmp_path / "m.keras", parts | {"model.weights.h5": buffer.getvalue()})
    for opener in (open_keras, load_keras):
        with pytest.raises(InvalidValueError, match="layers/dense/vars/1 keeps its numbers in another file"):
            opener(path)


def test_a_chunk_larger_than_its_weights_is_not_unpacked(parts, tmp_path):
    buffer = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        del file["layers/dense/vars/1"]
        file.create_dataset("layers/dense/vars/1", (3,), maxshape=(None,), chunks=(4 * 10**8,), compression="gzip")
    path = pack(tmp_path / "m.keras", parts | {"model.weights.h5": buffer.getvalue()})
    (tmp_path / "m.weights.h5").write_bytes(buffer.getvalue())
    message = "1,600,000,000 of them in layers/dense/vars/1"
    with pytest.raises(InvalidValueError, match=message):
        open_keras(path)
    for weights in (path, tmp_path / "m.weights.h5"):
        with pytest.raises(WeightsError, match=message), open_keras_weights(weights):
            pass


class Doubling(keras.layers.Layer):
    """Not registered."""

    def call(self, x):
        return 2 * x


def squashed(x):
    return keras.ops.tanh(x)


def test_what_only_the_scope_of_the_caller_knows_is_found(tmp_path):
    inputs = keras.Input((4,))
    outputs = Doubling()(keras.layers.Dense(3, activation=squashed)(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    with keras.saving.custom_object_scope({"Doubling": Doubling, "squashed": squashed}):
        for opener in (keras.saving.load_model, open_keras):
            model = opener(tmp_path / "m.keras")
            assert isinstance(model.layers[-1], Doubling)
            assert model.layers[1].activation is squashed
    with pytest.raises(InvalidValueError, match=r"it uses '(Doubling|squashed)', which neither Keras nor kzoo has"):
        open_keras(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("layers", "layerz"),
        ("layers/dense", "layers/densf"),
        ("layers/squeeze_excite/expand", "layers/squeeze_excite/expanf"),
        ("layers/dense/vars/0", "layers/dense/vars/7"),
    ],
)
def test_weights_that_are_not_where_they_belong_are_missed(old, new, parts, tmp_path):
    """No layer keeps the weights that it was made with."""
    buffer = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        file.move(old, new)
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(InvalidValueError, match=r"objects could not be loaded.* object <\w+ name=\w+"),
    ):
        load_keras(pack(tmp_path / "m.keras", parts | {"model.weights.h5": buffer.getvalue()}))


def test_no_code_of_the_file_is_run(parts, tmp_path):
    inputs = keras.Input((4,))
    path = tmp_path / "m.keras"
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(path)
    with pytest.raises(InvalidValueError, match="deserialization of a `Lambda` layer"):
        load_keras(path)


def test_what_no_one_has_registered_is_named(parts, tmp_path):
    def change(layers, config):
        attention = next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == "attention")
        attention.update(class_name="Attention9", registered_name="mine>Attention9", module="mine.layers")

    with pytest.raises(InvalidValueError, match="it uses 'Attention9', which neither Keras nor kzoo has; first"):
        load_keras(pack(tmp_path / "m.keras", config_with(parts, change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: {"model.weights.h5": parts["model.weights.h5"]}, "0 parts of the name config"),
        (lambda parts: parts | {"../x": b"1"}, r"holds '\.\./x', which Keras does not write"),
        (lambda parts: parts | {"config.json": b"[]"}, "config.json describes no model"),
        (lambda parts: parts | {"config.json": b"{}"}, "config.json describes no model but dict"),
        (lambda parts: parts | {"config.json": b"\xff"}, "utf-8"),
        (lambda parts: parts | {"config.json": b"[" * 10**5}, "config.json is nested more than"),
        (lambda parts: parts | {"model.weights.h5": b"x"}, "signature not found"),
    ],
)
def test_parts_that_are_wrong(change, message, parts, tmp_path):
    with pytest.raises(InvalidValueError, match=message) as caught:
        load_keras(pack(tmp_path / "m.keras", change(parts)))
    assert len(str(caught.value).splitlines()) == 1


def test_parts_that_are_there_twice_or_locked(parts, tmp_path):
    path = tmp_path / "m.keras"
    with pytest.warns(UserWarning, match="Duplicate name"):
        pack(path, parts, ("model.weights.h5", b"x"))
    with pytest.raises(InvalidValueError, match=r"holds 2 parts of the name model\.weights"):
        load_keras(path)
    content = bytearray(pack(path, parts).read_bytes())
    at = content.index(b"PK\x01\x02")
    while at >= 0:  # each in the list of the parts
        content[at + 8 : at + 10] = struct.pack("<H", 1)
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)
    with pytest.raises(InvalidValueError, match="encrypted"):
        load_keras(path)


@pytest.mark.slow  # a Python of its own
def test_keras_alone_names_the_package_of_our_layers(parts, tmp_path):
    """Without `import kzoo` Keras cannot know them, and imports no module of others; its message has our name."""
    path = pack(tmp_path / "m.keras", parts)
    ran = subprocess.run([sys.executable, "-c", f"import keras; keras.saving.load_model({str(path)!r})"], **CAPTURED)
    assert "kzoo>SqueezeExcite" in ran.stderr
    ran = subprocess.run(
        [sys.executable, "-c", f"import keras, kzoo; keras.saving.load_model({str(path)!r})"], **CAPTURED
    )
    assert ran.returncode == 0
