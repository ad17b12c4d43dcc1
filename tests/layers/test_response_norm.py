"""Local response normalisation against its formula, with loops, and against TensorFlow's operation."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import check_layer, feature_map, relative_error

from kzoo.errors import InvalidValueError
from kzoo.layers.response_norm import LocalResponseNormalization


def response_norm(x, size, k, alpha, beta):
    """Krizhevsky et al. 2012, section 3.3: the sum runs from max(0, c - n/2) to min(N - 1, c + n/2)."""
    x = x.astype("float64")
    channels = x.shape[-1]
    y = np.zeros_like(x)
    for position in itertools.product(*map(range, x.shape[:3])):
        a = x[position]
        for c in range(channels):
            total = 0.0
            for j in range(max(0, c - size // 2), min(channels - 1, c + size // 2) + 1):
                total += a[j] ** 2
            y[(*position, c)] = a[c] / (k + alpha * total) ** beta
    return y


@pytest.mark.parametrize("size", [1, 3, 5, 11, 25])  # the last two are wider than the channels
@pytest.mark.parametrize(
    ("k", "alpha", "beta"), [(2.0, 1e-4, 0.75), (1.0, 0.5, 0.75), (0.1, 1.0, 2.0), (1, 1, 1)], ids=str
)
def test_is_the_formula(size, k, alpha, beta):
    x = 30 * feature_map(2, 5, 7, 10)
    expected = response_norm(x, size, k, alpha, beta)
    assert relative_error(LocalResponseNormalization(size, k, alpha, beta)(x), expected) < 1e-5


def test_defaults_are_the_papers():
    x = 100 * feature_map(2, 5, 7, 12)
    assert relative_error(LocalResponseNormalization()(x), response_norm(x, 5, 2.0, 1e-4, 0.75)) < 1e-5


@pytest.mark.parametrize("size", [1, 5, 25])
def test_is_tensorflows_operation(size):
    x = 10 * feature_map(2, 5, 7, 12)
    expected = tf.nn.local_response_normalization(x, depth_radius=(size - 1) // 2, bias=1.5, alpha=0.02, beta=0.6)
    assert relative_error(LocalResponseNormalization(size, 1.5, 0.02, 0.6)(x), expected) < 1e-5


def test_gradient_is_that_of_tensorflows_operation():
    x = tf.constant(10 * feature_map(2, 5, 7, 12))
    weights = feature_map(2, 5, 7, 12, seed=2)
    gradients = []
    for normalise in (
        LocalResponseNormalization(alpha=0.02),
        lambda a: tf.nn.local_response_normalization(a, depth_radius=2, bias=2.0, alpha=0.02, beta=0.75),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weights * normalise(x))
        gradients.append(tape.gradient(loss, x))
    assert relative_error(*gradients) < 1e-5


def test_caffe_and_torch_divide_alpha_by_the_size():
    x = 100 * feature_map(2, 5, 7, 12)
    expected = np.zeros(x.shape)
    for c in range(12):  # torch.nn.LocalResponseNorm: a mean over the window, whose zeros beyond the ends count
        mean = sum(x[..., j].astype("float64") ** 2 for j in range(c - 2, c + 3) if 0 <= j < 12) / 5
        expected[..., c] = x[..., c] / (1 + 1e-4 * mean) ** 0.75
    assert relative_error(LocalResponseNormalization(5, k=1.0, alpha=1e-4 / 5)(x), expected) < 1e-5


def test_large_values_in_half_precision():
    x = (feature_map(2, 5, 7, 12) * 5000).astype("float16")
    layer = LocalResponseNormalization(dtype="mixed_float16")
    y = layer(x)
    assert y.dtype == "float16"
    assert relative_error(y, response_norm(x, 5, 2.0, 1e-4, 0.75)) < 1e-3  # one rounding to 11 bits


def test_double_precision_stays():
    x = feature_map(2, 5, 7, 12).astype("float64")
    y = LocalResponseNormalization(alpha=0.5, dtype="float64")(x)
    assert relative_error(y, response_norm(x, 5, 2.0, 0.5, 0.75)) < 1e-14


def test_zeros_stay_zero():
    np.testing.assert_array_equal(LocalResponseNormalization()(np.zeros((1, 5, 7, 4), "float32")), 0)


@pytest.mark.parametrize(
    "layer",
    [LocalResponseNormalization(), LocalResponseNormalization(3, 1.0, 0.1, 0.5, name="lrn")],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 5, 7, 12), tmp_path)


def test_unknown_size():
    layer = LocalResponseNormalization(alpha=0.5)
    inputs = keras.Input((None, None, 12))
    x = feature_map(2, 5, 7, 12)
    assert relative_error(keras.Model(inputs, layer(inputs))(x), response_norm(x, 5, 2.0, 0.5, 0.75)) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=4), "size=4 must be a positive odd number"),
        (dict(size=0), "size=0 must be a positive odd number"),
        (dict(k=0), "k=0 must be a number above 0"),
        (dict(alpha=-1e-4), r"alpha=-0\.0001 must be a number above 0"),
        (dict(beta=0.0), r"beta=0\.0 must be a number above 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        LocalResponseNormalization(**options)


def test_inputs_that_are_no_map():
    with pytest.raises(InvalidValueError, match=r"feature maps .* got shape \(None, 5, 32\)"):
        LocalResponseNormalization()(keras.Input((5, 32)))
