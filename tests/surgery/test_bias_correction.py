"""Bias correction: the mean of every channel of the rounded model is that of the float model."""

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, randomise, weights_of
from keras import layers

from kzoo.errors import InvalidValueError
from kzoo.surgery.bias_correction import correct_bias
from kzoo.surgery.fake_quantization import round_kernel

SHAPE = (7, 6, 3)


def network() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = layers.ReLU()(layers.Conv2D(6, 3, name="first", use_bias=False)(inputs))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(6, 1, activation="gelu", name="pointwise")(layers.Add()([x, y]))
    return randomise(keras.Model(inputs, layers.Dense(4, name="last")(layers.GlobalAveragePooling2D()(x))))


LINEAR = ("first", "depthwise", "pointwise", "last")


def means(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Mean before the activation of each channel of each linear layer, by a model that ends in it."""
    result = {}
    for name in LINEAR:
        layer = model.get_layer(name)
        activation, layer.activation = layer.activation, keras.activations.linear
        y = np.array(layer(keras.Model(model.input, layer.input)(x)), "float64")
        layer.activation = activation
        result[name] = y.reshape(-1, y.shape[-1]).mean(axis=0)
    return result


# precision -> bits of the kernels in its file; the depthwise one of int4_weights is float, and nothing is to correct
BITS = {
    "int8": dict.fromkeys(LINEAR, 8),
    "int4": dict.fromkeys(LINEAR, 8) | {"first": 4, "pointwise": 4},
    "int4_weights": {"first": 8, "pointwise": 8, "last": 4},
}


def rounded(model: keras.Model, precision: str, per_channel: bool) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for name, bits in BITS[precision].items():
        layer = copy.get_layer(name)
        layer.kernel.assign(
            round_kernel(layer, bits, per_channel, least_error=(precision, bits) == ("int4_weights", 4))
        )
    return copy


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("precision", BITS)
def test_means_agree_after_correction_and_did_not_before(precision, per_channel):
    model, x = network(), feature_map(37, *SHAPE) + 0.5  # no multiple of the batch, and no mean of zero
    before = weights_of(model)
    expected = means(model, x)
    corrected = correct_bias(model, x, precision, per_channel)
    for name in LINEAR:
        np.testing.assert_array_equal(corrected.get_layer(name).kernel, model.get_layer(name).kernel)
        assert corrected.get_layer(name).use_bias
    assert_weights_are(model, before)

    helped = means(rounded(corrected, precision, per_channel), x)
    plain = means(rounded(model, precision, per_channel), x)
    for name in LINEAR:
        without = np.abs(plain[name] - expected[name]).max()
        assert np.abs(helped[name] - expected[name]).max() < 0.01 * without + 1e-6
        assert without > 1e-4 or (precision, name) == ("int4_weights", "depthwise")


def test_layers_that_are_called_twice_stay():
    inputs = keras.Input(SHAPE)
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    model = randomise(keras.Model(inputs, layers.Conv2D(2, 1, name="last")(shared(shared(inputs)))))
    corrected = correct_bias(model, feature_map(5, *SHAPE), "int4")
    for ours, old in zip(corrected.get_layer("shared").get_weights(), shared.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, old)
    assert np.abs(corrected.get_layer("last").bias - model.get_layer("last").bias).max() > 1e-4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, *SHAPE)), r"shape \(0, 7, 6, 3\); images of shape \(n, 7, 6, 3\) are needed"),
        (np.zeros(SHAPE), r"shape \(7, 6, 3\)"),
        (np.zeros((2, 7, 6, 1)), r"shape \(2, 7, 6, 1\)"),
        (np.full((2, *SHAPE), np.nan), "NaN or infinite"),
    ],
)
def test_images_that_do_not_fit(images, message):
    with pytest.raises(InvalidValueError, match=message):
        correct_bias(network(), images)


def test_models_and_options_that_it_cannot_take():
    first, second = keras.Input(SHAPE), keras.Input(SHAPE)
    two = keras.Model([first, second], layers.Conv2D(2, 1)(layers.Add()([first, second])))
    with pytest.raises(InvalidValueError, match="has 2 inputs; bias correction takes a model with one"):
        correct_bias(two, feature_map(2, *SHAPE))
    with pytest.raises(InvalidValueError, match="precision='int5' is not accepted; use one of 'int8_weights'"):
        correct_bias(network(), feature_map(2, *SHAPE), "int5")
    norm = keras.Model(first, layers.BatchNormalization(name="norm")(layers.Conv2D(2, 1)(first)))
    with pytest.raises(InvalidValueError, match="has batch normalisation"):
        correct_bias(norm, feature_map(2, *SHAPE))
