"""Batch normalisation into the linear layer behind it, several in a row, and through what stands in between."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, pixels, randomise, relative_error, weights_of
from keras import layers

import kzoo
from kzoo.surgery import plan_folding

SHAPE = (7, 5, 6)


def norm(name: str = "norm", **options):
    return layers.BatchNormalization(epsilon=0.1, name=name, **options)


def check(x_shape, graph, folds: dict, kept: dict | None = None):
    """Builds the graph, folds it, and compares plan, outputs and the weights of the original; returns the folded."""
    inputs = keras.Input(x_shape, name="image")
    model = randomise(keras.Model(inputs, graph(inputs)))
    before = weights_of(model)
    plan = plan_folding(model)
    assert plan.folds == folds
    assert plan.kept.keys() == (kept or {}).keys()
    for name, reason in (kept or {}).items():
        assert reason in plan.kept[name]
    folded = kzoo.fold_batch_norm(model)
    left = [layer.name for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    assert left == list(plan.kept)
    x = feature_map(2, *x_shape)
    assert relative_error(folded(x), model(x)) < 1e-5
    assert_weights_are(model, before)
    return folded


BEHIND = {
    "valid": lambda: layers.Conv2D(8, 3, use_bias=False, name="linear"),
    "activation": lambda: layers.Conv2D(8, 3, activation="relu", name="linear"),
    "grouped": lambda: layers.Conv2D(9, 3, groups=3, name="linear", use_bias=False),
    "strided_dilated": lambda: layers.Conv2D(4, (3, 2), dilation_rate=2, name="linear"),
    "pointwise_same": lambda: layers.Conv2D(4, 1, strides=2, padding="same", name="linear"),
    "same_without_padding": lambda: layers.Conv2D(4, (7, 5), strides=(7, 5), padding="same", name="linear"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="linear", use_bias=False),
    "separable": lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2, name="linear"),
    "dense": lambda: layers.Dense(4, use_bias=False, name="linear"),
    "transpose_pointwise": lambda: layers.Conv2DTranspose(4, 1, name="linear"),
}


@pytest.mark.parametrize("kind", BEHIND)
def test_what_pads_nothing(kind):
    folded = check(SHAPE, lambda x: BEHIND[kind]()(norm()(layers.ReLU()(x))), {"norm": "linear"})
    assert len(folded.weights) == (3 if kind == "separable" else 2)


def test_the_last_map_to_a_dense_layer():
    def graph(x):
        x = layers.Flatten()(norm()(layers.ReLU()(x)))
        return layers.Dense(3, name="linear")(layers.Dropout(0.5)(x))

    check(SHAPE, graph, {"norm": "linear"})


BORDERS = {
    "same": lambda x: layers.Conv2D(4, 3, padding="same", name="linear")(x),
    "padded": lambda x: layers.Conv2D(4, 3, strides=2, use_bias=False, name="linear")(layers.ZeroPadding2D(1)(x)),
    "dilated": lambda x: layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="linear")(x),
    "transpose": lambda x: layers.Conv2DTranspose(4, 3, strides=2, name="linear")(x),
    "transpose_same": lambda x: layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="linear")(x),
    "pointwise": lambda x: layers.Conv2D(4, 1, name="linear")(layers.ZeroPadding2D(1)(x)),
    "cropped": lambda x: layers.Conv2D(4, 3, padding="same", name="linear")(layers.Cropping2D(1)(x)),
}


@pytest.mark.parametrize("kind", BORDERS)
def test_borders_of_images(kind):
    folded = check((7, 6, 3), lambda x: BORDERS[kind](norm()(x)), {"norm": "linear"})
    constant = folded.get_layer("norm_constant")
    np.testing.assert_array_equal(constant(np.full((1, 1, 1, 3), 7.0))[0, 0, 0], [7, 7, 7, 1 - 7])
    assert folded.get_layer("linear").kernel.shape[-1 if "transpose" in kind else -2] == 4


@pytest.mark.parametrize(
    ("rank", "kind"), [(1, "Conv1D"), (3, "Conv3D"), (1, "Conv1DTranspose"), (3, "Conv3DTranspose")]
)
def test_borders_in_other_dimensions(rank, kind):
    linear = getattr(layers, kind)(4, 3, padding="same", name="linear")
    check((*(6, 5, 4)[:rank], 2), lambda x: linear(norm()(x)), {"norm": "linear"})


def test_a_causal_convolution():
    check((9, 2), lambda x: layers.Conv1D(4, 3, padding="causal", name="linear")(norm()(x)), {"norm": "linear"})


def test_without_offset_zeros_stay_zeros():
    def graph(x):
        x = norm("first", center=False)(layers.ReLU()(x))
        return layers.Conv2D(4, 3, padding="same", name="linear")(layers.ZeroPadding2D(1)(x))

    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, graph(inputs))  # a fresh moving mean is 0
    model.get_layer("first").moving_variance.assign(np.linspace(0.5, 2, 6))
    assert plan_folding(model).folds == {"first": "linear"}
    x = feature_map(2, *SHAPE)
    folded = kzoo.fold_batch_norm(model)
    assert folded.get_layer("linear").kernel.shape == model.get_layer("linear").kernel.shape
    assert relative_error(folded(x), model(x)) < 1e-5


APART = {
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same", name="linear"),
    "grouped": lambda: layers.Conv2D(6, 3, groups=3, padding="same", name="linear"),
    "separable": lambda: layers.SeparableConv2D(6, 3, padding="same", name="linear"),
}


@pytest.mark.parametrize("kind", APART)
def test_borders_of_channels_apart(kind):
    reason = "linear behind it reads padded zeros, and convolves its channels apart"
    check((7, 6, 3), lambda x: APART[kind]()(norm()(x)), {}, {"norm": reason})


def test_several_in_a_row():
    def graph(x):
        x = norm("third")(layers.Dropout(0.5)(norm("second")(norm("first")(layers.Conv2D(4, 3, name="a")(x)))))
        x = norm("fifth")(layers.AveragePooling2D(2)(norm("fourth")(layers.ReLU()(x))))
        return layers.Conv2D(4, 1, name="b")(x)

    check(SHAPE, graph, {"first": "a", "second": "a", "third": "a", "fourth": "b", "fifth": "b"})


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "scale": False}])
def test_what_stays_takes_in_those_behind_it(options):
    def graph(x):
        x = norm("second")(layers.AveragePooling2D(2)(norm("first", **options)(layers.ReLU()(x))))
        return layers.ReLU()(norm("third")(x))

    check(SHAPE, graph, {"second": "first", "third": "first"}, {"first": "of type ReLU"})


def test_no_offset_passes_padding_behind_a_norm_without_one():
    def graph(x):
        x = layers.ZeroPadding2D(1)(layers.Conv2D(6, 3, name="linear")(x))
        return layers.ReLU()(norm("second")(norm("first", center=False)(x)))

    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, graph(inputs))
    model.get_layer("first").moving_variance.assign(np.linspace(0.5, 2, 6))  # its moving mean is 0
    randomise(model.get_layer("second"))
    assert plan_folding(model).folds == {"first": "linear"}
    x = feature_map(2, *SHAPE)
    assert relative_error(kzoo.fold_batch_norm(model)(x), model(x)) < 1e-5


BETWEEN = {
    "identity": layers.Identity,
    "linear": lambda: layers.Activation("linear"),
    "dropout": lambda: layers.Dropout(0.5),
    "spatial_dropout": lambda: layers.SpatialDropout2D(0.5),
    "noise": lambda: layers.GaussianNoise(0.5),
    "alpha_dropout": lambda: layers.AlphaDropout(0.5),
    "average": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "global_average": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "global_average_vector": layers.GlobalAveragePooling2D,
    "nearest": lambda: layers.UpSampling2D(2),
    "bilinear": lambda: layers.UpSampling2D(3, interpolation="bilinear"),
    "crop": lambda: layers.Cropping2D(((1, 0), (0, 2))),
    "reshape": lambda: layers.Reshape((-1, 6)),
}


@pytest.mark.parametrize("kind", BETWEEN)
def test_through_what_commutes(kind):
    shape = (6, 5, 6)
    between = BETWEEN[kind]()
    check(shape, lambda x: norm()(between(layers.Conv2D(6, 3, padding="same", name="linear")(x))), {"norm": "linear"})
    if kind != "nearest":
        check(shape, lambda x: layers.Dense(3, name="linear")(BETWEEN[kind]()(norm()(x))), {"norm": "linear"})


def test_not_through_what_does_not_commute():
    for between in (layers.UpSampling2D(2, interpolation="bicubic"), layers.Reshape((-1, 3)), layers.Softmax()):
        check(
            SHAPE,
            lambda x, between=between: norm()(between(layers.Conv2D(6, 3, padding="same", name="linear")(x))),
            {},
            {"norm": f"of type {type(between).__name__}"},
        )


def test_models_inside():
    inner_input = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, padding="same", name="conv")(inner_input)
    innermost = keras.Sequential([keras.Input(SHAPE), layers.Dense(6, name="dense"), norm("norm")], name="innermost")
    inner = keras.Model(inner_input, innermost(layers.ReLU()(norm("norm")(x))), name="inner")

    def graph(x):
        return layers.Conv2D(2, 1, name="head")(norm("norm")(inner(layers.ReLU()(inner(x)))))

    folds = {"norm": "head", "inner/norm": "inner/conv", "inner/innermost/norm": "inner/innermost/dense"}
    folded = check(SHAPE, graph, folds)
    assert [layer.name for layer in folded.get_layer("inner").layers[1::2]] == ["conv", "innermost"]
    assert len(folded.weights) == 6


def test_a_model_inside_called_in_training_mode():
    inner_input = keras.Input(SHAPE)
    y = norm("norm")(layers.Dense(6, name="dense")(inner_input))
    y = norm("frozen")(layers.Dense(6, name="other")(y), training=False)
    inner = keras.Model(inner_input, y, name="inner")
    inputs = keras.Input(SHAPE)
    plan = plan_folding(keras.Model(inputs, inner(inputs, training=True)))
    assert plan.folds == {"inner/frozen": "inner/other"}
    assert plan.kept == {"inner/norm": "it is called in training mode"}


def test_pixels_of_several_inputs_with_names():
    first, second = keras.Input((8, 8, 3), name="first"), keras.Input((8, 8, 3), name="second")
    y = layers.Conv2D(2, 3, name="linear")(norm()(layers.Concatenate()([first, second])))
    model = randomise(keras.Model({"first": first, "second": second}, {"map": y}))
    folded = kzoo.fold_batch_norm(model)
    images = {"first": pixels(2, 8, 8, 3), "second": pixels(2, 8, 8, 3, seed=2)}
    assert [layer.name for layer in folded.layers if layer.name != "concatenate"][:2] == ["first", "second"]
    assert len(folded.weights) == 2
    assert relative_error(folded(images)["map"], model(images)["map"]) < 1e-5
