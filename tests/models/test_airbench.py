"""The small network of the fastest runs: size, cost, taps, its layers by hand, and what it refuses."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error
from scipy.special import erf

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.models.depths import depth_of_layers


def test_size_and_cost():
    info = kzoo.describe("airbench94")
    convolutions = 12 * 24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    norms = 2 * (24 + 2 * (64 + 256 + 256))
    assert info.trainable_parameters == convolutions + norms + 256 * 10 + 10
    cost = 31**2 * (12 * 24 + 9 * 24 * 64) + 15**2 * 9 * (64 * 64 + 64 * 256) + 7**2 * 9 * 2 * 256**2
    assert info.macs == cost + 3**2 * 9 * 256**2 + 256 * 10
    assert info.taps == {"p0": (31, 31, 24), "p1": (15, 15, 64), "p2": (7, 7, 256), "p3": (3, 3, 256)}


def test_depths_are_those_of_the_stages():
    depths = depth_of_layers(kzoo.build("airbench94", widths=(4, 8)))
    wanted = dict(stem_conv=0, stage1_conv1=1, stage2_conv2=2, stage2_bn2=2, head_dense=3)
    assert {name: depths[name] for name in wanted} == wanted


def convolve(x, kernel, margin):
    """Convolution with zeros around the map, one output pixel after the other."""
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    rows, columns = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
    y = np.empty((len(x), rows, columns, kernel.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        y[:, i, j] = np.tensordot(x[:, i : i + kernel.shape[0], j : j + kernel.shape[1]], kernel, 3)
    return y


def test_logits_by_hand():
    model = kzoo.build("airbench94", input_shape=(14, 11, 3), num_classes=5, widths=(4, 6), classifier_activation=None)
    randomise(model)
    images = pixels(2, 14, 11, 3)
    weights = {weight.path: weight.numpy().astype("float64") for weight in model.weights}

    def normalise(x, name):
        gamma, beta, mean, variance = (
            weights[f"{name}/{each}"] for each in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def pool(x):
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        return x[:, : 2 * rows, : 2 * columns].reshape(len(x), rows, 2, columns, 2, -1).max(axis=(2, 4))

    x = keras.Model(model.input, model.get_layer("preprocessing").output)(images).numpy().astype("float64")
    x = gelu(normalise(convolve(x, weights["stem_conv/kernel"], 0), "stem_bn"))
    for stage in ("stage1", "stage2"):
        x = gelu(normalise(pool(convolve(x, weights[f"{stage}_conv1/kernel"], 1)), f"{stage}_bn1"))
        x = gelu(normalise(convolve(x, weights[f"{stage}_conv2/kernel"], 1), f"{stage}_bn2"))
    assert x.shape == (2, 3, 2, 6)
    expected = x.max(axis=(1, 2)) @ weights["head_dense/kernel"] + weights["head_dense/bias"]
    assert relative_error(model(images), expected) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(widths=()), r"widths=\(\) must be a tuple of positive integers"),
        (dict(widths=(8, 0)), r"widths=\(8, 0\)"),
        (dict(input_shape=(8, 32, 3)), "9×9"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("airbench94", **options)
