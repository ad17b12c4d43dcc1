"""Inception v3: sizes, equality with keras.applications, maps without padding, averages, the auxiliary head."""

import re

import keras
import numpy as np
import pytest
from goldens.seeded import seeded_pictures
from helpers import feature_map, one_of_each_kind, pixels, randomise, relative_error

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.models.inception import loss_weights, without_auxiliary
from kzoo.models.inception_v3 import InceptionV3Config, pool_branch
from kzoo.registry import lookup
from kzoo.taps import tap_names
from kzoo.zoo import count_parameters

SMALL = dict(modules=("5b", "6a", "6b", "7a", "7b"), width=0.125, num_classes=5)


def small(name="inception_v3", **options):
    return randomise(kzoo.build(name, **{"input_shape": (80, 95, 3)} | SMALL | options))


@pytest.mark.usefixtures("without_values")
def test_size_and_cost():
    info = kzoo.describe("inception_v3")
    assert info.trainable_parameters == 23_834_568
    assert round(info.macs / 1e9, 3) == 5.713
    assert info.taps == {
        "p1": (147, 147, 64),
        "p2": (71, 71, 192),
        "p3": (35, 35, 288),
        "p4": (17, 17, 768),
        "p5": (8, 8, 2048),
    }
    assert count_parameters(kzoo.build("inception_v3", auxiliary=True)) == 27_161_264
    assert kzoo.build("inception_v3_keras").count_params() == 23_851_784


def test_logits_equal_keras_applications():
    options = dict(input_shape=(139, 107, 3), classifier_activation=None)
    theirs = randomise(keras.applications.InceptionV3(weights=None, **options))
    for layer in theirs.layers:  # He's scale: with less the logits hardly depend on the image
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(layer.kernel * 2**0.5)
    model = kzoo.build("inception_v3_keras", **options)
    layers = [[layer for layer in each.layers if layer.weights] for each in (model, theirs)]
    for mine, other in zip(*layers, strict=True):  # the same graph gives the same order
        assert type(mine) is type(other)
        mine.set_weights(other.get_weights())
        if isinstance(mine, keras.layers.BatchNormalization):
            assert mine.epsilon == other.epsilon
    images = seeded_pictures(139, 107)
    preprocessed = keras.applications.inception_v3.preprocess_input(images.astype("float32"))
    expected = np.array(theirs(preprocessed))
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max()
    error = relative_error(model(images), expected)
    print(f"inception_v3_keras: {error:.2g}")
    assert error < 1e-5


NAME = re.compile(
    r"image|preprocessing|p\d|head_(pool|dropout|dense|activation)|stem_((conv|bn|relu)\d|pool\d)"
    r"|mixed[567][a-e]_(branch(1x1|3x3|3x3dbl|5x5|7x7|7x7dbl|7x7x3|_pool)_(conv|bn|relu)(\d[ab]?)?"
    r"|branch_pool(_pad)?|(branch3x3(dbl)?_)?concat|attention)"
    r"|auxiliary1_(pool|(conv|bn|relu)\d|global_pool|head_dense|head_activation)"
)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", one_of_each_kind(kzoo.list_models("inception_v3*")))
def test_every_layer_has_a_name_of_the_contract(name):
    model = kzoo.build(name, auxiliary=True, dropout=0.5, width=0.125)
    assert [layer.name for layer in model.layers if not NAME.fullmatch(layer.name)] == []
    attention = [layer.name for layer in model.layers if layer.name.endswith("_attention")]
    assert len(attention) == (11 if name.endswith(("_se", "_cbam")) else 0)


def average(x, count_padding: bool):
    """3×3 averages around every pixel, of nine values or of those inside the map."""
    y = np.zeros_like(x)
    _, height, width, _ = x.shape
    for i in range(height):
        for j in range(width):
            window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            y[:, i, j] = window.sum(axis=(1, 2)) / (9 if count_padding else window.shape[1] * window.shape[2])
    return y


@pytest.mark.parametrize("count_padding", [True, False])
def test_averages_count_the_padding_as_torch_does_or_not(count_padding):
    inputs = keras.Input((5, 7, 4))
    config = InceptionV3Config(count_padding=count_padding)
    model = randomise(keras.Model(inputs, pool_branch(inputs, 3, config, "mixed")))
    x = feature_map(2, 5, 7, 4)
    pooled = keras.Model(inputs, model.get_layer("mixed_branch_pool").output)(x)
    assert relative_error(pooled, average(x, count_padding)) < 1e-6
    gamma, beta, mean, variance = model.get_layer("mixed_branch_pool_bn").get_weights()
    projected = average(x, count_padding) @ np.array(model.get_layer("mixed_branch_pool_conv").kernel)[0, 0]
    expected = np.maximum((projected - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    assert relative_error(model(x), expected) < 1e-5


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((75, 75), [(35, 35), (15, 15), (7, 7), (3, 3), (1, 1)]),
        ((128, 97), [(61, 46), (28, 20), (13, 9), (6, 4), (2, 1)]),
        ((None, None), [(None, None)] * 5),
    ],
)
@pytest.mark.usefixtures("without_values")
def test_taps_are_what_is_left_without_padding(size, sides):
    model = kzoo.build("inception_v3", input_shape=(*size, 3), **SMALL)
    assert [model.get_layer(tap).output.shape[1:3] for tap in tap_names(model)] == sides


def test_unknown_sizes():
    images = pixels(2, 80, 95, 3)
    assert relative_error(small(input_shape=(None, None, 3))(images), small()(images)) < 1e-6


@pytest.mark.slow
def test_the_auxiliary_head_trains_and_vanishes(tmp_path):
    options = dict(auxiliary=True, input_shape=(299, 299, 3), classifier_activation=None)
    images, labels = pixels(2, 299, 299, 3), np.arange(2)
    model = small(**options)
    weights = loss_weights(model)
    assert weights == {"head": 1.0, "auxiliary1": 0.3}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    outputs = model(images, training=True)
    expected = sum(weight * float(loss(labels, outputs[output])) for output, weight in weights.items())
    model = small(**options)
    model.compile("sgd", dict.fromkeys(weights, loss), loss_weights=weights, jit_compile=True)
    history = model.fit(images, dict.fromkeys(weights, labels), verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)

    head = np.array(model(images)["head"])
    np.testing.assert_array_equal(without_auxiliary(model)(images), head)
    report = kzoo.export(kzoo.fold_batch_norm(model), tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.ops["CONV_2D"] == len([layer for layer in small().layers if "_conv" in layer.name])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(bn_scale=1), "bn_scale=1 must be True or False"),
        (dict(count_padding=None), "count_padding=None"),
        (dict(auxiliary="yes"), "auxiliary='yes'"),
        (dict(dropout=True), "dropout=True must be a number"),
        (dict(width=-1), "width=-1"),
        (dict(width=float("inf")), "width=inf"),
        (dict(modules=("5b", "6b", "7b")), "and with 6a and 7a"),
        (dict(modules="5b"), "modules='5b'"),
        (dict(attention="stand_alone"), "a 'spatial' slot, which inception networks do not have"),
        (dict(input_shape=(74, 299, 3)), "inception_v3 needs at least 75×75 pixels"),
        (dict(input_shape=(298, 299, 3), auxiliary=True), "inception_v3 needs at least 299×299 pixels"),
        (dict(input_shape=(299, None, 3), auxiliary=True), "needs images of known height and width"),
    ],
)
def test_bad_options(overrides, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.build("inception_v3", **overrides)


def test_smallest_input_is_keras_applications():
    assert lookup("inception_v3").config.smallest_input == 75
    with pytest.raises(ValueError, match="at least 75x75"):
        keras.applications.InceptionV3(weights=None, input_shape=(74, 74, 3), include_top=False)
