"""What attention layers do, against the layers' equations in NumPy."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from layers.attention_loops import dense_weights

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.layers import (
    CBAM,
    AttentionStem,
    KernelRegressionAttention,
    MultiHeadSelfAttention,
    NeighborhoodAttention,
    NonLocal,
    ResidualAttention,
    SpatialAttention,
    SqueezeExcite,
    StandAloneSelfAttention,
    WindowAttention,
)

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


PLACES = [(0, 0), (4, 3), (8, 6), (2, 6), (7, 1)]


def local(kind: str) -> keras.layers.Layer:
    return {
        "windows": lambda: WindowAttention(2, 4, name="local"),
        "shifted": lambda: WindowAttention(2, (4, 3), (2, 1), name="local"),
        "sideways": lambda: WindowAttention(2, (9, 3), (4, 1), name="local"),
        "nearest": lambda: NeighborhoodAttention(2, 5, name="local"),
        "dilated": lambda: NeighborhoodAttention(2, 3, 2, name="local"),
        "clipped": lambda: StandAloneSelfAttention(8, 5, 2, name="local"),
        "pooled": lambda: StandAloneSelfAttention(8, 3, 2, strides=2, name="local"),
    }[kind]()


@pytest.mark.parametrize("kind", ["windows", "shifted", "sideways", "nearest", "dilated", "clipped", "pooled"])
def test_where_a_place_looks_nearby(kind):
    """By the loops of the layers' tests, which find out who sees whom from the pixels' coordinates."""
    layer = local(kind)
    model = model_of(layer)
    expected = dense_weights(map_of(model), layer)
    for y, x in PLACES:
        found = kzoo.attention_maps(model, IMAGES, (y, x))["inner/local"]
        assert found.shape == (3, 2, 9, 7)
        np.testing.assert_allclose(found, expected[:, :, y, x], rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(found == 0, expected[:, :, y, x] == 0)


@pytest.mark.parametrize("kind", ["windows", "shifted", "nearest", "dilated", "clipped"])
def test_a_place_gets_what_it_looks_at(kind):
    """Read off the output of a layer of one head: the value of each pixel is its own one-hot vector."""
    rng, count = np.random.default_rng(0), 9 * 7
    x = np.concatenate([rng.normal(size=(1, 9, 7, 5)), np.eye(count).reshape(1, 9, 7, count)], axis=-1)
    layer = {
        "windows": lambda: WindowAttention(1, 4),
        "shifted": lambda: WindowAttention(1, 4, 2),
        "nearest": lambda: NeighborhoodAttention(1, 3),
        "dilated": lambda: NeighborhoodAttention(1, 3, 2),
        "clipped": lambda: StandAloneSelfAttention(None, 3, 1),
    }[kind]()
    inputs, channels = keras.Input(x.shape[1:]), x.shape[-1]
    model = randomise(keras.Model(inputs, layer(inputs)))
    kernel = np.array(layer.qkv.kernel)
    kernel[:, 2 * channels :] = np.eye(channels)
    kernel[5:, : 2 * channels] = 0
    layer.qkv.kernel.assign(kernel)
    if layer.use_bias:
        layer.qkv.bias.assign(np.where(np.arange(3 * channels) < 2 * channels, layer.qkv.bias, 0))
        layer.proj.set_weights([np.eye(channels), np.zeros(channels)])
    output = np.array(model(x))[0, ..., 5:]
    for place in PLACES:
        (found,) = kzoo.attention_maps(model, x, place)[layer.name]
        np.testing.assert_allclose(found.reshape(-1), output[place], rtol=1e-4, atol=1e-6)


def test_a_window_behind_the_border_looks_at_padding_too():
    model = model_of(WindowAttention(2, 4, name="local"))
    inside, outside = (kzoo.attention_maps(model, IMAGES, place)["inner/local"] for place in ((0, 0), (8, 6)))
    np.testing.assert_allclose(inside.sum(axis=(2, 3)), 1, rtol=1e-5)
    assert (outside.sum(axis=(2, 3)) < 0.99).all()


def test_a_stem_looks_inside_its_window():
    """And the largest of what its places get is its output."""
    layer = AttentionStem(8, 4, 2, name="stem")
    model = model_of(layer)
    x, output = map_of(model), kzoo.activations(model, IMAGES, "stem")["stem"]
    matrices = np.array(layer.values.kernel).reshape(8, 4, 8)
    factors = np.tile(np.array(layer.factors()), (3, 2, 1))[:9, :7]
    values = np.einsum("nyxc,cmf,yxm->nyxf", x, matrices, factors).reshape(3, 9, 7, 2, 4)
    for top, left in ((0, 0), (4, 4), (8, 4)):
        window = [(y, x) for y, x in np.ndindex(9, 7) if top <= y < top + 4 and left <= x < left + 4]
        mixed = []
        for place in window:
            found = kzoo.attention_maps(model, IMAGES, place)["inner/stem"]
            assert found.shape == (3, 2, 9, 7)
            assert sorted(zip(*np.nonzero(found[0, 0]), strict=True)) == window
            mixed.append(np.einsum("nhyx,nyxhc->nhc", found, values).reshape(3, 8))
        np.testing.assert_allclose(np.max(mixed, axis=0), output[:, top // 4, left // 4], rtol=1e-3, atol=1e-5)


def test_kernel_regression_and_a_mask():
    model = model_of(KernelRegressionAttention(2.0, name="kernels"), ResidualAttention(1, name="mask"))
    found, x = kzoo.attention_maps(model, IMAGES, (5, 2)), map_of(model)
    distances = ((x - x[:, 5:6, 2:3]) ** 2).sum(axis=-1)
    weights = np.exp(-(distances - distances.min(axis=(1, 2), keepdims=True)) / 8)
    np.testing.assert_allclose(
        found["inner/kernels"][:, 0], weights / weights.sum(axis=(1, 2), keepdims=True), rtol=1e-2, atol=1e-6
    )
    before, after = (kzoo.activations(model, IMAGES, name)[name] for name in ("kernels", "mask"))
    assert found["inner/mask"].shape == (3, 9, 7, 8)
    np.testing.assert_allclose(before * (1 + found["inner/mask"]), after, rtol=1e-4, atol=1e-5)


def test_mistakes_of_attention():
    model = model_of(SqueezeExcite(reduction=1))
    for query in ((9, 0), (0, -1), (1.5, 2), 3, (1, 2, 3)):
        with pytest.raises(InvalidValueError, match="must be a pixel"):
            kzoo.attention_maps(model, IMAGES, query)
    with pytest.raises(InvalidValueError, match="images have shape"):
        kzoo.attention_maps(model, IMAGES[0])
    with pytest.raises(InvalidValueError, match="no attention layer"):
        kzoo.attention_maps(model_of(), IMAGES)
