"""CBAM against equations 1 to 3 of its paper (arXiv:1807.06521), written with loops."""

import itertools

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error, slow_but
from layers.references import channel_gates, mlp, sigmoid

from kzoo.errors import InvalidValueError
from kzoo.layers import CBAM, ChannelAttention, SpatialAttention


def spatial_gates(x, layer):
    """Equation 3: sigmoid(f([AvgPool(F); MaxPool(F)])), with the authors' batch normalisation after f."""
    batch, height, width, _ = x.shape
    maps = {"avg": [x.mean(-1)], "max": [x.max(-1)], "both": [x.mean(-1), x.max(-1)]}[layer.descriptor]
    kernel = np.array(layer.conv.kernel, "float64")  # (k, k, descriptors, 1)
    k = len(kernel)
    gates = np.zeros((batch, height, width, 1))
    for n, i, j in itertools.product(range(batch), range(height), range(width)):
        total = 0.0 if layer.use_batch_norm else float(layer.conv.bias[0])
        for a, b, d in itertools.product(range(k), range(k), range(len(maps))):
            row, column = i + a - k // 2, j + b - k // 2
            if 0 <= row < height and 0 <= column < width:
                total += kernel[a, b, d, 0] * maps[d][n, row, column]
        if layer.use_batch_norm:
            norm = layer.batch_norm
            gamma, beta, mean, variance = (
                float(v[0]) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
            )
            total = gamma * (total - mean) / np.sqrt(variance + 1e-5) + beta
        gates[n, i, j, 0] = sigmoid(total)
    return gates


def cbam(x, layer):
    def channel(f):
        return channel_gates(f, *mlp(layer.channel), layer.channel.descriptor)

    def spatial(f):
        return spatial_gates(f, layer.spatial)

    if layer.order == "channel_spatial":  # equation 1
        x = channel(x) * x
        return spatial(x) * x
    if layer.order == "spatial_channel":
        x = spatial(x) * x
        return channel(x) * x
    return channel(x) * spatial(x) * x


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


@pytest.mark.parametrize("use_batch_norm", [True, False])
@pytest.mark.parametrize("kernel_size", slow_but((3, 7), (1, 3, 7)))
@pytest.mark.parametrize("descriptor", ["avg", "max", "both"])
def test_spatial_attention_is_equation_3(descriptor, kernel_size, use_batch_norm):
    x = feature_map(2, 5, 7, 6)
    layer = built(SpatialAttention(kernel_size, descriptor, use_batch_norm=use_batch_norm), x)
    gates = spatial_gates(x, layer)
    assert relative_error(layer.gates(x), gates) < 1e-5
    assert relative_error(layer(x), gates * x) < 1e-5


@pytest.mark.parametrize(
    ("kernel_size", "use_bias"), slow_but([(3, True), (7, False)], itertools.product((3, 7), (False, True)))
)
@pytest.mark.parametrize("descriptor", ["avg", "max", "both"])
@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
def test_cbam_is_equation_1(order, descriptor, kernel_size, use_bias):
    x = feature_map(2, 5, 7, 16)
    layer = built(CBAM(4, kernel_size, order, descriptor, use_bias=use_bias), x)
    assert relative_error(layer(x), cbam(x, layer)) < 1e-5


def test_orders_differ():
    x = feature_map(2, 5, 7, 16)
    outputs = [cbam(x, built(CBAM(4, order=order), x)) for order in ("channel_spatial", "spatial_channel", "parallel")]
    for first, second in itertools.combinations(outputs, 2):
        assert relative_error(first, second) > 1e-2


@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
@pytest.mark.parametrize("use_batch_norm", [True, False])
def test_folded(order, use_batch_norm):
    x = feature_map(2, 5, 7, 16)
    layer = built(CBAM(4, 3, order, use_bias=True, use_batch_norm=use_batch_norm), x)
    folded, weights = layer.folded()
    folded.build(x.shape)
    folded.set_weights(weights)
    assert not any("batch_norm" in variable.path for variable in folded.variables)
    assert len(folded.weights) == 6  # two dense layers and a convolution, each with its bias
    assert relative_error(folded(x), layer(x)) < 1e-5


def test_folded_spatial_attention():
    x = feature_map(2, 5, 7, 16)
    layer = built(SpatialAttention(gate_activation="tanh"), x)
    folded, weights = layer.folded()
    folded.build(x.shape)
    folded.set_weights(weights)
    assert relative_error(folded(x), layer(x)) < 1e-5


def test_macs():
    shape = (None, 5, 7, 64)
    assert SpatialAttention(3).macs(shape) == 5 * 7 * 9 * 2
    assert SpatialAttention(7, "max").macs(shape) == 5 * 7 * 49
    assert CBAM(8, 7).macs(shape) == 2 * 2 * 64 * 8 + 5 * 7 * 49 * 2


def test_statistics_move_in_training_only():
    x = feature_map(2, 5, 7, 16)
    layer = built(SpatialAttention(), x)
    before = np.array(layer.batch_norm.moving_mean)
    layer(x)
    np.testing.assert_array_equal(layer.batch_norm.moving_mean, before)
    logits = np.array(layer.conv(np.stack([x.mean(-1), x.max(-1)], axis=-1)))
    layer(x, training=True)
    assert relative_error(layer.batch_norm.moving_mean, 0.9 * before + 0.1 * logits.mean()) < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        SpatialAttention(3, "max", "hard_sigmoid", use_batch_norm=False),
        SpatialAttention(),
        CBAM(),
        CBAM(4, 3, "parallel", "avg", "tanh", use_bias=True, use_batch_norm=False, name="attention"),
        CBAM(2, 5, "spatial_channel", "max"),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 5, 7, 32), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(order="serial"), "order='serial' is not accepted; use one of 'channel_spatial'"),
        (dict(kernel_size=4), "kernel_size=4 must be a positive odd number"),
        (dict(kernel_size=-3), "kernel_size=-3"),
        (dict(kernel_size=3.0), r"kernel_size=3\.0"),
        (dict(descriptor="sum"), "descriptor='sum'"),
        (dict(reduction=0), "reduction=0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        CBAM(**options)


@pytest.mark.parametrize("layer", [CBAM, SpatialAttention, ChannelAttention])
def test_inputs_that_are_no_map(layer):
    with pytest.raises(InvalidValueError, match=r"feature maps .* got shape \(None, 5, 32\)"):
        layer()(keras.Input((5, 32)))
