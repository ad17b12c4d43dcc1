"""Patch merging against slices, as the authors write it."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map

from kzoo.errors import InvalidValueError
from kzoo.layers import MergePixels


@pytest.mark.quick
def test_columns_from_the_top():
    x = feature_map(2, 6, 10, 5)
    expected = np.concatenate([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], axis=-1)
    np.testing.assert_array_equal(MergePixels()(x), expected)


def test_layer_contract(tmp_path):
    check_layer(MergePixels(), (2, 6, 4, 16), tmp_path)


@pytest.mark.parametrize("size", [(5, 6), (6, 5)])
def test_odd_sizes_are_refused(size):
    with pytest.raises(InvalidValueError, match=f"a map of {size[0]}×{size[1]} pixels .* pad it"):
        MergePixels()(keras.Input((*size, 8)))
