"""Neighborhood attention against equations 1 to 4 of its paper (arXiv:2204.07143), written with loops."""

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.attention_loops import attended, dense

from kzoo.errors import InvalidValueError
from kzoo.layers import NeighborhoodAttention
from kzoo.layers.local_attention import plan


def reference(x, layer):
    return dense(attended(x, layer), layer.proj)


def built(layer, x):
    layer.build(x.shape)
    return randomise(layer)


@pytest.mark.parametrize(
    ("size", "kernel_size", "dilation"),
    [
        ((5, 7), 3, 1),
        ((5, 7), 5, 1),
        ((7, 7), 7, 1),  # every query sees the whole map
        ((29, 9), 3, 1),  # blocks along the height, the last one of a single row more than half a kernel
        ((59, 10), 3, 2),
        ((9, 22), 3, 1),  # several blocks, the last one incomplete
        ((19, 8), 7, 1),
        ((8, 9), 3, 2),
        ((19, 17), 3, 5),  # parts of two sizes
        ((9, 13), 1, 3),
    ],
)
def test_is_the_equation(size, kernel_size, dilation):
    x = feature_map(2, *size, 12)
    layer = built(NeighborhoodAttention(3, kernel_size, dilation), x)
    assert relative_error(layer(x), reference(x, layer)) < 1e-5


def test_loop_over_many_sizes():
    """Cutting into blocks changes with every size: no size may differ."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        kernel_size, dilation = int(rng.choice([3, 5])), int(rng.choice([1, 2, 3]))
        least = kernel_size * dilation
        x = feature_map(1, *rng.integers(least, least + 9, 2), 2)
        layer = built(NeighborhoodAttention(1, kernel_size, dilation, use_bias=False), x)
        assert relative_error(layer(x), reference(x, layer)) < 1e-5, (x.shape, kernel_size, dilation)


def test_corner_sees_what_the_equation_says():
    x = feature_map(1, 9, 31, 4)
    layer = built(NeighborhoodAttention(1, 5), x)
    corner = np.array(layer(x))[0, 0, 0]
    for pixel, seen in (((4, 4), True), ((5, 0), False), ((0, 5), False)):
        changed = x.copy()
        changed[0, *pixel] += 1
        assert (np.abs(np.array(layer(changed))[0, 0, 0] - corner).max() > 0) == seen


@pytest.mark.parametrize("length", [28, 56, 57, 112, 223])
def test_cost_grows_with_the_map_only(length):
    rows, _, mask = plan(length, length, kernel_size=7, inward=True)
    assert mask.size < 6 * length**2 * 7**2  # queries times keys, with what is computed in vain
    assert (rows.window / rows.block) ** 2 < 8  # copies of each key


def test_macs():
    assert NeighborhoodAttention(2, 3).macs((None, 5, 7, 16)) == 5 * 7 * (4 * 16**2 + 2 * 9 * 16)


@pytest.mark.parametrize(
    "layer",
    [NeighborhoodAttention(2, 3), NeighborhoodAttention(4, 3, 2, use_bias=False, name="attention")],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 9, 7, 8), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_heads=0), "num_heads=0 must be a positive integer"),
        (dict(num_heads=2, kernel_size=4), "kernel_size=4 must be a positive odd number"),
        (dict(num_heads=2, dilation=0), "dilation=0"),
        (dict(num_heads=3), "num_heads=3 does not divide channels=16; use one of 1, 2, 4, 8, 16"),
        (dict(num_heads=2, kernel_size=9), "needs a map of at least 9×9 pixels, got 7×9; use a smaller kernel"),
        (dict(num_heads=2, kernel_size=3, dilation=3), "kernel_size=3 with dilation=3 needs a map of at least 9×9"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        NeighborhoodAttention(**options)(keras.Input((7, 9, 16)))


@pytest.mark.parametrize("shape", [(5, 16), (None, 7, 16), (7, 7, None)])
def test_inputs_that_are_no_map_of_known_size(shape):
    with pytest.raises(InvalidValueError, match=r"NeighborhoodAttention .* got shape"):
        NeighborhoodAttention(2)(keras.Input(shape))
