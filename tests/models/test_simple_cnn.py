"""The small digit network: size, cost, taps, and its layers by hand."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error

import kzoo
from kzoo.errors import InvalidValueError

SMALL = dict(widths=(4, 6), kernel_size=3, dense_units=8)


def test_size_and_cost():
    info = kzoo.describe("simple_cnn")
    assert info.input_shape == (28, 28, 1)
    assert info.num_classes == 10
    assert info.trainable_parameters == 3_274_634
    assert info.macs == 28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64 + 7 * 7 * 64 * 1024 + 1024 * 10
    assert info.taps == {"p0": (28, 28, 32), "p1": (14, 14, 64), "p2": (7, 7, 64)}
    assert kzoo.build("simple_cnn").get_layer("head_dropout1").rate == 0.5


def test_layers():
    model = kzoo.build("simple_cnn", attention="cbam", **SMALL)
    assert [layer.name for layer in model.layers] == [
        *("image", "preprocessing"),
        *("conv1", "relu1", "attention1", "p0", "pool1"),
        *("conv2", "relu2", "attention2", "p1", "pool2", "p2"),
        *("head_flatten", "head_fc1", "head_relu1", "head_dropout1", "head_dense", "head_activation"),
    ]


def convolve(x, kernel, bias):
    """Convolution with zeros around the map, one output pixel after the other."""
    margin = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    y = np.empty((*x.shape[:3], kernel.shape[-1]))
    for i, j in np.ndindex(*x.shape[1:3]):
        window = padded[:, i : i + kernel.shape[0], j : j + kernel.shape[1]]
        y[:, i, j] = np.tensordot(window, kernel, 3) + bias
    return y


def pool(x):
    """The largest of every 2×2 pixels; an odd row or column is left over."""
    count, height, width, channels = x.shape
    blocks = x[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, width // 2, 2, channels)
    return blocks.max((2, 4))


def test_logits_by_hand():
    shape = (13, 10, 1)
    model = randomise(kzoo.build("simple_cnn", input_shape=shape, num_classes=3, classifier_activation=None, **SMALL))
    images = pixels(2, *shape)
    kernel1, bias1, kernel2, bias2, *dense = (weight.astype("float64") for weight in model.get_weights())
    x = images / 127.5 - 1
    x = pool(np.maximum(convolve(x, kernel1, bias1), 0))
    x = pool(np.maximum(convolve(x, kernel2, bias2), 0))
    assert x.shape == (2, 3, 2, 6)
    x = np.maximum(x.reshape(2, -1) @ dense[0] + dense[1], 0)
    assert relative_error(model(images), x @ dense[2] + dense[3]) < 1e-5


def test_attention_is_a_branch():
    kzoo.build("simple_cnn", attention=lambda x, name: keras.layers.Rescaling(0.5, name=name)(x), **SMALL)
    with pytest.raises(InvalidValueError, match=r"attention='non_local' does not fit .* use se, cbam"):
        kzoo.build("simple_cnn", attention="non_local")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(widths=()), r"widths=\(\) must have one number for each convolution"),
        (dict(widths=32), "widths=32 must be a tuple of positive integers"),
        (dict(widths=(32, 0)), r"widths=\(32, 0\)"),
        (dict(kernel_size=4), "kernel_size=4 must be a positive odd number"),
        (dict(dense_units=0), "dense_units=0 must be a positive integer"),
        (dict(dropout=1.0), "dropout=1.0 must be a number of at least 0 and below 1"),
        (dict(attention="sam"), "attention='sam' is not accepted"),
        (dict(input_shape=(None, None, 1)), "simple_cnn needs a fixed image size"),
        (dict(input_shape=(3, 28, 1)), "needs at least 4×4 pixels"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("simple_cnn", **options)
