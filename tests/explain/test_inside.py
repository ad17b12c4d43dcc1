"""What layers give, at any depth, and which of them do not take part."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise

import kzoo
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.explain import draw_feature_maps, draw_kernels, layer_statistics

IMAGES = pixels(3, 9, 7, 3)


def body() -> keras.Model:
    inputs = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(6, 3, strides=2, name="first")(keras.layers.Rescaling(1 / 64, -2)(inputs))
    x = keras.layers.ReLU(name="rectified")(keras.layers.BatchNormalization(name="norm")(x))
    return keras.Model(inputs, keras.layers.Conv2D(5, 2, activation="relu", name="last")(x), name="body")


def nested() -> keras.Model:
    image = keras.Input((9, 7, 3))
    x = keras.Sequential([body()], name="outer")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(8, activation="sigmoid", name="gate")(x)
    return randomise(keras.Model(image, keras.layers.Dense(4, activation="softmax", name="top")(x)))


@pytest.fixture(scope="module")
def net() -> keras.Model:
    return nested()


def test_activations_at_any_depth(net):
    """Of more images than one batch, in the order asked, as the models inside give them."""
    images = np.concatenate([IMAGES] * 12)
    found = kzoo.activations(net, images, ["pool", "outer/body/norm", "last"])
    assert list(found) == ["pool", "outer/body/norm", "last"]
    inner = net.get_layer("outer").get_layer("body")
    for name, layer in (("outer/body/norm", "norm"), ("last", "last")):
        expected = keras.Model(inner.input, inner.get_layer(layer).output)(images.astype("float32"))
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["pool"], found["last"].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(kzoo.activations(net, images, "pool")["pool"], found["pool"])


def test_dead_saturated_and_gradients_by_loops(net):
    found = layer_statistics(net, IMAGES, [1, 2, 0])
    expected = {"outer/body/first", "outer/body/rectified", "outer/body/last", "gate", "top"}
    assert set(found) == expected
    given = kzoo.activations(net, IMAGES, list(expected))
    for layer in ("outer/body/rectified", "outer/body/last"):
        channels = np.moveaxis(given[layer], -1, 0)
        assert found[layer].dead == np.mean([not channel.any() for channel in channels])
    gates = given["gate"].ravel()
    assert found["gate"].saturated == pytest.approx(np.mean([gate < 0.01 or gate > 0.99 for gate in gates]))
    assert found["outer/body/first"].dead is None
    assert found["top"].saturated is None  # a softmax is an answer
    kernel = net.get_layer("top").get_weights()[0]
    norms = [np.linalg.norm(kernel[:, index]) for index in (1, 2, 0)]
    assert found["gate"].gradient_norm == pytest.approx(np.mean(norms), rel=1e-4)
    slopes = net.get_layer("gate").get_weights()[0]
    places = given["outer/body/last"].shape[1] * given["outer/body/last"].shape[2]
    norms = [
        np.linalg.norm(slopes @ (kernel[:, index] * gate * (1 - gate))) / np.sqrt(places)
        for index, gate in zip((1, 2, 0), given["gate"], strict=True)
    ]
    assert found["outer/body/last"].gradient_norm == pytest.approx(np.mean(norms), rel=1e-3)


def test_layers_that_stand_out_are_named():
    model = nested()
    assert not layer_statistics(model, IMAGES)["outer/body/last"].stands_out
    last = model.get_layer("outer").get_layer("body").get_layer("last")
    kernel, bias = last.get_weights()
    last.set_weights([kernel, np.where(np.arange(5) < 4, -1e6, bias)])
    gate = model.get_layer("gate")
    gate.set_weights([weight * 0 + 9 for weight in gate.get_weights()])
    found = layer_statistics(model, IMAGES)
    assert "80% of its channels are zero in all images" in found["outer/body/last"].stands_out
    assert "100% of its values are at an end" in found["gate"].stands_out


@pytest.mark.parametrize(("activation", "vanishes"), [("sigmoid", True), ("relu", False)])
def test_gradients_vanish_in_deep_networks_of_sigmoids(activation, vanishes):
    layers = [keras.layers.Dense(20, activation=activation, name=f"dense{i}") for i in range(9)]
    keras.utils.set_random_seed(0)
    image = [keras.Input((9, 7, 3)), keras.layers.Rescaling(1 / 128, -1), keras.layers.Flatten()]
    found = layer_statistics(keras.Sequential([*image, *layers, keras.layers.Dense(4)]), IMAGES)
    assert ("vanishes" in found["dense0"].stands_out) == vanishes


def test_a_gradient_that_explodes_and_one_that_is_none():
    def network(weight):
        layers = [keras.layers.Dense(5, name=f"dense{i}") for i in range(4)]
        model = randomise(keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten(), *layers]))
        kernel, bias = layers[1].get_weights()
        layers[1].set_weights([kernel * weight, bias])
        return layer_statistics(model, IMAGES, 1)

    assert "far above" in network(1e6)["dense0"].stands_out
    assert network(0)["dense0"].gradient_norm == 0
    assert "vanishes" in network(0)["dense0"].stands_out


def test_feature_maps_are_tiles(net):
    maps = np.zeros((2, 3, 5), "float32")
    maps[..., 0], maps[1, 2, 1], maps[..., 3] = [[0, 1, 2], [3, 4, 8]], 5, 0.25
    sheet = np.asarray(draw_feature_maps(maps, columns=3))
    times = 24  # a tile is 48 pixels at least
    assert sheet.shape == (2 * (2 * times + 2) + 2, 3 * (3 * times + 2) + 2, 3)
    for index in range(5):
        row, column = divmod(index, 3)
        for y, x in np.ndindex(2, 3):
            top, left = 2 + row * (2 * times + 2) + y * times, 2 + column * (3 * times + 2) + x * times
            expected = round(255 * maps[y, x, index] / max(maps[..., index].max(), 1e-9))
            assert np.all(sheet[top : top + times, left : left + times] == expected)
    assert np.all(sheet[-10, -10] == 255)
    signed = np.asarray(draw_feature_maps(maps - [0, 5, 0, 0, 0]))
    assert list(signed[10, 10 + np.arange(5) * (3 * times + 2), 0]) == [128, 0, 128, 255, 128]


def test_kernels_are_tiles(net):
    sheet = np.asarray(draw_kernels(net, columns=4))
    kernel = net.get_layer("outer").get_layer("body").get_layer("first").get_weights()[0]
    assert sheet.shape == (2 * 50 + 2, 4 * 50 + 2, 3)
    for index in range(6):
        row, column = divmod(index, 4)
        for y, x in np.ndindex(3, 3):
            expected = np.rint(127.5 + 127.5 * kernel[y, x, :, index] / np.abs(kernel).max())
            np.testing.assert_array_equal(sheet[10 + row * 50 + y * 16, 10 + column * 50 + x * 16], expected)


def test_mistakes_inside(net):
    for layers in (None, 3):
        with pytest.raises(InvalidValueError, match="must be the name of a layer, or several names"):
            kzoo.activations(net, IMAGES, layers)
    with pytest.raises(UnknownNameError, match="no layer 'p9'"):
        kzoo.activations(net, IMAGES, ["pool", "p9"])
    with pytest.raises(InvalidValueError, match="images have shape"):
        kzoo.activations(net, IMAGES[:, :4], "pool")
    for layers in ([], [3]):
        with pytest.raises(InvalidValueError, match="layers="):
            kzoo.activations(net, IMAGES, layers)
    with pytest.raises(InvalidValueError, match="of one image"):
        draw_feature_maps(IMAGES)
    with pytest.raises(InvalidValueError, match="columns=0"):
        draw_feature_maps(IMAGES[0], columns=0)
    with pytest.raises(InvalidValueError, match="reads 6 channels"):
        draw_kernels(net, "last")
    with pytest.raises(InvalidValueError, match="pool is no 2D convolution"):
        draw_kernels(net, "pool")
    plain = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten(), keras.layers.Dense(2)], name="plain")
    with pytest.raises(InvalidValueError, match="plain has no 2D convolution"):
        draw_kernels(plain)
