"""What an output means is read from the last operation of the whole graph."""

import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import slow_but
from keras import layers, ops

import kzoo
from kzoo.errors import InvalidValueError
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
    "a constant added": (lambda x: dense(4)(x) + 1.0, "logits"),
    "another temperature": (lambda x: 2.0 * dense(4)(x) / 3.0, "logits"),
    "scaled maps": (behind(conv(2), layers.Rescaling(0.01, -1)), "logits"),
    "another temperature, divided by an operation": (lambda x: ops.divide(dense(4)(x), 3.0), "logits"),
    "each class scaled and shifted": (
        lambda x: dense(4)(x) * np.array([0.5, 1, 2, 3]) - np.array([0, 1, 2, 3]),
        "logits",
    ),
    "one over logits": (lambda x: 1.0 / dense(4)(x), "unknown"),
    "one over logits, by an operation": (lambda x: ops.divide(1.0, dense(4)(x)), "unknown"),
    "a constant less logits": (lambda x: 1.0 - dense(4)(x), "unknown"),
    "logits with their sign turned": (lambda x: -2.0 * dense(4)(x), "unknown"),
    "one of the logits with its sign turned": (lambda x: dense(4)(x) * np.array([1, 1, -1, 1]), "unknown"),
    "logits with their sign turned by a layer": (behind(dense(4), layers.Rescaling(-1)), "unknown"),
    "logits times zero": (lambda x: dense(4)(x) * 0.0, "unknown"),
    "logits by infinity": (lambda x: dense(4)(x) / np.inf, "unknown"),
    "logits by zero": (lambda x: dense(4)(x) / 0.0, "unknown"),
    "a number without units": (lambda x: ops.mean(dense(4)(x)) * 2.0, "unknown"),
    "logits squared": (lambda x: dense(4)(x) ** 2, "unknown"),
    "a difference of heads": (lambda x: dense(4)(x) - dense(4)(x), "unknown"),
    "one logit made several": (lambda x: dense(1)(x) + np.arange(4), "unknown"),
    "logits as integers": (lambda x: ops.cast(dense(4)(x), "int32"), "unknown"),
    "decisions": (lambda x: ops.cast(dense(4, "sigmoid")(x) + 0.0 > 0.5, "float32"), "unknown"),
    "sigmoids in halves": (lambda x: ops.cast(dense(4, "sigmoid")(x), "float16"), "sigmoid"),
    "softmaxes averaged by hand": (lambda x: (dense(4, "softmax")(x) + dense(4, "softmax")(x)) / 2, "unknown"),
    "softmaxes of one class and of several": (
        lambda x: layers.Average()([dense(4, "softmax")(x), dense(1, "softmax")(x)]),
        "unknown",
    ),
    "normalised logits": (lambda x: layers.BatchNormalization()(dense(4)(x)), "logits"),
    "a sum of heads": (lambda x: layers.Add()([dense(4)(x), dense(4)(x)]), "logits"),
    "a product of heads": (lambda x: layers.Multiply()([dense(4)(x), dense(4)(x)]), "unknown"),
    "a scaled softmax": (lambda x: 0.5 * dense(4, "softmax")(x), "unknown"),
    "one minus a sigmoid": (lambda x: 1.0 - dense(1, "sigmoid")(x), "unknown"),
    "a rectified sum": (lambda x: layers.ReLU()(dense(4)(x)), "unknown"),
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


ALONE, INSIDE = ([(where, head) for head in HEADS] for where in (model_of, inside))


@pytest.mark.parametrize(("where", "head"), slow_but(ALONE + INSIDE[::4], ALONE + INSIDE))
def test_the_last_operation_tells_what_the_values_are_wherever_it_stands(head, where):
    head, expected = HEADS[head]
    assert Output.of_model(where(head)).values == expected


def test_the_output_of_a_model_that_is_called_twice_is_that_of_the_call():
    inner = model_of(dense(4, "softmax"))
    first, second = keras.Input(IMAGE), keras.Input(IMAGE)
    average = keras.Model([first, second], layers.Average()([inner(first), inner(second)]))
    assert Output.of_model(average).values == "softmax"


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("cifar_resnet20", "softmax"),
        ("cifar_resnet20", None),
        ("vgg11", None),
        ("swin_tiny", "softmax"),
        ("googlenet", None),
        ("unet_padded", "softmax"),
        ("fpn", None),
    ],
)
def test_models_of_the_zoo_tell_their_output(name, activation):
    entry = kzoo.registry.lookup(name)
    shape = (entry.narrow_size, entry.narrow_size, 3)
    model = kzoo.build(name, input_shape=shape, classifier_activation=activation, **entry.narrow)
    assert Output.of_model(model) == Output(entry.task, activation or "logits", entry.num_classes)


LOGITS = np.array([[1.0, 2.0, -1.0], [800.0, 0.0, -800.0]])
SIGMOIDS = np.array([[0.605, 0.535, 0.168, 0.753]])


@pytest.mark.parametrize(
    ("output", "outputs", "probabilities", "decided"),
    [
        (Output("classification", "logits", 3), LOGITS, [[0.2594965, 0.7053845, 0.035119], [1, 0, 0]], [1, 0]),
        (Output("classification", "softmax", 2), [[0.3, 0.7]], [[0.3, 0.7]], [1]),
        (Output("classification", "sigmoid", 4), SIGMOIDS, SIGMOIDS, [[1, 1, 0, 1]]),
        (Output("segmentation", "sigmoid", 4), SIGMOIDS, SIGMOIDS, [3]),  # a pixel has one class
        (Output("classification", "sigmoid", 1), [[0.2], [0.5]], [[0.8, 0.2], [0.5, 0.5]], [0, 1]),
        (
            Output("classification", "logits", 1),
            [[0.2], [-1e-3], [-900.0]],
            [[0.450166, 0.549834], [0.50025, 0.49975], [1, 0]],
            [1, 0, 0],
        ),
        (
            Output("segmentation", "logits", 1),
            [[[[2.0], [-2.0]]]],
            [[[[0.119203, 0.880797], [0.880797, 0.119203]]]],
            [[[1, 0]]],
        ),
    ],
)
def test_probabilities_and_decisions(output, outputs, probabilities, decided):
    np.testing.assert_allclose(output.probabilities(np.array(outputs)), probabilities, atol=1e-6)
    np.testing.assert_array_equal(output.decide(np.array(outputs)), decided)


def test_what_is_unknown_is_not_guessed():
    several, one = Output("classification", "unknown", 3), Output("classification", "unknown", 1)
    assert several.decide(LOGITS).tolist() == [1, 0]  # the largest, whatever it is
    assert (several.decides, one.decides) == (True, False)
    for call in (several.probabilities, one.probabilities, one.decide):
        with pytest.raises(
            InvalidValueError, match=r"does not tell whether .*; say --values softmax, sigmoid or logits"
        ):
            call(LOGITS)
    assert one.said("logits", "model.keras").decide(np.array([[0.1], [-0.1]])).tolist() == [1, 0]
    with pytest.raises(InvalidValueError, match="values='unknown' is not accepted; use one of 'softmax', 'sigmoid', "):
        one.said("unknown", "model.keras")


@pytest.mark.parametrize(
    ("ops", "shape", "expected"),
    [
        (["CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"], (1, 4), ("classification", "softmax", 4)),
        (["FULLY_CONNECTED", "LOGISTIC"], (1, 1), ("classification", "sigmoid", 1)),
        (["CONV_2D"], (1, 8, 8, 3), ("segmentation", "logits", 3)),
        (["FULLY_CONNECTED", "MUL"], (1, 4), ("classification", "unknown", 4)),
        ([""], (1, 8, 4), ("unknown", "unknown", 4)),
        (["LOGISTIC"], (5,), ("unknown", "unknown", 1)),
    ],
)
def test_a_file_tells_by_its_last_op(ops, shape, expected):
    detail = {"shape": np.array(shape)}
    file = SimpleNamespace(output=detail, outputs={"answer": detail}, last_op=lambda: ops[-1])
    assert Output.of_file(file) == Output(*expected)


def test_an_output_comes_back_from_json():
    for output in (Output("segmentation", "logits", 1, ("a", "b")), Output("unknown", "unknown", 5)):
        told = output.to_json()
        assert Output.from_json(told | {"shape": [1, 5], "meaning": "more"}) == output


GOOD = Output("classification", "sigmoid", 2, ("a", "b")).to_json()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "an output must be a JSON object, not NoneType"),
        ([GOOD], "not list"),
        ({}, "the output lacks task, values, units, class_names"),
        (GOOD | {"task": "captioning"}, "task='captioning' is not accepted"),
        (GOOD | {"task": ["classification"]}, "is not accepted"),
        (
            GOOD | {"values": "probabilities"},
            "values='probabilities' is not accepted; use one of 'softmax', 'sigmoid'",
        ),
        (GOOD | {"values": None}, "values=None is not accepted"),
        *(
            (GOOD | {"units": units}, "must be an integer from 1 to")
            for units in (0, -1, True, 2.0, "2", None, 10**9, [2])
        ),
        *(
            (GOOD | {"class_names": names}, "a list of texts")
            for names in ("ab", {"a": 1, "b": 2}, [1, 2], 5, [["a"], "b"])
        ),
        (GOOD | {"class_names": ["a"]}, "class_names has 1 names for 2 classes"),
        (GOOD | {"class_names": ["a", "b\ud800"]}, r"class_names has 'b\\ud800', half a character"),
        (GOOD | {"class_names": ["a", "b" * 10**6]}, "a name of more than 1000 characters"),
    ],
)
def test_an_output_that_cannot_be_is_one_line(value, message):
    with pytest.raises(InvalidValueError, match=message) as caught:
        Output.from_json(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


FORMER_GUESSES = {
    "sums of outputs": r"\.sum\(axis=-1\) - 1|are_probabilities",
    "the outermost layer": r"gives_logits|gives_probabilities|output_names\[",
    "the rank of the output": r"len\((outputs?|.*output_shape|.*output\[.shape.\])\) [!=]= [24]",
    "the width of the output": r"max\(2, .*(shape|outputs?)|output_shape\[-1\]",
    "the name of a layer": r"\"preprocessing\" in",
}


@pytest.mark.parametrize("guess", FORMER_GUESSES)
def test_nobody_else_guesses_what_an_output_means(guess):
    """By value objects alone: `kzoo/output.py` for the output, `kzoo/preprocessing.py` for the input."""
    root = Path(kzoo.__file__).parent
    files = [path for path in root.rglob("*.py") if path.name not in ("output.py", "last_operation.py")]
    assert len(files) > 100
    found = [path.name for path in files if re.search(FORMER_GUESSES[guess], path.read_text(encoding="utf-8"))]
    assert found == []
