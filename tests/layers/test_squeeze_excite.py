"""Channel attention against the equations of its papers, written with loops."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.references import channel_gates, mlp, squeeze_excite

from kzoo.errors import InvalidValueError
from kzoo.layers import ChannelAttention, SqueezeExcite


def test_squeeze_excite_is_equations_2_to_4():
    x = feature_map(2, 5, 7, 32)
    layer = SqueezeExcite(reduction=4)
    layer.build(x.shape)
    randomise(layer)
    assert relative_error(layer(x), squeeze_excite(x, *mlp(layer))) < 1e-5


@pytest.mark.quick
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("descriptor", ["avg", "max", "both"])
def test_channel_attention_is_equation_2(descriptor, use_bias):
    x = feature_map(2, 5, 7, 24)
    layer = ChannelAttention(reduction=4, descriptor=descriptor, use_bias=use_bias)
    layer.build(x.shape)
    randomise(layer)
    gates = channel_gates(x, *mlp(layer), descriptor)
    assert relative_error(layer.gates(x), gates) < 1e-5
    assert relative_error(layer(x), gates * x) < 1e-5


def test_activations_are_arguments():
    x = feature_map(2, 5, 7, 8)
    layer = ChannelAttention(reduction=2, activation="tanh", gate_activation="linear", descriptor="avg")
    layer.build(x.shape)
    randomise(layer)
    w0, _, w1, _ = mlp(layer)
    assert relative_error(layer(x), x * (np.tanh(x.mean((1, 2)) @ w0) @ w1)[:, None, None]) < 1e-5


@pytest.mark.parametrize(
    ("options", "channels", "hidden"),
    [
        (dict(), 64, 4),
        (dict(), 2048, 128),
        (dict(), 8, 1),  # half a unit rounds up
        (dict(), 4, 1),
        (dict(reduction=3), 16, 5),
        (dict(divisor=8), 64, 8),
        (dict(divisor=8), 192, 16),  # 12 is half-way between 8 and 16
        (dict(divisor=8), 176, 8),
    ],
)
def test_hidden_units(options, channels, hidden):
    assert ChannelAttention(**options).hidden_units(channels) == hidden


def test_macs():
    shape = (None, 5, 7, 64)
    assert SqueezeExcite(reduction=8).macs(shape) == 2 * 64 * 8
    assert ChannelAttention(reduction=8, descriptor="max").macs(shape) == 2 * 64 * 8
    assert ChannelAttention(reduction=8, descriptor="both").macs(shape) == 2 * 2 * 64 * 8


@pytest.mark.parametrize(
    "layer",
    [
        ChannelAttention(reduction=4, descriptor="max", activation="gelu", use_bias=True, divisor=2),
        ChannelAttention(gate_activation="hard_sigmoid", name="gate"),
        SqueezeExcite(reduction=2, descriptor="both", use_bias=False, divisor=4),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 5, 7, 32), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(reduction=0.5), "reduction=0.5"),
        (dict(divisor=0), "divisor=0"),
        (dict(descriptor="median"), "descriptor='median' is not accepted; use one of 'avg', 'max', 'both'"),
    ],
)
@pytest.mark.parametrize("layer", [ChannelAttention, SqueezeExcite])
def test_bad_arguments(layer, options, message):
    with pytest.raises(InvalidValueError, match=message):
        layer(**options)


def test_inputs_that_are_no_map():
    with pytest.raises(InvalidValueError, match=r"feature maps .* got shape \(None, 32\)"):
        SqueezeExcite()(keras.Input((32,)))
    with pytest.raises(InvalidValueError, match="known channels"):
        SqueezeExcite()(keras.Input((5, 7, None)))
