"""Multiply-adds of convolutions in two steps, of wrapped layers and of models inside models."""

import keras
from keras import layers

from kzoo.graph import count_macs
from kzoo.surgery.fake_quantization import insert_fake_quantization

SIZE = (9, 7, 3)


def model_of(*stack) -> keras.Model:
    return keras.Sequential([keras.Input(SIZE), *stack])


def test_a_separable_convolution_costs_both_of_its_steps():
    # 3×3 depthwise to 2 channels each on 5×4 pixels, then 6 kernels to 8
    model = model_of(layers.SeparableConv2D(8, 3, strides=2, padding="same", depth_multiplier=2))
    assert count_macs(model) == 5 * 4 * (3 * 3 * 3 * 2 + 6 * 8)


def test_channels_first_counts_the_same_pixels():
    inputs = keras.Input((3, 9, 7))
    model = keras.Model(inputs, layers.Conv2D(4, 3, data_format="channels_first")(inputs))
    assert count_macs(model) == 7 * 5 * (3 * 3 * 3) * 4


def test_a_fake_quantized_model_costs_what_the_plain_one_does():
    plain = model_of(
        layers.Conv2D(4, 3, activation="relu"),
        layers.DepthwiseConv2D(3),
        layers.Conv2DTranspose(2, 2, strides=2),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    )
    expected = 7 * 5 * 27 * 4 + 5 * 3 * 9 * 4 + 5 * 3 * 4 * 2 * 4 + 2 * 5
    assert count_macs(plain) == expected
    assert count_macs(insert_fake_quantization(plain)) == expected


def test_a_layer_for_each_row_and_models_in_models_cost_their_calls():
    rows = layers.TimeDistributed(layers.Conv1D(4, 3))  # 9 rows
    # Conv1D is no 2-D convolution; the dense layer of each of the 5 places left in each row is
    inner = keras.Sequential([keras.Input((9, 5, 4)), layers.TimeDistributed(layers.Dense(6))])
    assert count_macs(model_of(rows, inner)) == 9 * 5 * 4 * 6
