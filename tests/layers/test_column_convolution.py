"""The convolution of few channels to one, for groups of columns, against the plain one."""

import keras
import numpy as np
import pytest
from helpers import feature_map, relative_error

from kzoo.layers.column_convolution import column_convolution, columns_at_once


@pytest.mark.quick
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("width", [1, 4, 7, 9, 12, 16, 56])
def test_is_the_plain_convolution(width, size, channels):
    x = feature_map(2, 5, width, channels)
    random = np.random.default_rng(0)
    kernel = random.normal(size=(size, size, channels, 1)).astype("float32")
    bias = random.normal(size=1).astype("float32")
    expected = keras.ops.conv(x, kernel, padding="same") + bias
    assert relative_error(column_convolution(x, kernel, bias), expected) < 1e-5
    assert relative_error(column_convolution(x, kernel), expected - bias) < 1e-5


@pytest.mark.quick
@pytest.mark.parametrize(
    ("width", "size", "columns"),
    [
        (56, 7, 8),
        (28, 7, 7),
        (14, 7, 14),  # the whole width has no neighbours
        (7, 7, 7),
        (113, 7, 1),  # no group of a prime width is small
        (12, 1, 6),
    ],
)
def test_columns_in_a_group(width, size, columns):
    assert columns_at_once(width, size) == columns


def test_maps_of_unknown_size():
    inputs = keras.Input((None, None, 2))
    kernel = np.ones((3, 3, 2, 1), "float32")
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: column_convolution(x, kernel))(inputs))
    x = feature_map(2, 5, 9, 2)
    assert relative_error(model(x), keras.ops.conv(x, kernel, padding="same")) < 1e-5
