"""Range equalisation: equal outputs, equal ranges, smaller rounding errors, and refusals with reasons."""

import itertools
import logging

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, pixels, randomise, relative_error, weights_of
from keras import layers

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.registry import lookup
from kzoo.surgery.equalize import equalize_ranges, plan_equalization
from kzoo.surgery.fake_quantization import insert_fake_quantization

SHAPE = (9, 7, 3)


def chain(x):
    """Every linear layer and everything that may stand between two."""
    x = layers.LeakyReLU(0.2)(layers.Conv2D(6, 3, name="first")(x))
    x = layers.ZeroPadding2D(1)(layers.MaxPooling2D(2)(x))
    x = layers.ReLU()(layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, activation="relu", name="transpose")(layers.Dropout(0.5)(x))
    x = layers.AveragePooling2D(2)(
        layers.Conv2D(8, 3, groups=2, activation="leaky_relu", use_bias=False, name="grouped")(x)
    )
    x = layers.Dense(6, activation="relu", name="pixelwise")(x)
    x = layers.Dense(5, name="flat")(layers.Flatten()(x))
    return layers.Dense(4, activation="softmax", name="last")(layers.Activation("relu")(x))


def uneven(model, seed: int = 3) -> keras.Model:
    """Random weights whose input channels differ by orders of magnitude."""
    randomise(model)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            kernel = layer.kernel
            layer.kernel.assign(kernel * np.exp(rng.normal(0, 1.5, (kernel.shape[-2], 1))))
    return model


def rounding_error(model, x) -> float:
    rounded = insert_fake_quantization(model, "int8_weights", per_channel=False)
    return relative_error(rounded(x), model(x))


def test_every_layer_in_a_chain():
    inputs = keras.Input(SHAPE)
    model = uneven(keras.Model(inputs, chain(inputs)))
    before = weights_of(model)
    plan = plan_equalization(model)
    names = ["first", "depthwise", "transpose", "grouped", "pixelwise", "flat", "last"]
    assert plan.pairs == [pair for pair in itertools.pairwise(names) if pair != ("transpose", "grouped")]
    assert plan.refused == {"transpose": "grouped is a grouped convolution", "last": "last is an output of the model"}
    equal = equalize_ranges(model)
    x = feature_map(4, *SHAPE)
    assert relative_error(equal(x), model(x)) < 1e-5
    assert relative_error(equal.get_layer("first").kernel, model.get_layer("first").kernel) > 0.1
    assert [layer.name for layer in equal.layers[1:]] == [layer.name for layer in model.layers[1:]]
    assert_weights_are(model, before)


@pytest.mark.quick
def test_ranges_of_a_pair_agree_channel_by_channel():
    """Equation 11 of the paper: after one pair both ranges are the geometric mean of what they were."""
    inputs = keras.Input((6,))
    first, second = layers.Dense(5, activation="relu", name="first"), layers.Dense(3, name="second")
    model = uneven(keras.Model(inputs, second(first(inputs))))
    ranges = [np.abs(np.array(kernel)).max(axis=axis) for kernel, axis in ((first.kernel, 0), (second.kernel, 1))]
    equal = equalize_ranges(model)
    expected = np.sqrt(ranges[0] * ranges[1])
    np.testing.assert_allclose(np.abs(equal.get_layer("first").kernel).max(axis=0), expected, rtol=1e-5)
    np.testing.assert_allclose(np.abs(equal.get_layer("second").kernel).max(axis=1), expected, rtol=1e-5)
    np.testing.assert_allclose(equal.get_layer("first").bias, first.bias * expected / ranges[0], rtol=1e-5)


def test_long_chains_converge():
    inputs = x = keras.Input(SHAPE)
    for index in range(6):
        kind = layers.DepthwiseConv2D(3, padding="same") if index % 2 else layers.Conv2D(6, 1)
        x = layers.ReLU()(kind(x))
    model = uneven(keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x)))
    equal = equalize_ranges(model)
    again = equalize_ranges(equal)
    for ours, expected in zip(again.get_weights(), equal.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-2)
    x = feature_map(4, *SHAPE)
    assert relative_error(equal(x), model(x)) < 1e-5
    assert rounding_error(equal, x) < 0.5 * rounding_error(model, x)


def test_dead_channels_stay():
    inputs = keras.Input((4,))
    model = uneven(keras.Model(inputs, layers.Dense(3)(layers.Dense(5, activation="relu", name="first")(inputs))))
    first = model.get_layer("first")
    first.kernel.assign(first.kernel * [1, 1, 0, 1, 1])
    equal = equalize_ranges(model)
    x = feature_map(6, 4)
    assert relative_error(equal(x), model(x)) < 1e-5
    assert equal.get_layer("first").bias[2] == first.bias[2]


def test_a_zoo_model_and_its_taps():
    model = kzoo.fold_batch_norm(
        randomise(kzoo.build("vgg11_bn", input_shape=(32, 32, 3), **lookup("vgg11_bn").narrow))
    )
    assert len(plan_equalization(model).pairs) == 7
    equal = equalize_ranges(model)
    x = pixels(2, 32, 32, 3)
    assert relative_error(equal(x), model(x)) < 1e-5
    assert kzoo.pyramid(equal, ["p3"])(x)["p3"].shape == kzoo.pyramid(model, ["p3"])(x)["p3"].shape


def conv(name, **options):
    return layers.Conv2D(4, 3, padding="same", name=name, **options)


def relu6(x):
    return conv("next")(layers.ReLU(6, name="clip")(conv("linear")(x)))


def threshold(x):
    return conv("next")(layers.ReLU(threshold=0.5, name="clip")(conv("linear")(x)))


def own_activation(x):
    return conv("next")(conv("linear", activation="gelu")(x))


def activation_layer(x):
    return conv("next")(layers.Activation("sigmoid", name="gate")(conv("linear")(x)))


def addition(x):
    y = conv("linear")(x)
    return conv("next")(layers.Add(name="sum")([y, conv("other")(x)]))


def branch(x):
    y = conv("linear")(x)
    return layers.Add()([conv("next")(y), conv("other")(y)])


def operation(x):
    return conv("next")(keras.ops.sin(conv("linear")(x)))


def shared(x):
    layer = layers.Conv2D(SHAPE[-1], 3, padding="same", name="linear")
    return conv("next")(layer(layer(x)))


def grouped(x):
    return layers.Conv2D(4, 3, groups=2, name="next")(conv("linear")(x))


REFUSED = [
    (relu6, "clip clips at 6, whatever the scale"),
    (threshold, "clip has its threshold at 0.5, whatever the scale"),
    (own_activation, "linear has the activation gelu, which is not positively homogeneous"),
    (activation_layer, "gate has the activation sigmoid, which is not positively homogeneous"),
    (addition, "sum is a Add, which may mix channels or scales"),
    (branch, "the output of linear is used 2 times"),
    (operation, "sin is a plain operation, which may mix channels or scales"),
    (shared, "linear is called 2 times"),
    (grouped, "next is a grouped convolution"),
]


@pytest.mark.parametrize(("graph", "reason"), REFUSED, ids=[graph.__name__ for graph, _ in REFUSED])
def test_refusals(graph, reason, caplog):
    keras.backend.clear_session()
    inputs = keras.Input(SHAPE)
    model = randomise(keras.Model(inputs, graph(inputs)))
    assert plan_equalization(model).refused["linear"] == reason
    with caplog.at_level(logging.INFO, "kzoo"):
        equal = equalize_ranges(model)
    assert f"linear is not equalized: {reason}" in caplog.text
    x = feature_map(2, *SHAPE)
    assert relative_error(equal(x), model(x)) < 1e-5


def test_batch_normalisation_is_folded_first():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, layers.BatchNormalization(name="norm")(conv("linear")(inputs)))
    with pytest.raises(InvalidValueError, match=r"batch normalisation \(norm\); call kzoo.fold_batch_norm first"):
        equalize_ranges(model)
