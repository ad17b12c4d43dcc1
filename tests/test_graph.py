"""Multiply-adds of convolutions in two steps, of wrapped layers and of models inside models."""

import itertools

import keras
import pytest
from keras import layers

from kzoo.errors import InvalidValueError
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


EINSUMS = {  # indices of the sizes 4, 5, 6 of the input and 2, 3 of the output alone
    "dense": ("abcd,de->abce", (4, 5, 2), "bcde"),
    "heads": ("abcd,def->abcef", (4, 5, 2, 3), "bcdef"),
    "two axes summed": ("abcd,cde->abe", (4, 2), "bcde"),
    "an axis kept and in the kernel": ("abcd,ce->abecd", (4, 2, 5, 6), "bcde"),
    "each place its own": ("abcd,bde->abce", (4, 5, 2), "bcde"),
    "ellipsis in front": ("...d,de->...e", (2,), "bcde"),
    "ellipsis behind": ("ab...,be->ae...", (2,), "bcde"),
}


@pytest.mark.parametrize("kind", EINSUMS)
def test_an_einsum_costs_one_for_each_choice_of_its_indices(kind):
    equation, shape, indices = EINSUMS[kind]
    inputs, sizes = keras.Input((4, 5, 6)), dict(b=4, c=5, d=6, e=2, f=3)
    model = keras.Model(inputs, layers.EinsumDense(equation, shape)(inputs))
    assert count_macs(model) == sum(1 for _ in itertools.product(*(range(sizes[index]) for index in indices)))


def test_a_layer_for_each_row_may_be_an_einsum():
    inputs = keras.Input((4, 5, 6))
    model = keras.Model(inputs, layers.TimeDistributed(layers.EinsumDense("abc,cd->abd", (5, 2)))(inputs))
    assert count_macs(model) == 4 * 5 * 6 * 2


def scores(places, seen, heads, key_dim, value_dim) -> int:
    """Of both products of attention, by loops: each head of each place meets what it sees."""
    return sum(key_dim + value_dim for _ in range(places) for _ in range(seen) for _ in range(heads))


QUERY, VALUE, KEY = (5, 8), (7, 6), (7, 9)
ATTENTIONS = {
    "two tensors": (
        lambda q, v, k: layers.MultiHeadAttention(2, 3)(q, v),
        5 * 8 * 6 + 7 * 6 * 6 + 7 * 6 * 6 + scores(5, 7, 2, 3, 3) + 5 * 6 * 8,
    ),
    "three by name, with a gate": (
        lambda q, v, k: layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=10, use_gate=True)(
            key=k, value=v, query=q
        ),
        5 * 8 * 6 + 5 * 8 * 8 + 7 * 9 * 6 + 7 * 6 * 8 + scores(5, 7, 2, 3, 4) + 5 * 8 * 10,
    ),
    "a tensor with itself": (
        lambda q, v, k: layers.MultiHeadAttention(2, 3)(v, v),
        3 * 7 * 6 * 6 + scores(7, 7, 2, 3, 3) + 7 * 6 * 6,
    ),
    "heads that share keys": (
        lambda q, v, k: layers.GroupQueryAttention(3, 4, 2)(v, layers.Dense(6)(q), k[:, :5]),
        5 * 8 * 6 + 7 * 6 * 12 + 5 * 9 * 6 + 5 * 6 * 6 + scores(7, 5, 4, 3, 3) + 7 * 12 * 6,
    ),
    "along one axis of a map": (
        lambda q, v, k: layers.MultiHeadAttention(2, 3, attention_axes=(2,))(*[layers.Reshape((5, 4, 2))(q)] * 2),
        3 * 20 * 2 * 6 + 5 * scores(4, 4, 2, 3, 3) + 20 * 6 * 2,
    ),
    "in a model inside": (
        lambda q, v, k: keras.Model(x := keras.Input(QUERY), layers.MultiHeadAttention(2, 3)(x, x))(q),
        3 * 5 * 8 * 6 + scores(5, 5, 2, 3, 3) + 5 * 6 * 8,
    ),
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_costs_its_projections_and_its_two_products(kind):
    build, expected = ATTENTIONS[kind]
    inputs = [keras.Input(shape) for shape in (QUERY, VALUE, KEY)]
    assert count_macs(keras.Model(inputs, build(*inputs))) == expected


@pytest.mark.parametrize("layer", [layers.EinsumDense("abc,cd->abd", (None, 2)), layers.MultiHeadAttention(2, 3)])
def test_a_sequence_of_unknown_length_cannot_be_counted(layer):
    inputs = keras.Input((None, 4))
    arguments = [inputs] * (2 if isinstance(layer, layers.MultiHeadAttention) else 1)
    with pytest.raises(InvalidValueError, match=f"{layer.name} reads maps of unknown size"):
        count_macs(keras.Model(inputs, layer(*arguments)))
