"""Window attention against section 3.2 of Swin's paper (arXiv:2103.14030), written with loops."""

from pathlib import Path

import keras
import numpy as np
import pytest
from goldens.seeded import seeded, seeded_map
from helpers import check_layer, feature_map, randomise, relative_error
from layers.attention_loops import attended, dense

from kzoo.errors import InvalidValueError
from kzoo.layers import WindowAttention

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "window_attention.npz")


def reference(x, layer):
    return dense(attended(x, layer), layer.proj)[:, : x.shape[1], : x.shape[2]]


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("size", "window_size", "shift_size"),
    [
        ((6, 9), 3, 0),
        ((6, 9), 3, 1),
        ((8, 12), 4, 2),
        ((5, 7), 3, 0),  # no multiples of the window
        ((5, 7), 3, 1),
        ((9, 11), 4, 2),
        ((5, 7), 5, 2),  # as high as the window: it shifts sideways only
        ((3, 4), 7, 3),  # smaller than the window
        ((7, 9), (2, 3), (1, 2)),
        ((7, 9), (7, 3), (0, 1)),
    ],
)
def test_is_equation_4_in_each_window(size, window_size, shift_size):
    x = feature_map(2, *size, 12)
    layer = built(WindowAttention(3, window_size, shift_size), x)
    assert relative_error(layer(x), reference(x, layer)) < 1e-5


def test_the_seam_holds_against_large_logits():
    x = 30 * feature_map(2, 8, 12, 12)  # logits of thousands
    layer = built(WindowAttention(3, 4, 2), x)
    assert relative_error(layer(x), reference(x, layer)) < 1e-4


def test_a_map_with_other_windows_is_refused():
    layer = built(WindowAttention(3, 4, 2), feature_map(2, 3, 12, 12))
    with pytest.raises(InvalidValueError, match=r"was built for windows of \(3, 4\); a map of 8×12 has .*\(4, 4\)"):
        layer(feature_map(2, 8, 12, 12))


@pytest.mark.parametrize(
    ("name", "size", "window_size", "shift_size"),
    [
        ("regular", (14, 21), 7, 0),
        ("shifted", (14, 21), 7, 3),
        ("padded", (10, 9), 4, 0),
        ("clamped", (5, 6), 7, 3),
        ("sideways", (5, 14), 7, 3),
        ("padded_and_shifted", (10, 9), 4, 2),
    ],
)
def test_equals_timm_and_torchvision(name, size, window_size, shift_size):
    x = seeded_map(2, *size, 24)
    layer = WindowAttention(3, window_size, shift_size)
    layer.build(x.shape)
    layer.position_bias.table.assign(seeded("relative_position_bias_table", layer.position_bias.table.shape))
    for dense_layer in (layer.qkv, layer.proj):
        kernel = seeded(f"{dense_layer.name}.weight", dense_layer.kernel.shape[::-1]).T
        dense_layer.set_weights([kernel, seeded(f"{dense_layer.name}.bias", dense_layer.bias.shape)])
    assert relative_error(layer(x), GOLDENS[name]) < 1e-5


def test_small_maps_clamp_window_and_shift():
    layer = WindowAttention(2, 7, 3)
    assert layer.windows((None, 14, 21, 8)) == ((7, 7), (3, 3))
    assert layer.windows((None, 7, 21, 8)) == ((7, 7), (0, 3))
    assert layer.windows((None, 5, 8, 8)) == ((5, 7), (0, 3))
    layer.build((None, 5, 8, 8))
    assert layer.position_bias.table.shape == (9 * 13, 2)


def test_table_of_another_window_is_resized():
    large, small = WindowAttention(2, 7), WindowAttention(2, 5)
    large.build((None, 14, 14, 8))
    small.build((None, 10, 10, 8))
    y, x = np.mgrid[-6:7, -6:7]
    large.position_bias.table.assign(np.stack([y / 6.5, x / 6.5], axis=-1).reshape(-1, 2))
    small.position_bias.assign_resized(large.position_bias.table, 7)
    bias = np.array(small.position_bias.bias())  # linear in the offset, and the same over the whole window
    np.testing.assert_allclose(bias[0].reshape(5, 5, 5, 5)[2, 2, 1:4, 2], [1 / 4.5, 0, -1 / 4.5], atol=1e-6)
    np.testing.assert_allclose(bias[1].reshape(5, 5, 5, 5)[2, 2, 2, 1:4], [1 / 4.5, 0, -1 / 4.5], atol=1e-6)


def test_macs_are_equation_2():
    assert WindowAttention(2, 7).macs((None, 56, 28, 96)) == 4 * 56 * 28 * 96**2 + 2 * 49 * 56 * 28 * 96
    assert WindowAttention(2, 4).macs((None, 5, 7, 16)) == 4 * 64 * 16**2 + 2 * 16 * 64 * 16  # padded to 8 × 8
    assert WindowAttention(2, 7).macs((None, 5, 6, 16)) == 4 * 30 * 16**2 + 2 * 30 * 30 * 16  # clamped


@pytest.mark.parametrize(
    "layer",
    [
        WindowAttention(2, 4, 2),
        WindowAttention(4, (3, 2), use_bias=False, name="attention"),
        WindowAttention(1, 16, 8, name="clamped"),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 9, 7, 8), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_heads=0), "num_heads=0 must be a positive integer"),
        (dict(num_heads=2, window_size=0), "window_size=0 must be"),
        (dict(num_heads=2, window_size=(7, 7, 7)), r"window_size=\(7, 7, 7\) must be"),
        (dict(num_heads=2, window_size=7.0), r"window_size=7\.0 must be"),
        (dict(num_heads=2, shift_size=-1), "shift_size=-1 must be"),
        (dict(num_heads=2, window_size=4, shift_size=4), "shift_size=4 must be less than window_size=4"),
        (dict(num_heads=3), "num_heads=3 does not divide channels=16; use one of 1, 2, 4, 8, 16"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        WindowAttention(**options)(keras.Input((7, 9, 16)))


@pytest.mark.parametrize("shape", [(5, 16), (None, 7, 16), (7, 7, None)])
def test_inputs_that_are_no_map_of_known_size(shape):
    with pytest.raises(InvalidValueError, match=r"WindowAttention .* got shape"):
        WindowAttention(2)(keras.Input(shape))
