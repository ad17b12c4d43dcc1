"""The non-local block against equations 1 to 6 of its paper (arXiv:1711.07971), written with loops."""

import itertools

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.cases import NON_LOCAL_IDLE

from kzoo.errors import InvalidValueError
from kzoo.layers.non_local import PAIRWISE, NonLocal


def positions(x):
    return [x[i, j] for i, j in itertools.product(range(x.shape[0]), range(x.shape[1]))]


def convolution(x, layer):
    """1×1 convolution of one map (height, width, channels)."""
    kernel, bias = (np.array(v, "float64") for v in (layer.kernel[0, 0], layer.bias))
    return np.stack([vector @ kernel + bias for vector in positions(x)]).reshape(*x.shape[:2], -1)


def pooled(x):
    y = np.zeros((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    for i, j, c in np.ndindex(y.shape):
        y[i, j, c] = max(x[2 * i + a, 2 * j + b, c] for a in range(2) for b in range(2))
    return y


def non_local(x, layer):
    """Output and weights f(x_i, x_j) / C(x) of the block."""
    outputs, all_weights = [], []
    for image in x.astype("float64"):
        theta = phi = image
        if layer.pairwise != "gaussian":
            theta, phi = convolution(image, layer.theta), convolution(image, layer.phi)
        g = convolution(image, layer.g)
        if layer.subsample:
            phi, g = pooled(phi), pooled(g)
        phi, g = positions(phi), positions(g)
        y, weights = [], []
        for t in positions(theta):
            f = []
            for p in phi:
                if layer.pairwise == "concatenation":  # equation 5
                    f.append(max(0.0, float(np.concatenate([t, p]) @ np.array(layer.w_f, "float64")[:, 0])))
                else:  # equations 2 to 4
                    f.append(float(t @ p) if layer.pairwise == "dot_product" else float(np.exp(t @ p)))
            c = sum(f) if layer.pairwise in ("gaussian", "embedded_gaussian") else len(phi)
            weights.append([value / c for value in f])
            y.append(sum(weight * value for weight, value in zip(weights[-1], g, strict=True)))  # equation 1
        z = convolution(np.stack(y).reshape(*image.shape[:2], -1), layer.out)
        if layer.use_batch_norm:
            gamma, beta, mean, variance = (np.array(v, "float64") for v in layer.batch_norm.get_weights())
            z = gamma * (z - mean) / np.sqrt(variance + 1e-5) + beta
        outputs.append(image + z)  # equation 6
        all_weights.append(weights)
    return np.array(outputs), np.array(all_weights)


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


@pytest.mark.parametrize("use_batch_norm", [True, False])
@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_equations_1_to_6(pairwise, subsample, use_batch_norm):
    x = feature_map(2, 5, 7, 6)
    layer = built(NonLocal(pairwise, subsample=subsample, use_batch_norm=use_batch_norm), x)
    outputs, weights = non_local(x, layer)
    assert weights.shape == (2, 35, 6 if subsample else 35)
    assert relative_error(layer.attention_weights(x), weights) < 1e-5
    assert relative_error(layer(x), outputs) < 1e-5


@pytest.mark.parametrize(("channels", "reduction", "inner"), [(6, 2, 3), (7, 2, 3), (6, 1, 6), (3, 8, 1)])
def test_inner_channels(channels, reduction, inner):
    x = feature_map(2, 2, 3, channels)
    layer = built(NonLocal("concatenation", reduction), x)
    assert layer.theta.filters == layer.phi.filters == layer.g.filters == inner
    assert relative_error(layer(x), non_local(x, layer)[0]) < 1e-5


@pytest.mark.parametrize("use_batch_norm", [True, False])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_new_block_is_the_identity_and_learns(pairwise, use_batch_norm):
    x = feature_map(4, 5, 7, 6)
    layer = NonLocal(pairwise, use_batch_norm=use_batch_norm)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=True), x)
    if use_batch_norm:  # W_z y is near zero: 0.9 · 1 + 0.1 · 0
        np.testing.assert_allclose(layer.batch_norm.moving_variance, 0.9, atol=1e-3)
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    model.train_on_batch(x, np.abs(x))
    assert relative_error(model(x), x) > 1e-4


def test_new_kernels_are_small_and_differ():
    layer = NonLocal()
    layer.build((None, 5, 7, 128))
    theta, phi, g, out = (np.array(each.kernel).ravel() for each in (layer.theta, layer.phi, layer.g, layer.out))
    assert np.std([theta, phi, g, out]) == pytest.approx(0.01, rel=0.05)
    assert np.abs(np.corrcoef([theta, phi, g, out]) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("use_batch_norm", [True, False])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_folded(pairwise, use_batch_norm):
    x = feature_map(2, 5, 7, 6)
    layer = built(NonLocal(pairwise, use_batch_norm=use_batch_norm), x)
    folded, weights = layer.folded()
    folded.build(x.shape)
    folded.set_weights(weights)
    assert not any("batch_norm" in variable.path for variable in folded.variables)
    assert relative_error(folded(x), layer(x)) < 1e-5


@pytest.mark.parametrize(
    ("pairwise", "subsample", "macs"),
    [  # convolutions, logits, weighted sum; 35 positions, 6 pooled
        ("gaussian", True, 2 * 35 * 16 * 4 + 35 * 6 * 16 + 35 * 6 * 4),
        ("gaussian", False, 2 * 35 * 16 * 4 + 35 * 35 * 16 + 35 * 35 * 4),
        ("embedded_gaussian", True, 4 * 35 * 16 * 4 + 2 * 35 * 6 * 4),
        ("dot_product", False, 4 * 35 * 16 * 4 + 2 * 35 * 35 * 4),
        ("concatenation", True, 4 * 35 * 16 * 4 + (35 + 6) * 4 + 35 * 6 * 4),
    ],
)
def test_macs(pairwise, subsample, macs):
    assert NonLocal(pairwise, 4, subsample).macs((None, 5, 7, 16)) == macs


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_attention_weights_in_half_precision(pairwise):
    x = feature_map(2, 5, 7, 6)
    layer = built(NonLocal(pairwise, dtype="mixed_float16"), x)
    weights = layer.attention_weights(x)
    assert weights.dtype == "float16"
    assert relative_error(weights, non_local(x, layer)[1]) < 5e-3


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian"])
def test_large_logits_in_half_precision(pairwise):
    x = 40 * feature_map(2, 4, 4, 128)
    layer = NonLocal(pairwise, 1, use_batch_norm=False, dtype="mixed_float16")
    layer.build(x.shape)
    if pairwise == "embedded_gaussian":
        for each in (layer.theta, layer.phi):
            each.kernel.assign(np.eye(128)[None, None])
    weights = np.array(layer.attention_weights(x), "float64")  # logits up to 2e5, beyond float16
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-3)


@pytest.mark.parametrize(("pairwise", "subsample"), [("embedded_gaussian", True), ("concatenation", False)])
def test_maps_of_unknown_size(pairwise, subsample):
    inputs = keras.Input((None, None, 6))
    layer = NonLocal(pairwise, subsample=subsample)
    model = randomise(keras.Model(inputs, layer(inputs)))
    assert model.output_shape == (None, None, None, 6)
    for size in ((5, 7), (4, 3)):
        x = feature_map(2, *size, 6)
        assert relative_error(model.predict(x, verbose=0), non_local(x, layer)[0]) < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        NonLocal(),
        NonLocal("gaussian", 4, name="block"),
        NonLocal("dot_product", subsample=False),
        NonLocal("concatenation", use_batch_norm=False),
    ],
    ids=lambda layer: layer.pairwise,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 5, 7, 16), tmp_path, NON_LOCAL_IDLE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(pairwise="softmax"), "pairwise='softmax' is not accepted; use one of 'gaussian', 'embedded_gaussian'"),
        (dict(reduction=0), "reduction=0 must be a positive integer"),
        (dict(reduction=2.5), r"reduction=2\.5"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        NonLocal(**options)


def test_inputs_that_do_not_fit():
    with pytest.raises(InvalidValueError, match=r"feature maps .* got shape \(None, 5, 32\)"):
        NonLocal()(keras.Input((5, 32)))
    with pytest.raises(InvalidValueError, match="cannot pool a map of 1×7 positions by 2×2; use subsample=False"):
        NonLocal()(keras.Input((1, 7, 32)))
    assert NonLocal(subsample=False)(keras.Input((1, 1, 32))).shape == (None, 1, 1, 32)
    with pytest.raises(InvalidValueError, match="known height and width"):
        NonLocal().macs((None, None, None, 32))
