"""What is left of batch normalisation, and average pooling, as depthwise convolutions."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, randomise, relative_error, weights_of
from keras import layers

from kzoo.errors import InvalidValueError
from kzoo.surgery import norm_to_depthwise, plan_norms, plan_pooling, pooling_to_conv

SHAPE = (7, 6, 5)


def check(rewrite, graph, shape=SHAPE):
    """Rewrites a random model and compares outputs, names and the weights of the original; returns the new one."""
    inputs = keras.Input(shape, name="image")
    model = randomise(keras.Model(inputs, graph(inputs)))
    before = weights_of(model)
    rewritten = rewrite(model)
    x = feature_map(2, *shape)
    assert relative_error(rewritten(x), model(x)) < 1e-5
    assert {layer.name for layer in model.layers} <= {layer.name for layer in rewritten.layers}
    assert_weights_are(model, before)
    return rewritten


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"axis": 3}])
def test_norm(options):
    norm = layers.BatchNormalization(name="norm", **options)
    model = check(norm_to_depthwise, lambda x: layers.ReLU()(norm(norm(layers.ReLU()(x)))))
    assert type(model.get_layer("norm")) is layers.DepthwiseConv2D
    assert len(model.weights) == 2


def test_norm_of_vectors_stays():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.BatchNormalization(name="norm")(inputs))
    plan = plan_norms(model)
    assert (plan.folds, plan.kept) == ({}, {"norm": "it reads a tensor of shape (None, 5), not a 2-D map"})


POOLING = {
    "global": layers.GlobalAveragePooling2D,
    "global_keepdims": lambda **o: layers.GlobalAveragePooling2D(keepdims=True, **o),
    "valid": lambda **o: layers.AveragePooling2D((2, 3), strides=2, **o),
    "overlapping": lambda **o: layers.AveragePooling2D(3, strides=1, **o),
    "same_without_padding": lambda **o: layers.AveragePooling2D((1, 2), strides=2, padding="same", **o),
}


@pytest.mark.parametrize("kind", POOLING)
def test_pooling(kind):
    pool = POOLING[kind](name="pool")
    model = check(pooling_to_conv, lambda x: layers.Dense(3)(pool(x)))
    kernel = model.get_layer("pool").kernel
    assert type(model.get_layer("pool")) is layers.DepthwiseConv2D
    np.testing.assert_allclose(keras.ops.sum(kernel, (0, 1)), 1, rtol=1e-6)
    assert ("pool_flatten" in [layer.name for layer in model.layers]) == (kind == "global")


REFUSALS = [
    (lambda x: layers.MaxPooling2D(name="pool")(x), "max-pooling is not linear"),
    (lambda x: layers.GlobalMaxPooling2D(name="pool")(x), "max-pooling is not linear"),
    (lambda x: layers.AveragePooling2D(2, padding="same", name="pool")(x), "it averages less values at the border"),
    (
        lambda x: layers.AveragePooling2D(2, (1, 2), name="pool")(x),
        "it has strides (1, 2), and a depthwise convolution one for both axes",
    ),
    (
        lambda x: layers.AveragePooling1D(2, name="pool")(layers.Reshape((42, 5))(x)),
        "a AveragePooling1D does not read a 2-D map",
    ),
]


@pytest.mark.parametrize(("graph", "reason"), REFUSALS)
def test_pooling_that_stays(graph, reason, caplog):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, graph(inputs))
    plan = plan_pooling(model)
    assert (plan.folds, plan.kept) == ({}, {"pool": reason})
    x = feature_map(2, *SHAPE)
    np.testing.assert_array_equal(pooling_to_conv(model)(x), model(x))
    assert f"pool stays: {reason}" in caplog.text


def test_maps_of_unknown_or_different_size():
    inputs = keras.Input((None, None, 3))
    pool = layers.GlobalAveragePooling2D(name="pool")
    unknown = plan_pooling(keras.Model(inputs, pool(inputs)))
    inputs, pool = keras.Input(SHAPE), layers.GlobalAveragePooling2D(name="pool")
    different = plan_pooling(keras.Model(inputs, [pool(inputs), pool(layers.MaxPooling2D(name="max")(inputs))]))
    assert unknown.kept == {"pool": "it reads maps of different or unknown size [(None, None, 3)]"}
    assert different.kept["pool"] == "it reads maps of different or unknown size [(3, 3, 5), (7, 6, 5)]"


def test_models_inside_and_their_plans():
    inner_input = keras.Input(SHAPE)
    y = layers.GlobalAveragePooling2D(name="pool")(layers.BatchNormalization(name="norm")(layers.ReLU()(inner_input)))
    inner = keras.Model(inner_input, y, name="inner")
    check(norm_to_depthwise, inner)
    check(pooling_to_conv, inner)
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, inner(inputs))
    assert str(plan_norms(model)) == "inner/norm becomes a convolution"
    assert str(plan_pooling(model)) == "inner/pool becomes a convolution"


def test_subclassed_models():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    for rewrite in (norm_to_depthwise, pooling_to_conv):
        with pytest.raises(InvalidValueError, match="subclassed model; only functional models"):
            rewrite(Subclassed())
