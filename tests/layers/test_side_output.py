"""A branch that stays in a model although its output does not need it."""

import keras
import numpy as np
import pytest
from helpers import feature_map

from kzoo.errors import InvalidValueError
from kzoo.layers import SideOutput


def test_passes_the_trunk_on_and_keeps_the_branches(tmp_path):
    inputs = keras.Input((5, 7, 3))
    branches = [keras.layers.Conv2D(n, n, name=f"branch{n}")(inputs) for n in (1, 2)]
    model = keras.Model(inputs, SideOutput()([inputs, *branches]))
    x = feature_map(2, 5, 7, 3)
    np.testing.assert_array_equal(model(x), x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in ("branch1", "branch2"):
        branch, again = (keras.Model(each.input, each.get_layer(name).output) for each in (model, loaded))
        np.testing.assert_array_equal(branch(x), again(x))


def test_dtype_and_shape_are_the_trunks():
    layer = SideOutput(dtype="mixed_float16")
    assert layer([feature_map(2, 5, 7, 3), feature_map(2, 1, 1, 4)]).dtype == "float16"
    assert layer.compute_output_shape([(None, 5, 7, 3), (None, 1, 1, 4)]) == (None, 5, 7, 3)
    assert SideOutput.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("make", [lambda x: x, lambda x: [x]])
def test_bad_inputs(make):
    with pytest.raises(InvalidValueError, match="SideOutput takes a list, the trunk and then its side outputs"):
        SideOutput()(make(keras.Input((5, 7, 3))))
