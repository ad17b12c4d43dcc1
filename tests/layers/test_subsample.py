"""Shortcut option A: every second pixel, zeros around the channels."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map

from kzoo.errors import InvalidValueError
from kzoo.layers import Subsample


@pytest.mark.parametrize(("strides", "channels"), [(1, None), (2, None), (2, 12), (3, 8), (1, 10)])
def test_picks_pixels_and_pads_channels(strides, channels):
    x = feature_map(2, 5, 7, 6)
    y = np.array(Subsample(strides, channels)(x))
    expected = np.zeros((2, -(-5 // strides), -(-7 // strides), channels or 6), "float32")
    side = ((channels or 6) - 6) // 2
    for i in range(expected.shape[1]):
        for j in range(expected.shape[2]):
            for c in range(6):
                expected[:, i, j, side + c] = x[:, i * strides, j * strides, c]
    np.testing.assert_array_equal(y, expected)  # copies are exact


def test_half_precision_keeps_its_type():
    y = Subsample(2, 8, dtype="mixed_float16")(feature_map(2, 5, 7, 6))
    assert y.dtype == "float16"


def test_layer_contract(tmp_path):
    check_layer(Subsample(3, 10, name="shortcut"), (2, 5, 7, 6), tmp_path)


def test_unknown_size():
    assert Subsample(2, 8)(keras.Input((None, None, 4))).shape == (None, None, None, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(channels=4), "cannot pad 6 channels to 4"),
        (dict(channels=9), "cannot pad 6 channels to 9 .* larger by an even number"),
    ],
)
def test_impossible_channels(options, message):
    with pytest.raises(InvalidValueError, match=message):
        Subsample(**options)(feature_map(2, 5, 7, 6))


def test_bad_strides():
    with pytest.raises(InvalidValueError, match="strides=0 must be a positive integer"):
        Subsample(0)
