"""Enlarging maps and matching their sizes, against loops over pixels."""

import keras
import numpy as np
import pytest
from dense_loops import fit, upsample_bilinear, upsample_nearest
from helpers import feature_map, slow_but

from kzoo.errors import InvalidValueError
from kzoo.layers import MatchSize, Upsample

LOOPS = {"nearest": upsample_nearest, "bilinear": upsample_bilinear}
SIZES = [(5, 7), (1, 3), (1, 1)]


@pytest.mark.parametrize("interpolation", LOOPS)
@pytest.mark.parametrize("factor", slow_but((1, 2, 3, 8), (1, 2, 3, 4, 5, 8, 16)))
@pytest.mark.parametrize("size", SIZES)
def test_upsample_equals_the_loop_and_keras(interpolation, factor, size):
    x = feature_map(2, *size, 3)
    y = Upsample(factor, interpolation)(x)
    assert y.shape == Upsample(factor, interpolation).compute_output_shape(x.shape)
    np.testing.assert_allclose(y, LOOPS[interpolation](x, factor), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(
        y, keras.layers.UpSampling2D(factor, interpolation=interpolation)(x), rtol=1e-5, atol=2e-6
    )


@pytest.mark.parametrize("interpolation", LOOPS)
def test_upsample_of_unknown_sizes(interpolation):
    inputs = keras.Input((None, None, 3))
    outputs = Upsample(3, interpolation)(inputs)
    assert outputs.shape == (None, None, None, 3)
    model = keras.Model(inputs, outputs)
    for size in SIZES:
        x = feature_map(2, *size, 3)
        np.testing.assert_array_equal(model.predict(x, verbose=0), Upsample(3, interpolation)(x))


@pytest.mark.parametrize("rounding", [0, 1, 3])
@pytest.mark.parametrize("size", [(6, 9), (5, 9), (7, 10), (3, 4), (10, 30), (6, 1)])
def test_match_size_equals_the_loop(rounding, size):
    x, other = feature_map(2, 6, 9, 3), feature_map(2, *size, 5)
    layer = MatchSize(rounding)
    y = layer([x, other])
    assert y.shape == layer.compute_output_shape([x.shape, other.shape]) == (2, *size, 3)
    np.testing.assert_array_equal(y, fit(x, *size, rounding).astype("float32"))
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 5))]
    unknown = keras.Model(inputs, MatchSize(rounding)(inputs))
    np.testing.assert_array_equal(unknown.predict([x, other], verbose=0), y)


def test_match_size_where_one_axis_is_known():
    inputs = [keras.Input((6, None, 3)), keras.Input((5, None, 1))]
    model = keras.Model(inputs, MatchSize()(inputs))
    assert model.output.shape == (None, 5, None, 3)
    x = feature_map(2, 6, 9, 3)
    np.testing.assert_array_equal(model.predict([x, feature_map(2, 5, 8, 1)], verbose=0), x[:, :5, :8])


@pytest.mark.parametrize("factor", [0, -1, 1.5, True, "2", None])
def test_bad_factors(factor):
    with pytest.raises(InvalidValueError, match=r"factor=.* must be a positive integer"):
        Upsample(factor)


def test_other_bad_arguments():
    with pytest.raises(InvalidValueError, match="interpolation='cubic' is not accepted; use one of 'nearest', 'bil"):
        Upsample(2, "cubic")
    with pytest.raises(InvalidValueError, match="takes feature maps"):
        Upsample(2)(keras.Input((5, 3)))
    for rounding in (-1, 1.0, True, None):
        with pytest.raises(InvalidValueError, match=r"rounding=.* must be an integer of at least 0"):
            MatchSize(rounding)
    x = keras.Input((5, 7, 3))
    for inputs in (x, [x], [x, x, x]):
        with pytest.raises(InvalidValueError, match="MatchSize takes a list, a map and another one"):
            MatchSize()(inputs)
    with pytest.raises(InvalidValueError, match="takes feature maps"):
        MatchSize()([x, keras.Input((5, 7))])
