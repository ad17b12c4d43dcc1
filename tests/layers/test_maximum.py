"""The maximum while training: its value, and a gradient that goes to one element, whatever computes it."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import feature_map

from kzoo.layers.maximum import maximum


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("axis", [-1, 2, (1, 2)])
def test_value_and_gradient(axis, jit_compile):
    x = np.round(2 * feature_map(3, 5, 7, 4)) + 0.0  # many stand several times, and none is -0.0

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(x, weights):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = maximum(x, axis, training=True)
            loss = tf.reduce_sum(weights * y)
        return y, tape.gradient(loss, x)

    expected = np.max(x, axis=axis, keepdims=True)
    weights = feature_map(*expected.shape, seed=1)
    y, gradient = map(np.array, value_and_gradient(tf.constant(x), tf.constant(weights)))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(maximum(x, axis, training=False), expected)
    axes = tuple(np.atleast_1d(axis))
    np.testing.assert_array_equal((gradient != 0).sum(axis=axes, keepdims=True), np.ones_like(expected))
    np.testing.assert_array_equal(gradient.sum(axis=axes, keepdims=True), weights)
    assert (x == expected)[gradient != 0].all()
    if axis != (1, 2):
        np.testing.assert_array_equal(np.argmax(gradient != 0, axis=axis), np.argmax(x, axis=axis))


@pytest.mark.parametrize("training", [False, True])
def test_infinite_values_are_values(training):
    x = np.array([[-np.inf, 1, np.inf], [-np.inf, -np.inf, -np.inf]], "float32")
    np.testing.assert_array_equal(maximum(x, -1, training), [[np.inf], [-np.inf]])
