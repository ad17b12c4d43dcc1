"""Stand-alone self-attention against equation 3 of its paper (arXiv:1906.05909), written with loops."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.attention_loops import attended, pixels_of

from kzoo.errors import InvalidValueError
from kzoo.layers import StandAloneSelfAttention


def pooled(y, strides):
    """Averages of what there is in each strides × strides square; squares stand out equally on both sides."""
    batch, height, width, channels = y.shape
    z = np.zeros((batch, -(-height // strides), -(-width // strides), channels))
    top, left = ((-size % strides) // 2 for size in (height, width))
    for i, j in pixels_of(z):
        rows = slice(max(0, i * strides - top), (i + 1) * strides - top)
        columns = slice(max(0, j * strides - left), (j + 1) * strides - left)
        z[:, i, j] = y[:, rows, columns].mean((1, 2))
    return z


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


@pytest.mark.parametrize(
    ("size", "kernel_size", "filters", "num_heads"),
    [
        ((5, 7), 3, None, 3),
        ((5, 7), 7, 8, 2),
        ((3, 4), 7, 8, 1),  # smaller than the neighbourhood
        ((9, 22), 3, 12, 2),  # several blocks, the last one incomplete
        ((19, 8), 7, 4, 1),
        ((1, 9), 5, 4, 1),
    ],
)
def test_is_equation_3(size, kernel_size, filters, num_heads):
    x = feature_map(2, *size, 6)
    layer = built(StandAloneSelfAttention(filters, kernel_size, num_heads), x)
    assert relative_error(layer(x), attended(x, layer)) < 1e-5


def test_every_size():
    """Cutting into blocks changes with every size: no size may differ."""
    for length in range(1, 20):
        x = feature_map(1, length, 21 - length, 2)
        layer = built(StandAloneSelfAttention(2, 5, 1), x)
        assert relative_error(layer(x), attended(x, layer)) < 1e-5, length


@pytest.mark.parametrize(("size", "strides"), [((6, 8), 2), ((5, 7), 2), ((7, 8), 3)])
def test_strides_average_pools(size, strides):
    x = feature_map(2, *size, 4)
    layer = built(StandAloneSelfAttention(8, 3, 2, strides), x)
    assert relative_error(layer(x), pooled(attended(x, layer), strides)) < 1e-5


def test_parameters_are_those_of_the_paper():
    """Three 1×1 transformations and two embeddings of half the channels for each of k offsets."""
    layer = StandAloneSelfAttention(64, 7, 8)
    layer.build((None, 14, 14, 32))
    assert layer.count_params() == 3 * 32 * 64 + 2 * 7 * 64 // 2


def test_macs():
    layer = StandAloneSelfAttention(16, 3, 2)
    assert layer.macs((None, 5, 7, 8)) == 5 * 7 * (3 * 8 * 16 + 2 * 9 * 16 + 2 * 3 * 8)


@pytest.mark.parametrize(
    "layer",
    [StandAloneSelfAttention(kernel_size=3), StandAloneSelfAttention(8, 5, 2, 2, name="attention")],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 9, 7, 16), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(filters=0), "filters=0 must be a positive integer"),
        (dict(kernel_size=6), "kernel_size=6 must be a positive odd number"),
        (dict(num_heads=0), "num_heads=0"),
        (dict(strides=0), "strides=0"),
        (dict(filters=20), "num_heads=8 does not divide filters=20; use one of 1, 2, 4, 5, 10, 20"),
        (dict(filters=24), "filters=24 give each of num_heads=8 heads 3 channels; .* need an even number"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        StandAloneSelfAttention(**options)(keras.Input((7, 9, 16)))


@pytest.mark.parametrize("shape", [(5, 16), (None, 7, 16), (7, 7, None)])
def test_inputs_that_are_no_map_of_known_size(shape):
    with pytest.raises(InvalidValueError, match=r"StandAloneSelfAttention .* got shape"):
        StandAloneSelfAttention()(keras.Input(shape))


def test_queries_and_keys_start_small():
    """As if their products were divided by √d: a saturated softmax would amplify rounding from layer to layer."""
    layer = StandAloneSelfAttention(64, num_heads=4)
    layer.build((None, 9, 9, 64))
    query_key, value = np.split(np.array(layer.qkv.kernel), [128], axis=1)
    assert query_key.std() == pytest.approx(value.std() * 16**-0.25, rel=0.05)
