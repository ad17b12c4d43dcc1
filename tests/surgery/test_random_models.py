"""Property: whatever the graph, every rewrite gives the same outputs and does what its plan says."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, in_float64, pixels, relative_error, weights_of
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from random_models import RandomModel

import kzoo
from kzoo.surgery import fold_preprocessing, norm_to_depthwise, plan_folding, plan_preprocessing, pooling_to_conv
from kzoo.taps import tap_names

TOLERANCE = 1e-5
OPTIONS = dict(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def normalisations(model, prefix: str = "") -> set[str]:
    """Batch normalisations of a model and the models inside it."""
    found = set()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            found.add(prefix + layer.name)
        elif isinstance(layer, keras.Model):
            found |= normalisations(layer, f"{prefix}{layer.name}/")
    return found


def assert_equal(ours, theirs) -> None:
    for actual, expected in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        assert relative_error(actual, expected) < TOLERANCE if np.any(expected) else not np.any(actual)


def infer(model, x):
    """As `predict` does. A bare `model(x)` is not defined where one layer of it is called with training=True: Keras
    then runs the layers after it, in the order of its list, in training mode too.
    """
    return model(x, training=False)


def with_taps(model) -> keras.Model:
    """The model with its taps as outputs too."""
    return keras.Model(model.inputs, [model.outputs, [model.get_layer(name).output for name in tap_names(model)]])


def check_folding(data) -> None:
    model = RandomModel(data.draw).model
    before, names = weights_of(model), normalisations(model)
    x = feature_map(2, *model.inputs[0].shape[1:])
    plan = plan_folding(model)
    note(f"{[(layer.name, layer.get_config()) for layer in model.layers]}\n{plan}")
    folded = kzoo.fold_batch_norm(model)
    assert set(plan.folds) | set(plan.kept) == names
    assert normalisations(folded) == names - set(plan.folds)
    assert_weights_are(model, before)
    assert tap_names(folded) == tap_names(model)
    try:
        assert_equal(infer(with_taps(folded), [x]), infer(with_taps(model), [x]))
    except AssertionError:  # in float64 it must be equal: some graphs lose three of float32's seven digits
        double = in_float64(model)
        assert_equal(infer(with_taps(kzoo.fold_batch_norm(double)), [x]), infer(with_taps(double), [x]))


@settings(max_examples=20, **OPTIONS)
@given(st.data())
def test_folding(data):
    check_folding(data)


@pytest.mark.slow
@settings(max_examples=1500, **OPTIONS)
@given(st.data())
def test_folding_of_many(data):
    check_folding(data)


@settings(max_examples=8, **OPTIONS)
@given(st.data())
def test_pixels_and_what_is_left(data):
    """Pixel normalisation into the first convolution; then the rest of the algebra, one rewrite after the other."""
    model = RandomModel(data.draw, images=True).model
    images = pixels(2, *model.inputs[0].shape[1:])
    expected = infer(model, images)
    plan = plan_preprocessing(model)
    note(f"{[(layer.name, layer.get_config()) for layer in model.layers]}\n{plan}")
    rewritten = fold_preprocessing(model)
    assert not {operation.name for operation in rewritten.operations} & set(plan.folds)
    assert_equal(infer(rewritten, images), expected)
    for rewrite in (kzoo.fold_batch_norm, norm_to_depthwise, pooling_to_conv):
        rewritten = rewrite(rewritten)
        assert_equal(infer(rewritten, images), expected)
