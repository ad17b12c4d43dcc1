"""Learned factors for the channels of a residual branch."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map

from kzoo.errors import InvalidValueError
from kzoo.layers import LayerScale


def test_multiplies_every_channel_by_its_factor():
    x = feature_map(2, 5, 7, 3)
    layer = LayerScale(0.1)
    np.testing.assert_allclose(layer(x), x * np.float32(0.1), rtol=1e-6)
    layer.scale.assign([2.0, -1.0, 0.5])
    np.testing.assert_array_equal(layer(x), x * np.float32([2.0, -1.0, 0.5]))


def test_starts_at_1e_5():
    layer = LayerScale()
    layer.build((None, 5, 7, 3))
    np.testing.assert_array_equal(layer.scale, np.full(3, 1e-5, "float32"))


def test_layer_contract(tmp_path):
    check_layer(LayerScale(0.1, name="scale"), (2, 5, 7, 6), tmp_path)


@pytest.mark.parametrize("initial", [0, -0.1, float("nan")])
def test_bad_factors(initial):
    with pytest.raises(InvalidValueError, match=f"initial={initial} must be a number above 0, such as 1e-5"):
        LayerScale(initial)


def test_inputs_that_are_no_map():
    with pytest.raises(InvalidValueError, match=r"LayerScale .* takes feature maps"):
        LayerScale()(keras.Input((7, 3)))
