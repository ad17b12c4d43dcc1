"""Pixel normalisation into the first convolution: exact at the borders too, and friendly to integers."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, pixels, randomise, relative_error, weights_of
from keras import layers

import kzoo
from kzoo.surgery import fold_preprocessing, plan_preprocessing

SHAPE = (9, 8, 3)
MEAN, DEVIATION = np.float32([123.0, 117.0, 104.0]), np.float32([58.0, 57.0, 56.0])


def efficientnet(x):
    x = layers.Normalization(mean=MEAN / 255, variance=(DEVIATION / 255) ** 2, name="normal")(
        layers.Rescaling(1 / 255, name="unit")(x)
    )
    return layers.Rescaling([1.5, 2.0, 2.5], [0.1, 0.2, 0.3], name="again")(x)


def inverse(x):
    return layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0], invert=True, name="inverse")(x)


def one_number(x):
    return layers.Normalization(axis=None, mean=100.0, variance=2500.0, name="normal")(x)


def arithmetic(x):
    return 2.0 - (x[..., ::-1] - MEAN) / DEVIATION * 3 + keras.ops.convert_to_tensor([[[[1.0, 2.0, 3.0]]]])


def operations(x):
    return keras.ops.subtract(1.0, keras.ops.divide(x, 255.0))


CHAINS = {
    efficientnet: 3,
    inverse: 1,
    one_number: 1,
    arithmetic: 6,
    operations: 2,
}  # and how many layers and operations it has
FIRST = {
    "valid": lambda x: layers.Conv2D(4, 3, name="first")(x),
    "same": lambda x: layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="first")(x),
    "padded": lambda x: layers.Conv2D(4, 3, strides=2, name="first")(layers.ZeroPadding2D(((0, 1), (2, 0)))(x)),
    "cropped": lambda x: layers.Conv2D(4, 3, padding="same", name="first")(layers.Cropping2D(1)(x)),
    "flat": lambda x: layers.Dense(4, name="first")(layers.Flatten()(x)),
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("chain", CHAINS, ids=[chain.__name__ for chain in CHAINS])
def test_every_chain(chain, first):
    inputs = keras.Input(SHAPE, name="image")
    model = keras.Model(inputs, layers.ReLU(name="end")(FIRST[first](chain(inputs))))
    before, images = weights_of(model), pixels(2, *SHAPE)
    plan = plan_preprocessing(model)
    assert len(plan.folds) == CHAINS[chain]
    assert set(plan.folds.values()) == {"first"}
    folded = fold_preprocessing(model)
    names = [operation.name for operation in folded.operations]
    assert not set(names) & set(plan.folds)
    assert {"image", "first", "end"} <= set(names)
    assert any(name.endswith("_constant") for name in names) == (first in ("same", "padded", "cropped"))
    assert relative_error(folded(images), model(images)) < 1e-5
    assert_weights_are(model, before)


@pytest.mark.quick
def test_a_model_of_the_zoo():
    model = randomise(kzoo.build("cifar_resnet20", depths=(1, 1), widths=(4, 8), classifier_activation=None))
    folded = fold_preprocessing(kzoo.fold_batch_norm(model))
    first = ["image", "preprocessing_constant", "preprocessing", "stem_conv"]
    assert [layer.name for layer in folded.layers][:4] == first
    assert type(folded.get_layer("preprocessing")) is layers.Identity  # `kzoo.export` looks for the name
    image = pixels(1, 2, 2, 3)
    added = folded.get_layer("preprocessing_constant")(image)
    np.testing.assert_array_equal(added[..., :3], image)
    np.testing.assert_array_equal(added[..., 3], 255 - image[..., 0])
    images = pixels(2, 33, 31, 3)[:, :32, :30]
    images = np.pad(images, ((0, 0), (0, 0), (0, 2), (0, 0)))
    assert relative_error(folded(images), model(images)) < 1e-5
    gone = {layer.name for layer in model.layers} - {layer.name for layer in folded.layers}
    assert gone == {layer.name for layer in model.layers if "bn" in layer.name}


def rescaled(x):
    return layers.Rescaling(1 / 255, 0.5, name="unit")(x)


def used_twice(x):
    x = rescaled(x)
    return layers.Concatenate(name="stack")([x, layers.Conv2D(4, 1, name="first")(x)])


def channels_apart(x):
    return layers.DepthwiseConv2D(3, padding="same", name="first")(rescaled(x))


def reversed_channels_apart(x):
    return layers.DepthwiseConv2D(3, name="first")(x[..., ::-1])


def nonlinear(x):
    return layers.Conv2D(4, 1, name="first")(layers.ReLU(name="relu")(rescaled(x)))


def over_rows(x):
    mean = np.arange(9.0)
    return layers.Conv2D(4, 1, name="first")(
        layers.Normalization(axis=1, mean=mean, variance=mean + 1, name="unit")(x)
    )


def each_pixel(x):
    return layers.Conv2D(4, 1, name="first")(x + np.float32(np.arange(24).reshape(8, 3)))


REFUSALS = [
    (used_twice, "the output of unit is used elsewhere too"),
    (channels_apart, "first behind it reads padded zeros, and convolves its channels apart"),
    (reversed_channels_apart, "first behind it does not mix the channels that it reorders"),
    (nonlinear, "relu behind it is of type ReLU, not a convolution or dense layer"),
    (over_rows, "it normalises axis (1,), not the channels"),
    (each_pixel, "it does not give each channel one number"),
]


@pytest.mark.parametrize(("graph", "reason"), REFUSALS, ids=[graph.__name__ for graph, _ in REFUSALS])
def test_refusals(graph, reason, caplog):
    inputs = keras.Input(SHAPE, name="image")
    model = keras.Model(inputs, graph(inputs))
    plan = plan_preprocessing(model)
    assert (plan.folds, list(plan.kept.values())) == ({}, [reason])
    folded = fold_preprocessing(model)
    assert f"{next(iter(plan.kept))} stays: {reason}" in caplog.text
    images = pixels(2, *SHAPE)
    np.testing.assert_array_equal(folded(images), model(images))


def test_integer_pixels_are_refused():
    inputs = keras.Input(SHAPE, dtype="uint8")
    model = keras.Model(inputs, layers.Conv2D(4, 1)(rescaled(inputs)))
    assert plan_preprocessing(model).kept == {"unit": "it reads uint8 pixels, and a linear layer needs floating point"}
    images = pixels(2, *SHAPE).astype("uint8")
    np.testing.assert_array_equal(fold_preprocessing(model)(images), model(images))


def test_only_pixels_are_folded():
    inputs = keras.Input(SHAPE)
    x = rescaled(layers.Conv2D(4, 1)(inputs))
    model = keras.Model(inputs, layers.Conv2D(4, 1)(x * 2.0))
    plan = plan_preprocessing(model)
    assert (plan.folds, plan.kept, plan.inside) == ({}, {}, [])
    x = feature_map(2, *SHAPE)
    np.testing.assert_array_equal(fold_preprocessing(model)(x), model(x))
