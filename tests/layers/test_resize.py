"""Bilinear resizing against its equation, written with loops, eager and under XLA."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import feature_map, relative_error

from kzoo.layers.resize import resize_bilinear


def reference(x, size):
    """Every new pixel's centre lies among four old centres, weighted by nearness; the edge repeats."""
    _, height, width, _ = x.shape
    y = np.zeros((len(x), *size, x.shape[-1]))
    for i in range(size[0]):
        for j in range(size[1]):
            row = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            column = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = row - top, column - left
            y[:, i, j] = (1 - down) * ((1 - across) * x[:, top, left] + across * x[:, top, right])
            y[:, i, j] += down * ((1 - across) * x[:, bottom, left] + across * x[:, bottom, right])
    return y


@pytest.mark.parametrize(
    ("old", "new"), [((5, 7), (9, 13)), ((5, 7), (10, 14)), ((5, 7), (5, 9)), ((1, 2), (3, 4)), ((9, 6), (5, 3))]
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_is_the_equation(old, new, jit_compile):
    x = feature_map(2, *old, 3)
    resize = tf.function(lambda x: resize_bilinear(x, new), jit_compile=jit_compile)
    assert relative_error(resize(x), reference(x, new)) < 1e-5
