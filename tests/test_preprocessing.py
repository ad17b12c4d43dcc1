"""Questions about a model are answered by all of its graph: what it does to pixels, in which precision, named how."""

import json

import keras
import numpy as np
import pytest
from helpers import pixels
from keras import layers

import kzoo
from kzoo.errors import ExportError, InvalidValueError
from kzoo.flatten import all_layers
from kzoo.preprocessing import input_in_words, normalisation
from kzoo.surgery import fold_preprocessing

SIZE = (16, 16, 3)
TINY = dict(input_shape=SIZE, depths=(1, 1), widths=(4, 8))
RGB, BGR = (123.68, 116.779, 103.939), (103.939, 116.779, 123.68)
TORCH = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def tiny(**options) -> keras.Model:
    return kzoo.build("cifar_resnet20", **TINY | options)


def inside(model: keras.Model, *before) -> keras.Model:
    """The model in a Sequential one in a functional one, with layers before it."""
    image = keras.Input(SIZE)
    return keras.Model(image, keras.Sequential([keras.Input(SIZE), *before, model])(image))


def functional(compute) -> keras.Model:
    image = keras.Input(SIZE)
    return keras.Model(image, layers.Conv2D(2, 3)(compute(image)))


def caffe(x):
    return keras.applications.resnet50.preprocess_input(x)  # reverses the channels, then subtracts


def stacked(*parts):
    return lambda x: keras.ops.stack([part(x) for part in parts], axis=-1)


def by_hand(x):
    """Reversed as slices of one channel each."""
    return layers.Concatenate()([x[..., 2:], x[..., 1:2], x[..., :1]]) - np.array(BGR)


def two_ways(x):
    """Reversed, shifted, reversed back."""
    return (x[:, :, :, ::-1] - np.array(BGR))[..., ::-1] / np.array(TORCH[1])


def adapted() -> layers.Normalization:
    layer = layers.Normalization()
    layer.adapt(np.stack([np.full((2, 2, 3), value) for value in (0.0, 100.0, 200.0)]))
    return layer


MODELS = {  # mean and deviation, None for a model without
    "flat": (tiny, TORCH),
    "without": (lambda: tiny(include_preprocessing=False), None),
    "inside": (lambda: inside(tiny(), layers.RandomFlip()), TORCH),
    "inside, scaled before": (
        lambda: inside(tiny(), layers.Rescaling(255.0)),
        (np.array(TORCH[0]) / 255, np.array(TORCH[1]) / 255),
    ),
    "Rescaling": (lambda: functional(layers.Rescaling(1 / 127.5, -1)), (127.5, 127.5)),
    "Rescaling to a zoo model without": (
        lambda: inside(tiny(include_preprocessing=False), layers.Rescaling(1 / 255), layers.Rescaling(2, -1)),
        (127.5, 127.5),
    ),
    "Normalization": (lambda: functional(adapted()), (100, np.sqrt(20000 / 3))),
    "arithmetic": (
        lambda: functional(lambda x: (x / 255.0 - np.array([0.4, 0.5, 0.6])) * 4),
        ((102, 127.5, 153), 63.75),
    ),
    "caffe": (lambda: functional(caffe), (RGB, 1)),
    "caffe inside": (lambda: inside(functional(caffe), layers.RandomFlip()), (RGB, 1)),
    "caffe before a model inside": (
        lambda: functional(lambda x: tiny(include_preprocessing=False, include_top=False)(caffe(x))),
        (RGB, 1),
    ),
    "reversed": (lambda: functional(lambda x: x[..., ::-1] - np.array(BGR)), (RGB, 1)),
    "reversed, as slices": (lambda: functional(by_hand), (RGB, 1)),
    "reversed by flip": (lambda: functional(lambda x: keras.ops.flip(x, axis=-1) - np.array(BGR)), (RGB, 1)),
    "reversed by take": (lambda: functional(lambda x: keras.ops.take(x, [2, 1, 0], -1) - np.array(BGR)), (RGB, 1)),
    "reversed, as parts": (
        lambda: functional(lambda x: layers.Concatenate()(keras.ops.split(x, 3, -1)[::-1]) - np.array(BGR)),
        (RGB, 1),
    ),
    "reversed and back": (lambda: functional(two_ways), (RGB, TORCH[1])),
    "turned": (
        lambda: functional(lambda x: keras.ops.take(x * np.array([1.0, 2, 4]), [1, 2, 0], -1) - np.array([2.0, 4, 1])),
        (1, (1, 0.5, 0.25)),
    ),
    "one channel": (lambda: functional(lambda x: (x[..., 1] - 7.0)[..., None]), (7, 1)),
    "a channel of another map": (
        lambda: functional(lambda x: stacked(lambda x: x[..., 0], lambda x: keras.ops.exp(x)[..., 1])(x) - 1.0),
        None,
    ),
    "flipped sideways": (lambda: functional(lambda x: keras.ops.flip(x, axis=2) - np.array(RGB)), (RGB, 1)),
    "channels first inside": (
        lambda: functional(
            lambda x: layers.Permute((2, 3, 1))(layers.Permute((3, 1, 2))(x) - np.reshape(RGB, (3, 1, 1)))
        ),
        (RGB, 1),
    ),
    "an even mean image": (lambda: functional(lambda x: (x - np.full(SIZE, RGB)) / 2.0), (RGB, 2)),
    "subtracted from a constant": (lambda: functional(lambda x: 255.0 - x), (255, -1)),
    "behind weights": (lambda: functional(lambda x: layers.Rescaling(1 / 255)(layers.Conv2D(3, 1)(x))), None),
    "sum of two maps": (lambda: functional(lambda x: x + layers.AveragePooling2D(3, 1, "same")(x)), None),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_normalisation_is_found_wherever_it_stands(kind):
    make, expected = MODELS[kind]
    found = normalisation(make())
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(np.broadcast_to(found.mean, 3), np.broadcast_to(expected[0], 3), rtol=1e-5)
        np.testing.assert_allclose(np.broadcast_to(found.std, 3), np.broadcast_to(expected[1], 3), rtol=1e-5)


MEAN_IMAGE = np.random.default_rng(0).uniform(0, 255, SIZE)
NOT_ONE_NUMBER = {
    "mean image": lambda x: x - MEAN_IMAGE,
    "mean image and deviations": lambda x: (x - MEAN_IMAGE) / np.array([50.0, 60.0, 70.0]),
    "mean of each row": layers.Normalization(axis=1, mean=np.arange(16.0), variance=np.ones(16)),
    "a channel lost": lambda x: x * np.array([0.0, 1.0, 2.0]),
    "a channel read twice": lambda x: keras.ops.take(x, [0, 0, 1], -1) - np.array([100.0, 200.0, 300.0]),
    "channels of a map that was turned": lambda x: layers.Permute((3, 2, 1))(x)[..., 4:7] - np.array(RGB),
}


@pytest.mark.parametrize("kind", NOT_ONE_NUMBER)
def test_what_no_number_for_each_channel_tells_is_said_to_be_computed(kind):
    assert input_in_words(functional(NOT_ONE_NUMBER[kind])) == {
        "values": "as in training",
        "preprocessing": "computed by the file, with more than one number for each channel",
    }


def test_numbers_without_channels_and_looked_up_ones_are_no_error():
    image, table = keras.Input(SIZE), np.arange(256.0, dtype="float32")
    for output in (
        keras.ops.exp(keras.ops.mean(image)) * 2.0,
        keras.ops.take(table, keras.ops.cast(image, "int32"), axis=-1) / 100.0,
    ):
        assert normalisation(keras.Model(image, output)).mean == (0,)


def test_channels_that_are_not_read_have_no_mean():
    found = normalisation(functional(lambda x: x[..., 2:0:-1] - np.array([10.0, 20.0])))
    assert (found.mean, found.std) == ((20, 10), (1, 1))


def test_a_model_of_keras_applications_tells_its_preprocessing():
    model = keras.applications.MobileNetV3Small(input_shape=(32, 32, 3), weights=None, include_top=False)
    assert input_in_words(model) == {
        "values": "pixels of 0 to 255",
        "preprocessing": "(x - 127.5) / 127.5 is computed by the file",
    }


def test_folded_preprocessing_is_known_inside_too():
    folded = fold_preprocessing(kzoo.fold_batch_norm(tiny()))
    for model in (folded, inside(folded)):
        assert normalisation(model).folded
        assert input_in_words(model)["values"] == "pixels of 0 to 255"


@pytest.mark.parametrize(
    "make",
    [
        tiny,
        lambda: inside(tiny()),
        lambda: inside(tiny(), layers.RandomFlip()),
        lambda: keras.Model(image := keras.Input(SIZE), tiny(include_preprocessing=False)(caffe(image))),
    ],
)
def test_images_of_0_to_1_are_refused_by_a_model_that_eats_pixels_inside_too(make, tmp_path):
    model, images = make(), pixels(4, *SIZE)
    for options in (dict(calibration=images / 255), dict(calibration=images, evaluation=(images / 255, np.arange(4)))):
        with pytest.raises(InvalidValueError, match="pixels are 0 to 1; the model eats pixels of 0 to 255"):
            kzoo.export(model, tmp_path / "model.tflite", "int8", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_scales_images_of_0_to_1_up_itself_takes_them(tmp_path):
    images = pixels(4, *SIZE) / 255
    kzoo.export(inside(tiny(), layers.Rescaling(255.0)), tmp_path / "model.tflite", "float32", calibration=images)
    told = json.loads((tmp_path / "model.tflite.json").read_text())["input"]
    assert told["values"] == "as in training"
    assert told["preprocessing"] == "(x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225] is computed by the file"


def test_half_precision_inside_a_model_gives_the_error_of_the_flat_one(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    image = keras.Input(SIZE)
    deep = keras.Sequential([keras.Input(SIZE), inside(half)], name="deep")
    shared = keras.Model(image, layers.Average()([deep(image), deep(image)]), name="shared")
    for model in (half, deep, shared):
        with pytest.raises(ExportError, match=rf"layer 'stem_conv' of {model.name} computes in float16; build"):
            kzoo.export(model, tmp_path / "half.tflite")


def test_all_layers_looks_into_models_and_wrappers_and_gives_each_layer_once():
    dense = layers.Dense(2, name="dense")
    inner = keras.Sequential([keras.Input((4, 3)), layers.TimeDistributed(dense, name="each")], name="inner")
    first, second = keras.Input((4, 3), name="first"), keras.Input((4, 3), name="second")
    model = keras.Model([first, second], layers.Add(name="sum")([inner(first), inner(second)]))
    names = [layer.name for layer in all_layers(model) if not isinstance(layer, layers.InputLayer)]
    assert sorted(names) == ["dense", "each", "sum"]
