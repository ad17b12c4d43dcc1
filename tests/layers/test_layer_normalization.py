"""Layer normalisation against its equation and Keras' layer, whose weights it takes."""

import keras
import numpy as np
import pytest
from helpers import feature_map, randomise, relative_error

from kzoo.errors import InvalidValueError
from kzoo.layers import LayerNormalization


@pytest.mark.quick
@pytest.mark.parametrize("options", [{}, dict(epsilon=0.5), dict(center=False), dict(scale=False)])
def test_is_equation_4(options):
    x = 3 * feature_map(2, 5, 7, 6) + 2
    layer = LayerNormalization(**options)
    layer.build(x.shape)
    randomise(layer)
    gamma, beta = (0.0 if weight is None else np.array(weight, "float64") for weight in (layer.gamma, layer.beta))
    deviation = np.sqrt(x.var(-1, keepdims=True) + options.get("epsilon", 1e-3))
    expected = (x - x.mean(-1, keepdims=True)) / deviation * (1 if layer.gamma is None else gamma) + beta
    assert relative_error(layer(x), expected) < 1e-5

    theirs = keras.layers.LayerNormalization(**options)
    theirs.build(x.shape)
    theirs.set_weights(layer.get_weights())
    assert relative_error(layer(x), theirs(x)) < 1e-5


def test_comes_back_from_its_config():
    layer = LayerNormalization(epsilon=1e-5, center=False, name="norm")
    again = LayerNormalization.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(axis=1), "axis=1"),
        (dict(axis=[1, 2]), r"axis=\[1, 2\]"),
        (dict(rms_scaling=True), "rms_scaling=True"),
        (dict(epsilon=0), "epsilon=0 must be a number above 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        LayerNormalization(**options)
