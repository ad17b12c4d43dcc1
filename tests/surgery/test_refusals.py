"""Every batch normalisation that stays, by name with its reason, in a model whose outputs stay too."""

import logging

import keras
import pytest
from helpers import feature_map, randomise, relative_error
from keras import layers

import kzoo
from kzoo.surgery import plan_folding

SHAPE = (7, 5, 6)


def conv(name="linear", **options):
    return layers.Conv2D(6, 3, padding="same", name=name, **options)


def after_activation(x):
    return layers.BatchNormalization(name="norm")(conv(activation="relu")(x))


def after_pooling(x):
    return layers.BatchNormalization(name="norm")(layers.MaxPooling2D(name="pool")(conv()(x)))


def at_the_input(x):
    return conv()(layers.BatchNormalization(name="norm")(x))


def over_rows(x):
    return layers.BatchNormalization(axis=1, name="norm")(conv()(x))


def used_elsewhere(x):
    y = conv()(x)
    return layers.Add(name="sum")([layers.BatchNormalization(name="norm")(y), y])


def an_output_too(x):
    y = conv()(x)
    return [layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(y)), y]


def shared_norm(x):
    norm = layers.BatchNormalization(name="norm")
    return norm(conv("linear")(norm(conv("first")(x))))


def shared_by_others(x):
    linear, norm = conv(), layers.BatchNormalization(name="norm")
    first = norm(linear(x))
    return layers.Add(name="sum")([first, norm(conv("other")(linear(x)))])


def behind_a_model(x):
    inner_input = keras.Input(SHAPE)
    inner = keras.Model(inner_input, conv()(inner_input), name="inner")
    return layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(inner(x)))


def in_training_mode(x):
    return layers.BatchNormalization(name="norm")(conv()(x), training=True)


def behind_dropout_in_training_mode(x):
    x = layers.Dropout(0.0, name="dropout")(conv()(x), training=True)
    return layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))


def behind_a_tap(x):
    return layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(layers.Identity(name="p1")(conv()(x))))


def before_a_tap(x):
    x = layers.BatchNormalization(name="norm")(layers.ReLU(name="relu")(x))
    return conv()(layers.Identity(name="p1")(x))


def behind_padding(x):
    x = layers.ZeroPadding2D(1, name="pad")(conv()(x))
    return layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))


def in_other_precision(x):
    x = layers.BatchNormalization(name="norm", dtype="float64")(conv()(x))
    return layers.ReLU(name="relu")(x)


class MyNorm(layers.BatchNormalization):
    """May compute something else."""


def subclassed(x):
    return MyNorm(name="norm")(conv()(x))


class Holder(layers.Layer):
    """Has a normalisation that the graph does not show."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.BatchNormalization()

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def held_by_a_layer(x):
    return Holder(name="norm")(conv()(x))


NOT_LINEAR = "not a convolution or dense layer"
RELU_BEHIND = f"relu behind it is of type ReLU, {NOT_LINEAR}"
OUTPUT = "the output of norm is one of the model's too"
REFUSALS = [
    (after_activation, f"linear before it has an activation, which is not linear; {OUTPUT}"),
    (after_pooling, f"pool before it is of type MaxPooling2D, {NOT_LINEAR}; {OUTPUT}"),
    (
        at_the_input,
        f"image before it is an input, {NOT_LINEAR}; "
        "linear behind it reads padded zeros, and one more channel to make them exact pays up to 4",
    ),
    (over_rows, "it normalises axis 1, not the channels"),
    (
        used_elsewhere,
        "the output of linear is used elsewhere too; sum behind it is of type Add, which reads several tensors",
    ),
    (an_output_too, f"the output of linear is one of the model's too; {RELU_BEHIND}"),
    (shared_norm, f"it is called 2 times and first before it 1 times; {OUTPUT}"),
    (shared_by_others, "it is shared by 2 calls, and not all follow linear; sum behind it reads other layers too"),
    (behind_a_model, f"inner before it is a model, and nothing folds across its border, {NOT_LINEAR}; {RELU_BEHIND}"),
    (in_training_mode, "it is called in training mode"),
    (behind_dropout_in_training_mode, f"dropout before it is of type Dropout, {NOT_LINEAR}; {RELU_BEHIND}"),
    (behind_a_tap, f"p1 is a tap, whose value would change; {RELU_BEHIND}"),
    (before_a_tap, f"relu before it is of type ReLU, {NOT_LINEAR}; p1 is a tap, whose value would change"),
    (behind_padding, f"pad before it pads zeros, which it shifts; {RELU_BEHIND}"),
    (in_other_precision, f"it computes in float64 and linear in float32; {RELU_BEHIND}"),
    (subclassed, "it is a MyNorm, which may compute something else"),
    (held_by_a_layer, "it is of type Holder, which holds batch normalisation that only itself could fold"),
]


@pytest.mark.parametrize(("graph", "reason"), REFUSALS, ids=[graph.__name__ for graph, _ in REFUSALS])
def test_refusals(graph, reason, caplog):
    inputs = keras.Input(SHAPE, name="image")
    model = randomise(keras.Model(inputs, graph(inputs)))
    plan = plan_folding(model)
    assert (plan.folds, plan.kept) == ({}, {"norm": reason})
    with caplog.at_level(logging.WARNING, "kzoo"):
        folded = kzoo.fold_batch_norm(model)
    assert f"norm stays: {reason}" in caplog.text
    assert str(plan) == f"norm stays: {reason}"
    assert len(folded.weights) == len(model.weights)
    x = feature_map(2, *SHAPE)
    for actual, expected in zip(*(keras.tree.flatten(m(x, training=False)) for m in (folded, model)), strict=True):
        assert relative_error(actual, expected) < 1e-5


def test_refusals_of_linear_layers():
    """Layers whose kernel is not what it computes with, or that run nowhere on a CPU."""
    inputs = keras.Input(SHAPE)
    quantized, adapted = layers.Dense(4, name="linear"), layers.Dense(4, name="linear")
    first = layers.Conv2D(6, 3, data_format="channels_first", name="linear")
    reasons = []
    for linear in (quantized, adapted, first):
        model = keras.Model(inputs, layers.BatchNormalization(name="norm")(linear(inputs)))
        if linear is quantized:
            linear.quantize("int8")
        elif linear is adapted:
            linear.enable_lora(2)
        reasons.append(plan_folding(model).kept["norm"])
    output = "the output of norm is one of the model's too"
    assert reasons == [
        f"linear is quantized to int8; {output}",
        f"linear has LoRA weights that are not merged; {output}",
        f"linear is channels first; {output}",
    ]
