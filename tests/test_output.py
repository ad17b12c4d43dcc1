"""What an output means is read from the last operation of the whole graph."""

import keras
import pytest
from keras import layers, ops

from kzoo.output import Output

IMAGE = (8, 8, 3)


def dense(units, activation=None):
    return lambda x: layers.Dense(units, activation=activation)(layers.GlobalAveragePooling2D()(x))


def conv(units, activation=None):
    return lambda x: layers.Conv2D(units, 1, activation=activation)(x)


def model_of(head):
    image = keras.Input(IMAGE)
    return keras.Model(image, head(image))


def inside(head):
    """The head in a functional model in a Sequential one in a functional one, behind a random layer."""
    image = keras.Input(IMAGE)
    middle = keras.Sequential([keras.Input(IMAGE), layers.RandomFlip(), layers.Rescaling(1 / 255), model_of(head)])
    return keras.Model(image, layers.Dropout(0.5)(middle(image)))


def behind(head, *others):
    def build(x):
        x = head(x)
        for other in others:
            x = other(x)
        return x

    return build


HEADS = {
    "dense softmax": (dense(4, "softmax"), "softmax"),
    "softmax activation": (behind(dense(4), layers.Activation("softmax")), "softmax"),
    "softmax layer": (behind(dense(4), layers.Softmax()), "softmax"),
    "softmax layer, last axis by number": (behind(dense(4), layers.Softmax(axis=1)), "softmax"),
    "softmax as plain operation": (behind(dense(4), ops.softmax), "softmax"),
    "softmax as activation function": (behind(dense(4), keras.activations.softmax), "softmax"),
    "softmax layer as activation": (dense(4, layers.Softmax()), "softmax"),
    "sigmoid as plain operation": (behind(dense(4), ops.sigmoid), "sigmoid"),
    "sigmoid activation": (behind(dense(1), layers.Activation("sigmoid")), "sigmoid"),
    "logits": (dense(4), "logits"),
    "logits behind a linear activation": (behind(dense(4), layers.Activation("linear")), "logits"),
    "logits of a log-softmax": (behind(dense(4), lambda x: ops.log_softmax(x)), "logits"),
    "logits behind dropout": (behind(dense(4), layers.Dropout(0.5), layers.Identity()), "logits"),
    "softmax behind dropout": (behind(dense(4, "softmax"), layers.Dropout(0.5)), "softmax"),
    "reshape that keeps the classes": (
        behind(conv(4), layers.GlobalAveragePooling2D(keepdims=True), layers.Softmax(), layers.Reshape((4,))),
        "softmax",
    ),
    "flatten that keeps the classes": (
        behind(conv(4), layers.GlobalAveragePooling2D(keepdims=True), layers.Softmax(), layers.Flatten()),
        "softmax",
    ),
    "flatten that mixes a softmax": (behind(conv(4, "softmax"), layers.Flatten()), "unknown"),
    "flatten that mixes sigmoids": (behind(conv(4, "sigmoid"), layers.Flatten()), "sigmoid"),
    "softmax over another axis": (behind(conv(4), layers.Softmax(axis=1)), "unknown"),
    "softmax over two axes": (behind(conv(4), layers.Softmax(axis=(2, 3))), "unknown"),
    "softmax turned to another axis": (behind(conv(8, "softmax"), layers.Permute((3, 2, 1))), "unknown"),
    "one class of a softmax": (behind(dense(4, "softmax"), lambda x: x[:, 1:2]), "unknown"),
    "some sigmoids": (behind(dense(4, "sigmoid"), lambda x: x[:, 1:3]), "sigmoid"),
    "hard sigmoid": (dense(4, "hard_sigmoid"), "unknown"),
    "rectifier": (dense(4, "relu"), "unknown"),
    "a sum": (lambda x: dense(4)(x) + 1.0, "unknown"),
    "a function": (behind(dense(4), layers.Lambda(lambda x: x * 2)), "unknown"),
    "maps": (conv(3, "softmax"), "softmax"),
    "maps, enlarged and cropped": (
        behind(conv(3, "softmax"), layers.UpSampling2D(interpolation="bilinear"), layers.Cropping2D(1)),
        "softmax",
    ),
    "maps that overshoot": (behind(conv(3, "softmax"), layers.UpSampling2D(interpolation="bicubic")), "unknown"),
    "logits averaged over places": (behind(conv(4), layers.GlobalAveragePooling2D()), "logits"),
    "sigmoids side by side": (lambda x: layers.Concatenate()([dense(1, "sigmoid")(x) for _ in range(3)]), "sigmoid"),
    "different heads side by side": (lambda x: layers.Concatenate()([dense(1, "sigmoid")(x), dense(1)(x)]), "unknown"),
    "two softmaxes side by side": (lambda x: layers.Concatenate()([dense(2, "softmax")(x)] * 2), "unknown"),
    "average of an ensemble": (lambda x: layers.Average()([dense(4, "softmax")(x) for _ in range(2)]), "softmax"),
    "wrapper": (behind(conv(4), layers.TimeDistributed(layers.Conv1D(4, 1, activation="softmax"))), "softmax"),
    "model in a wrapper": (
        lambda x: layers.TimeDistributed(keras.Sequential([keras.Input((8, 3)), layers.Dense(4, "sigmoid")]))(x),
        "sigmoid",
    ),
}


@pytest.mark.parametrize("where", [model_of, inside])
@pytest.mark.parametrize("head", HEADS)
def test_the_last_operation_tells_what_the_values_are_wherever_it_stands(head, where):
    head, expected = HEADS[head]
    assert Output.of_model(where(head)).values == expected


def test_the_output_of_a_model_that_is_called_twice_is_that_of_the_call():
    inner = model_of(dense(4, "softmax"))
    first, second = keras.Input(IMAGE), keras.Input(IMAGE)
    average = keras.Model([first, second], layers.Average()([inner(first), inner(second)]))
    assert Output.of_model(average).values == "softmax"
