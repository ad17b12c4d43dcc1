"""Global self-attention against equation 1 of the Transformer's paper (arXiv:1706.03762), written with loops."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.attention_loops import dense, heads_of, softmax

from kzoo.errors import InvalidValueError
from kzoo.layers import MultiHeadSelfAttention


def reference(x, layer, mask=None):
    """The output and the weights."""
    if layer.position in ("sinusoidal", "learned"):
        x = np.array(layer.encoding(x), "float64")
    shape, channels = x.shape, x.shape[-1]
    x = x.reshape(shape[0], -1, channels)
    length = x.shape[1]
    qkv = dense(x, layer.qkv)
    bias = np.array(layer.position_bias.bias(), "float64") if layer.position == "relative_bias" else None
    y, weights = np.zeros(x.shape), np.zeros((len(x), layer.num_heads, length, length))
    for n in range(len(x)):
        for head, part in enumerate(heads_of(channels, layer.num_heads)):
            query, key, value = (qkv[n, :, i * channels : (i + 1) * channels][:, part] for i in range(3))
            for i in range(length):
                logits = np.array([query[i] @ key[j] / np.sqrt(part.stop - part.start) for j in range(length)])
                if bias is not None:
                    logits += bias[head, i]
                if mask is not None:
                    logits[~np.broadcast_to(mask, (len(x), length, length))[n, i]] = -np.inf
                weights[n, head, i] = softmax(logits)
                for j in range(length):
                    y[n, i, part] += weights[n, head, i, j] * value[j]
    return dense(y, layer.proj).reshape(shape), weights


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


@pytest.mark.parametrize("shape", [(2, 5, 7, 12), (2, 9, 12)])
@pytest.mark.parametrize("position", [None, "sinusoidal", "learned", "relative_bias"])
def test_is_equation_1(position, shape):
    if position == "relative_bias" and len(shape) == 3:
        pytest.skip("needs a map")
    x = feature_map(*shape)
    layer = built(MultiHeadSelfAttention(3, position), x)
    expected, weights = reference(x, layer)
    assert relative_error(layer(x), expected) < 1e-5
    y, returned = layer(x, return_attention_weights=True)
    assert relative_error(y, expected) < 1e-5
    assert relative_error(returned, weights) < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_mask_hides_keys(batch):
    x = feature_map(2, 2, 3, 8)
    mask = np.random.default_rng(0).random((batch, 6, 6)) < 0.5
    mask |= np.eye(6, dtype=bool)
    layer = built(MultiHeadSelfAttention(2, "relative_bias"), x)
    expected, weights = reference(x, layer, mask)
    y, returned = layer(x, attention_mask=mask, return_attention_weights=True)
    assert relative_error(y, expected) < 1e-5
    assert relative_error(returned, weights) < 1e-5
    assert relative_error(layer(x, attention_mask=keras.ops.convert_to_tensor(mask)), expected) < 1e-5


def test_row_that_sees_nothing():
    mask = np.ones((1, 6, 6), bool)
    mask[0, 2:4] = False
    layer = MultiHeadSelfAttention(2)
    with pytest.raises(InvalidValueError, match="hides every key from 2 queries"):
        layer(feature_map(2, 6, 8), attention_mask=mask)
    tokens, hidden = keras.Input((6, 8)), keras.Input((6, 6), dtype="bool")
    model = keras.Model([tokens, hidden], layer(tokens, attention_mask=hidden))
    x = feature_map(2, 6, 8)
    traced = model.predict([x, np.repeat(mask, 2, axis=0)], verbose=0)
    everything = model.predict([x, np.ones((2, 6, 6), bool)], verbose=0)
    assert np.isfinite(traced).all()
    np.testing.assert_allclose(traced[:, :2], everything[:, :2], rtol=1e-5)


@pytest.mark.parametrize("mask", [np.ones((6, 5), bool), np.ones(6, bool), np.ones((3, 6, 6), bool)])
def test_mask_of_another_shape(mask):
    with pytest.raises(InvalidValueError, match=r"attention_mask .* must have shape \(2 or 1, 6, 6\)"):
        MultiHeadSelfAttention(2)(feature_map(2, 6, 8), attention_mask=mask)


def test_weights_and_mask_in_a_functional_model(tmp_path):
    tokens, mask = keras.Input((5, 8)), keras.Input((5, 5), dtype="bool")
    y, weights = MultiHeadSelfAttention(2)(tokens, attention_mask=mask, return_attention_weights=True)
    assert (y.shape, weights.shape) == ((None, 5, 8), (None, 2, 5, 5))
    model = randomise(keras.Model([tokens, mask], [y, weights]))
    inputs = [feature_map(3, 5, 8), np.tril(np.ones((3, 5, 5), bool))]
    outputs = model(inputs)
    assert np.triu(np.array(outputs[1]), 1).max() == 0  # causal
    model.save(tmp_path / "model.keras")
    for loaded, expected in zip(keras.saving.load_model(tmp_path / "model.keras")(inputs), outputs, strict=True):
        np.testing.assert_array_equal(loaded, expected)


def test_macs_are_equation_1_of_swin():
    assert MultiHeadSelfAttention(2).macs((None, 5, 7, 16)) == 4 * 35 * 16**2 + 2 * 35**2 * 16
    assert MultiHeadSelfAttention(2).macs((None, 35, 16)) == 4 * 35 * 16**2 + 2 * 35**2 * 16


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (MultiHeadSelfAttention(2, "learned"), (2, 5, 7, 8)),
        (MultiHeadSelfAttention(4, "relative_bias", use_bias=False, name="attention"), (2, 5, 7, 8)),
        (MultiHeadSelfAttention(1, "sinusoidal", name="tokens"), (2, 9, 8)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layer_contract(layer, shape, tmp_path):
    check_layer(layer, shape, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_heads=0), "num_heads=0 must be a positive integer"),
        (dict(num_heads=2.0), r"num_heads=2\.0"),
        (dict(num_heads=3), "num_heads=3 does not divide channels=16; use one of 1, 2, 4, 8, 16"),
        (dict(num_heads=2, position="rotary"), "position='rotary' is not accepted; use one of 'sinusoidal'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        MultiHeadSelfAttention(**options)(keras.Input((7, 9, 16)))


@pytest.mark.parametrize("shape", [(16,), (None, 16), (7, None, 16), (2, 3, 4, 16)])
def test_inputs_of_another_shape(shape):
    with pytest.raises(InvalidValueError, match=r"MultiHeadSelfAttention .* got shape"):
        MultiHeadSelfAttention(2)(keras.Input(shape))


def test_relative_bias_needs_a_map():
    with pytest.raises(InvalidValueError, match=r"takes maps .* got shape"):
        MultiHeadSelfAttention(2, "relative_bias")(keras.Input((9, 16)))
