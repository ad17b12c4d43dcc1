"""Property: every rewrite keeps the outputs of graphs with keywords, masks, nested structures and several outputs."""

import os

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, in_float64, weights_of
from random_calls import RandomCalls

from kzoo.surgery import (
    equalize_ranges,
    fold_batch_norm,
    fold_preprocessing,
    insert_fake_quantization,
    norm_to_depthwise,
    pooling_to_conv,
    remove_fake_quantization,
    same_outputs,
)
from kzoo.surgery.fake_quantization import CHANNEL_AXES

TOLERANCE = 1e-5  # of the largest output
GRAPHS = int(os.environ.get("KZOO_RANDOM_GRAPHS", 3000))  # of the slow test


def outputs_of(model, given):
    return keras.tree.map_structure(np.float64, model(given, training=False))


def worst_difference(found, expected) -> float:
    """Largest difference over the largest value, of any output; they have the same names and structure."""
    keras.tree.assert_same_structure(found, expected)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def check(seed: int) -> None:
    """Compares in float32, and where that differs in float64: some graphs lose four digits, and float32 has seven."""
    drawn = RandomCalls(seed)
    try:
        compare(seed, drawn.model, drawn.given)
    except AssertionError:
        compare(seed, in_float64(drawn.model), drawn.given)


def compare(seed: int, model: keras.Model, given) -> None:
    """All rewrites of one graph, one after the other, each compared with the graph itself."""
    before, expected = weights_of(model), outputs_of(model, given)
    rewritten = model
    for rewrite in (fold_preprocessing, fold_batch_norm, norm_to_depthwise, pooling_to_conv):
        rewritten = rewrite(rewritten)
        difference = worst_difference(outputs_of(rewritten, given), expected)
        assert difference < TOLERANCE, f"seed {seed}: {rewrite.__name__} differs by {difference:.2g}"
    assert_weights_are(model, before)
    flat = not any(isinstance(layer, keras.Model) for layer in rewritten.layers)
    normed = any(weight.name == "moving_variance" for weight in rewritten.weights)
    if flat and not normed and any(type(layer) in CHANNEL_AXES for layer in rewritten.layers):
        difference = worst_difference(outputs_of(equalize_ranges(rewritten), given), expected)
        assert difference < TOLERANCE, f"seed {seed}: equalize_ranges differs by {difference:.2g}"
        rounding = insert_fake_quantization(rewritten, "int8")  # of kernels alone, as no map has been seen
        plain = remove_fake_quantization(rounding)
        difference = worst_difference(outputs_of(plain, given), outputs_of(rounding, given))
        assert difference < TOLERANCE, f"seed {seed}: remove_fake_quantization differs by {difference:.2g}"


@pytest.fixture(autouse=True)
def uncompared(monkeypatch):
    """Without the comparison that would leave a wrong rewrite out."""
    monkeypatch.setattr(same_outputs, "MOST_OPERATIONS", 0)


@pytest.mark.parametrize("start", [0, pytest.param(6, marks=pytest.mark.slow)])
def test_rewrites_keep_what_graphs_compute(start):
    for seed in range(start, start + 6):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, GRAPHS, 100))
def test_rewrites_keep_what_many_graphs_compute(start):
    for seed in range(start, min(start + 100, GRAPHS)):
        check(seed)
