"""Taps: feature maps by name, from the model's own weights."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise

import kzoo
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.registry import lookup
from kzoo.taps import tap_names

NARROW = {**lookup("resnet18").narrow, "depths": (2, 2, 1, 1)}


@pytest.fixture
def model():
    return randomise(kzoo.build("resnet18", input_shape=(64, 96, 3), **NARROW))


@pytest.mark.quick
def test_maps_are_the_last_of_their_stride(model):
    images = pixels(2, 64, 96, 3)
    maps = kzoo.pyramid(model, ["p5", "p1", "p3"])(images)
    assert {level: map.shape[1:] for level, map in maps.items()} == {
        "p5": (2, 3, 16),
        "p1": (32, 48, 8),
        "p3": (8, 12, 8),
    }
    last = {"p1": "stem_relu", "p3": "stage2_block2_relu2", "p5": "stage4_block1_relu2"}
    for level, layer in last.items():
        expected = keras.Model(model.input, model.get_layer(layer).output)(images)
        np.testing.assert_array_equal(maps[level], expected)


def test_preactivation_taps():
    model = randomise(kzoo.build("resnet50_v2", input_shape=(64, 64, 3), **NARROW))
    images = pixels(2, 64, 64, 3)
    # a strided block is the last of its stage: its input is the last map of the stride
    last = {"p1": "stem_conv", "p2": "stage1_block1_add", "p3": "stage2_block1_add", "p5": "final_relu"}
    maps = kzoo.pyramid(model, list(last))(images)
    for level, layer in last.items():
        np.testing.assert_array_equal(maps[level], keras.Model(model.input, model.get_layer(layer).output)(images))


def test_weights_are_shared(model):
    pyramid = kzoo.pyramid(model, ["p2"])
    kernel = model.get_layer("stem_conv").kernel
    kernel.assign(np.zeros(kernel.shape))
    assert not np.any(pyramid.get_layer("stem_conv").kernel)
    assert pyramid.name == "resnet18_pyramid"


def test_taps_survive_saving_and_cloning(model, tmp_path):
    taps = ["p1", "p2", "p3", "p4", "p5"]
    assert tap_names(model) == taps
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = pixels(2, 64, 96, 3)
    for other in (loaded, keras.models.clone_model(model)):
        assert tap_names(other) == taps
    np.testing.assert_array_equal(kzoo.pyramid(loaded, taps)(images)["p4"], kzoo.pyramid(model, taps)(images)["p4"])


def test_levels_above_nine_come_last():
    x = keras.Input((4, 4, 1))
    y = x
    for name in ("p10", "p2", "q3", "p9"):
        y = keras.layers.Identity(name=name)(y)
    assert tap_names(keras.Model(x, y)) == ["p2", "p9", "p10"]


def test_bad_levels(model):
    with pytest.raises(UnknownNameError, match="resnet18 has no tap 'p6'; it has p1, p2, p3, p4, p5"):
        kzoo.pyramid(model, ["p5", "p6"])
    for levels in ([], "p5", ()):
        with pytest.raises(InvalidValueError, match="must be a list of tap names among p1, p2, p3, p4, p5"):
            kzoo.pyramid(model, levels)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="mlp")
    with pytest.raises(UnknownNameError, match="mlp has no tap 'p5'; it has none"):
        kzoo.pyramid(plain, ["p5"])
