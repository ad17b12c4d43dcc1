"""What attention layers do, against the layers' equations in NumPy."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.layers import CBAM, MultiHeadSelfAttention, NonLocal, SpatialAttention, SqueezeExcite

IMAGES = pixels(3, 9, 7, 3)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def model_of(*layers, channels=8) -> keras.Model:
    """The layers in a model inside a model, on a map of 9×7."""
    inputs = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(channels, 3, padding="same", name="map")(keras.layers.Rescaling(1 / 128, -1)(inputs))
    for layer in layers:
        x = layer(x)
    image = keras.Input((9, 7, 3))
    return randomise(keras.Model(image, keras.Model(inputs, x, name="inner")(image)))


def map_of(model) -> np.ndarray:
    return kzoo.activations(model, IMAGES, "map")["map"]


def test_gates_of_channels():
    layer = SqueezeExcite(reduction=1, name="se")
    model = model_of(layer)
    found = kzoo.attention_maps(model, IMAGES)
    reduce, reduce_bias, expand, expand_bias = layer.get_weights()
    hidden = np.maximum(map_of(model).mean(axis=(1, 2)) @ reduce + reduce_bias, 0)
    assert list(found) == ["inner/se"]
    np.testing.assert_allclose(found["inner/se"], sigmoid(hidden @ expand + expand_bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "parallel"])
def test_both_gates_of_cbam(order):
    """Together with the map that they stand in front of they give the layer's output, in either order."""
    layer = CBAM(reduction=2, kernel_size=3, order=order, name="cbam")
    model = model_of(layer)
    found = kzoo.attention_maps(model, IMAGES)
    channel, spatial = found["inner/cbam/channel"], found["inner/cbam/spatial"]
    assert channel.shape == (3, 8)
    assert spatial.shape == (3, 9, 7)
    x = map_of(model)
    expected = kzoo.activations(model, IMAGES, "cbam")["cbam"]
    np.testing.assert_allclose(x * channel[:, None, None] * spatial[..., None], expected, rtol=1e-3, atol=1e-5)
    before = x * channel[:, None, None] if order == "channel_spatial" else x
    np.testing.assert_allclose(spatial, spatial_gates(layer.spatial, before), rtol=1e-3, atol=1e-5)


def spatial_gates(layer, x) -> np.ndarray:
    """Equation 3 of the paper, place by place."""
    gamma, beta, mean, variance = (weight[0] for weight in layer.batch_norm.get_weights())
    kernel = layer.conv.get_weights()[0]
    size = len(kernel) // 2
    both = np.pad(np.stack([x.mean(-1), x.max(-1)], -1), ((0, 0), (size, size), (size, size), (0, 0)))
    found = np.zeros(x.shape[:3])
    for y, across in np.ndindex(*x.shape[1:3]):
        window = both[:, y : y + len(kernel), across : across + len(kernel)]
        found[:, y, across] = (window * kernel[..., 0]).sum(axis=(1, 2, 3))
    return sigmoid((found - mean) / np.sqrt(variance + layer.batch_norm.epsilon) * gamma + beta)


def test_gates_of_places():
    layer = SpatialAttention(5, name="spatial")
    model = model_of(layer)
    expected = spatial_gates(layer, map_of(model))
    np.testing.assert_allclose(kzoo.attention_maps(model, IMAGES)["inner/spatial"], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("query", [(0, 0), (8, 2), (3, 6), None])
def test_where_a_place_looks(query):
    """Of each head, from the query's place on a map that is half as large, its softmax of products."""
    layer = MultiHeadSelfAttention(2, name="attention")
    model = model_of(keras.layers.AveragePooling2D(2, name="pool"), layer)
    found = kzoo.attention_maps(model, IMAGES, query)["inner/attention"]
    assert found.shape == (3, 2, 4, 3)
    x = kzoo.activations(model, IMAGES, "pool")["pool"]
    kernel, bias = layer.qkv.get_weights()
    y, across = query or (4, 3)
    row, column = int((y + 0.5) / 9 * 4), int((across + 0.5) / 7 * 3)
    for image, head in np.ndindex(3, 2):
        parts = x[image] @ kernel + bias
        asked = parts[row, column, head * 4 : head * 4 + 4]
        logits = parts[..., 8 + head * 4 : 12 + head * 4] @ asked / 2
        np.testing.assert_allclose(found[image, head], np.exp(logits) / np.exp(logits).sum(), rtol=1e-3, atol=1e-6)


def test_tokens_of_a_square_and_others():
    x = [keras.layers.Cropping2D(((0, 2), (0, 0))), keras.layers.Reshape((49, 8), name="tokens")]
    layer = MultiHeadSelfAttention(2, name="attention")
    model = model_of(*x, layer)
    found = kzoo.attention_maps(model, IMAGES, (8, 0))["inner/attention"]
    tokens = kzoo.activations(model, IMAGES, "tokens")["tokens"]
    weights = np.array(layer(tokens, return_attention_weights=True)[1])
    np.testing.assert_allclose(found.reshape(3, 2, 49), weights[:, :, 42], rtol=1e-4, atol=1e-6)
    with pytest.raises(InvalidValueError, match="63 tokens"):
        kzoo.attention_maps(model_of(keras.layers.Reshape((63, 8)), MultiHeadSelfAttention(2)), IMAGES)


@pytest.mark.parametrize("subsample", [False, True])
def test_non_local_weights(subsample):
    """Of the places that are pooled if they are: an odd last row or column is dropped."""
    layer = NonLocal("gaussian", subsample=subsample, name="everywhere")
    model = model_of(layer)
    found = kzoo.attention_maps(model, IMAGES, (5, 2))["inner/everywhere"]
    x = map_of(model).astype("float64")
    keys = x[:, :8, :6].reshape(3, 4, 2, 3, 2, 8).max(axis=(2, 4)) if subsample else x
    for image in range(3):
        logits = keys[image] @ x[image, 5, 2]
        weights = np.exp(logits - logits.max())
        np.testing.assert_allclose(found[image, 0], weights / weights.sum(), rtol=1e-2, atol=1e-5)


def test_mistakes_of_attention():
    model = model_of(SqueezeExcite(reduction=1))
    for query in ((9, 0), (0, -1), (1.5, 2), 3, (1, 2, 3)):
        with pytest.raises(InvalidValueError, match="must be a pixel"):
            kzoo.attention_maps(model, IMAGES, query)
    with pytest.raises(InvalidValueError, match="images have shape"):
        kzoo.attention_maps(model, IMAGES[0])
    with pytest.raises(InvalidValueError, match="no attention layer"):
        kzoo.attention_maps(model_of(), IMAGES)
