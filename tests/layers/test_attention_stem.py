"""The attention stem against the equations of section 3.3 of its paper (arXiv:1906.05909), written with loops."""

import itertools

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, randomise, relative_error
from layers.attention_loops import attend_to, dense, heads_of, pixels_of, softmax

from kzoo.errors import InvalidValueError
from kzoo.layers import AttentionStem


def reference(x, layer):
    size, filters, mixtures = layer.window_size, layer.filters, layer.num_mixtures
    rows, columns = (np.array(each, "float64") for each in (layer.row_embedding, layer.column_embedding))
    mixture_rows, mixture_columns, nu = (
        np.array(each, "float64") for each in (layer.mixture_rows, layer.mixture_columns, layer.mixtures)
    )
    query_key = dense(x, layer.query_key)
    matrices = np.array(layer.values.kernel, "float64").reshape(-1, mixtures, filters)
    z = np.full((len(x), -(-x.shape[1] // size), -(-x.shape[2] // size), filters), -np.inf)
    for n in range(len(x)):
        for i, j in pixels_of(x):
            top, left = i // size * size, j // size * size
            square = itertools.product(range(top, top + size), range(left, left + size))
            seen = [(a, b) for a, b in square if a < x.shape[1] and b < x.shape[2]]
            query = query_key[n, i, j, :filters]
            keys = np.array([query_key[n, a, b, filters:] for a, b in seen])
            values = []
            for a, b in seen:
                p = softmax(
                    np.array([(mixture_rows[a - top] + mixture_columns[b - left]) @ nu[:, m] for m in range(mixtures)])
                )
                values.append(sum(p[m] * (x[n, a, b] @ matrices[:, m]) for m in range(mixtures)))

            def relative(head, index, i=i, j=j, seen=seen, query=query):
                a, b = seen[index]
                embedding = np.concatenate([rows[head, :, a - i + size - 1], columns[head, :, b - j + size - 1]])
                return query[heads_of(filters, layer.num_heads)[head]] @ embedding

            y = attend_to(query, keys, np.array(values), layer.num_heads, relative, scale=False)
            z[n, i // size, j // size] = np.maximum(z[n, i // size, j // size], y)
    return z


@pytest.mark.parametrize(
    ("size", "window_size", "num_heads", "num_mixtures"),
    [((8, 12), 4, 2, 4), ((5, 7), 4, 1, 3), ((5, 7), 3, 2, 1), ((3, 9), 4, 4, 2)],
)
def test_is_the_equation(size, window_size, num_heads, num_mixtures):
    x = feature_map(2, *size, 3)
    layer = AttentionStem(8, window_size, num_heads, num_mixtures)
    layer.build(x.shape)
    randomise(layer)
    assert relative_error(layer(x), reference(x, layer)) < 1e-5


def test_factors_are_convex_and_differ_by_position():
    layer = AttentionStem(8)
    layer.build((None, 8, 8, 3))
    factors = np.array(randomise(layer).factors())
    np.testing.assert_allclose(factors.sum(-1), 1, rtol=1e-6)
    assert (factors > 0).all()
    assert np.unique(factors.reshape(16, -1).round(5), axis=0).shape == (16, 4)


def test_macs():
    layer = AttentionStem(8, 4, 2, 3)
    assert layer.macs((None, 5, 8, 3)) == 8 * 8 * (8 * (5 * 3 + 3) + 2 * 16 * 8 + 2 * 7 * 4)


@pytest.mark.parametrize(
    "layer", [AttentionStem(16), AttentionStem(8, 3, 2, 2, name="stem")], ids=lambda layer: layer.name
)
def test_layer_contract(layer, tmp_path):
    check_layer(layer, (2, 9, 8, 3), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(filters=0), "filters=0 must be a positive integer"),
        (dict(filters=16, window_size=-4), "window_size=-4"),
        (dict(filters=16, num_mixtures=0), "num_mixtures=0"),
        (dict(filters=18), "num_heads=4 does not divide filters=18; use one of 1, 2, 3, 6, 9, 18"),
        (dict(filters=12), "filters=12 give each of num_heads=4 heads 3 channels"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InvalidValueError, match=message):
        AttentionStem(**options)


@pytest.mark.parametrize("shape", [(5, 16), (None, 7, 3)])
def test_inputs_that_are_no_map_of_known_size(shape):
    with pytest.raises(InvalidValueError, match=r"AttentionStem .* got shape"):
        AttentionStem(8)(keras.Input(shape))
