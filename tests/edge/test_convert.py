"""The converter's process: what it does to ours when it fails or dies, and whom it blames."""

from pathlib import Path

import keras
import pytest
from helpers import randomise

import kzoo
from kzoo.apart import Apart
from kzoo.edge import convert
from kzoo.errors import ExportError, OutputError


@keras.saving.register_keras_serializable(package="tests")
class Gamma(keras.layers.Layer):
    """Needs an op that LiteRT does not have."""

    def call(self, x):
        import tensorflow as tf

        return tf.math.igamma(tf.abs(x) + 1, tf.abs(x))


@pytest.fixture(scope="module")
def broken():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="first")(inputs)
    x = keras.layers.ReLU(name="second")(x)
    x = Gamma(name="third")(x)
    y = keras.layers.GlobalAveragePooling2D(name="fourth")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="fifth")(y), name="broken")


@pytest.fixture
def own_converter(monkeypatch):
    """A converter of the test's own, ended after it."""

    def start(worker: Path):
        converter = Apart(worker)
        monkeypatch.setattr(convert, "_CONVERTER", converter)
        started.append(converter)
        return converter

    started = []
    yield start
    for converter in started:
        converter.stop()


def test_a_process_that_was_killed_is_started_again_and_a_crash_survived_and_its_layer_named(
    broken, own_converter, tmp_path
):
    converter = own_converter(Path(__file__).with_name("crashing_worker.py"))
    converter.start()
    converter._process.kill()
    converter._process.wait()
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"the file before")
    message = (
        r"layer 'third' makes TensorFlow's converter crash \(SIGSEGV: F1121 the converter's last words\); replace"
    )
    with pytest.raises(ExportError, match=message):
        kzoo.export(broken, path)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.tflite"]
    assert path.read_bytes() == b"the file before"

    part = randomise(keras.Model(broken.inputs, broken.get_layer("second").output))
    assert kzoo.export(part, path).relative_error < 1e-6


def test_a_full_disk_is_no_fault_of_a_layer(monkeypatch):
    def full(self, path, **options):
        raise RuntimeError("OutOfRangeError: .../variables_temp/part-00000-of-00001; File too large")

    monkeypatch.setattr(keras.Model, "export", full)
    with pytest.raises(OutputError, match=r"cannot write small to .*, where it is conv.*: the disk is full.*TMPDIR"):
        convert.convert(keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()], name="small"))
