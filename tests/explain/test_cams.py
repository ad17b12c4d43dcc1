"""Maps with gradients: by finite differences, by identities, and whatever a model is put together of."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import feature_map, in_float64, kinds, pixels, randomise, slow_but

import kzoo
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.explain import (
    Difference,
    Region,
    eigen_cam,
    explained_layer,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
)
from kzoo.explain.cams import as_tensor, behind, features, logits_of
from kzoo.explain.replay import Replay
from kzoo.explain.targets import score_of
from kzoo.registry import DETECTION, lookup
from kzoo.surgery import with_heatmap

IMAGES = pixels(3, 16, 13, 3)
METHODS = (grad_cam, hires_cam, layer_cam, grad_cam_plus_plus)


def body(inputs, name=""):
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name=f"{name}first")(inputs)
    x = keras.layers.BatchNormalization(name=f"{name}norm")(x)
    return keras.layers.Conv2D(5, 3, strides=2, activation="gelu", name=f"{name}last")(x)


def flat(activation="softmax", units=4) -> keras.Model:
    inputs = keras.Input((16, 13, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(body(x))
    return randomise(keras.Model(inputs, keras.layers.Dense(units, activation=activation, name="dense")(x)))


@pytest.fixture(scope="module")
def net() -> keras.Model:
    return flat()


KINDS = kinds(name for name in kzoo.list_models() if lookup(name).task != DETECTION)  # see test_explained_boxes


@pytest.mark.parametrize("name", slow_but(["cifar_resnet20", "fpn"], ["cifar_resnet20", *KINDS]))
def test_gradients_are_those_of_finite_differences(name):
    """Along random directions, in float64, in the map that is explained by default."""
    entry = lookup(name)
    size = (entry.narrow_size, entry.narrow_size, 3)
    model = in_float64(randomise(kzoo.build(name, input_shape=size, **entry.narrow)))
    replay, images = Replay(model), as_tensor(model, pixels(2, *size))
    place = replay.place(explained_layer(model))
    (maps,) = replay.run(images, [place])
    score = behind(replay, images, place, score_of(1, logits_of(replay, images), name))
    found = features(model, pixels(2, *size), 1, None)
    rng, step = np.random.default_rng(1), 1e-5
    for _ in range(3):
        direction = rng.standard_normal(maps.shape)
        slope = (np.array(score(maps + step * direction)) - np.array(score(maps - step * direction))) / (2 * step)
        expected = (found.gradients * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(expected, slope, rtol=1e-4, atol=1e-4 * np.abs(slope).max() + 1e-9)


def test_maps_by_their_equations(net):
    """From a loop over places and channels; the gradient of a dense layer behind a mean is known."""
    maps = np.array(keras.Model(net.input, net.get_layer("last").output)(IMAGES))
    kernel, _ = net.get_layer("dense").get_weights()
    classes = np.array([0, 3, 1])
    n, height, width, channels = maps.shape
    expected = {method: np.zeros((n, height, width)) for method in METHODS}
    for i in range(n):
        for k in range(channels):
            g = kernel[k, classes[i]] / (height * width)
            total = maps[i, :, :, k].sum()
            below = 2 * g**2 + g**3 * total
            alpha = g**2 / below if below else 0
            for y in range(height):
                for x in range(width):
                    a = maps[i, y, x, k]
                    expected[grad_cam][i, y, x] += g * a
                    expected[hires_cam][i, y, x] += g * a
                    expected[layer_cam][i, y, x] += max(g, 0) * a
                    expected[grad_cam_plus_plus][i, y, x] += height * width * alpha * max(g, 0) * a
    for method, values in expected.items():
        found = method(net, IMAGES, classes)
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5 * np.abs(values).max(), err_msg=method.__name__)


def test_a_class_activation_map_is_what_grad_cam_shows(net):
    cam = np.array(with_heatmap(net)(IMAGES)["heatmap"])
    places = cam.shape[1] * cam.shape[2]
    for index in range(4):
        np.testing.assert_allclose(places * grad_cam(net, IMAGES, index), cam[..., index], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_each_image_is_explained_by_itself(net, method):
    together = method(net, IMAGES, [2, 0, 1])
    for index, target in enumerate([2, 0, 1]):
        np.testing.assert_allclose(method(net, IMAGES[index : index + 1], target)[0], together[index], atol=1e-5)


def test_the_most_probable_class_is_the_default(net):
    classes = np.argmax(net(IMAGES), axis=-1)
    np.testing.assert_array_equal(grad_cam(net, IMAGES), grad_cam(net, IMAGES, classes))


@pytest.mark.parametrize("name", ["cifar_resnet20_cbam", pytest.param("vgg16_bn", marks=pytest.mark.slow)])
def test_folding_changes_nothing(name):
    entry = lookup(name)
    size = (entry.narrow_size, entry.narrow_size, 3)
    model = randomise(kzoo.build(name, input_shape=size, **entry.narrow))
    images, folded = pixels(2, *size), kzoo.fold_batch_norm(model)
    for method in METHODS:
        expected = method(model, images, 1)
        np.testing.assert_allclose(method(folded, images, 1), expected, atol=1e-5 * np.abs(expected).max() + 1e-9)


def nested() -> keras.Model:
    inner = keras.Input((16, 13, 3))
    backbone = keras.Model(inner, body(inner), name="backbone")
    inputs = keras.Input((16, 13, 3))
    x = keras.layers.RandomFlip()(inputs)
    x = backbone(keras.layers.Rescaling(1 / 64, -2)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))


def twice_nested() -> keras.Model:
    inner = keras.Input((16, 13, 3))
    backbone = keras.Sequential([keras.Input((16, 13, 3)), keras.Model(inner, body(inner), name="core")], name="outer")
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4), keras.layers.Softmax()]
    return keras.Sequential([keras.Input((16, 13, 3)), keras.layers.Rescaling(1 / 64, -2), backbone, *layers])


def separate_activation() -> keras.Model:
    plain = flat(None)
    return keras.Model(plain.input, keras.layers.Activation("softmax")(plain.output))


@pytest.mark.parametrize("make", [nested, twice_nested, separate_activation])
@pytest.mark.parametrize("method", METHODS)
def test_however_a_model_is_put_together(net, make, method):
    """Models inside models, Sequential ones, dropout, augmentation, and softmax wherever it stands."""
    model = make()
    for layer, values in zip(weighted(model), weighted(net), strict=True):
        layer.set_weights(values.get_weights())
    np.testing.assert_allclose(method(model, IMAGES, [2, 0, 1]), method(net, IMAGES, [2, 0, 1]), atol=1e-5)
    by_name = method(model, IMAGES, [2, 0, 1], layer="first")
    np.testing.assert_allclose(by_name, method(net, IMAGES, [2, 0, 1], layer="first"), atol=1e-5)


def weighted(model) -> list:
    return [layer for layer in kzoo.flatten.all_layers(model) if layer.weights]


@pytest.mark.parametrize(("policy", "precision"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.01)])
def test_mixed_precision(net, policy, precision):
    """With 8 and 11 bits."""
    keras.config.set_dtype_policy(policy)
    try:
        half = flat()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(net.get_weights())
    for method in METHODS:
        expected = method(net, IMAGES, 1)
        np.testing.assert_allclose(method(half, IMAGES, 1), expected, atol=precision * np.abs(expected).max())


def test_a_layer_that_is_called_twice_is_explained_in_its_last_call():
    conv, inputs = keras.layers.Conv2D(3, 3, padding="same", name="shared"), keras.Input((8, 8, 3))
    first = conv(inputs)
    second = keras.layers.ReLU()(conv(keras.layers.ReLU()(first)))
    model = randomise(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(second))))
    images = feature_map(2, 8, 8, 3)
    node, _ = Replay(model).place("shared")
    assert type(node.sources[0].operation).__name__ == "ReLU"
    first = np.array(keras.Model(inputs, first)(images))
    last = np.array(conv(np.maximum(first, 0)))
    kernel, _ = model.layers[-1].get_weights()
    expected = (last * (last > 0)) @ kernel[:, 0] / 64
    np.testing.assert_allclose(hires_cam(model, images, 0, layer="shared"), expected, atol=1e-5)


def test_what_goes_around_a_layer_stays_as_it_is():
    """A shortcut past the layer adds nothing to its gradient."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 3, padding="same", name="branch")(inputs)
    y = keras.layers.GlobalAveragePooling2D()(x * inputs + inputs)
    model = randomise(keras.Model(inputs, keras.layers.Dense(2, name="dense")(y)))
    images = feature_map(2, 8, 8, 3)
    found = features(model, images, 1, "branch")
    kernel, _ = model.get_layer("dense").get_weights()
    np.testing.assert_allclose(found.gradients, images * kernel[:, 1] / 64, atol=1e-6)


def test_one_sigmoid_speaks_for_the_second_class():
    model = flat("sigmoid", 1)
    np.testing.assert_allclose(grad_cam(model, IMAGES, 1), -grad_cam(model, IMAGES, 0), atol=1e-6)
    logits = flat(None, 1)
    logits.set_weights(model.get_weights())
    np.testing.assert_allclose(grad_cam(model, IMAGES, 1), grad_cam(logits, IMAGES, 1), atol=1e-6)


def test_a_difference_of_classes(net):
    expected = grad_cam(net, IMAGES, 3) - grad_cam(net, IMAGES, 1)
    np.testing.assert_allclose(grad_cam(net, IMAGES, Difference(3, 1)), expected, atol=1e-5)


def test_a_function_is_a_target(net):
    expected = grad_cam(net, IMAGES, 2)
    np.testing.assert_allclose(grad_cam(net, IMAGES, lambda logits: 3 * logits[:, 2]), 3 * expected, atol=1e-5)


def test_a_region_of_a_mask():
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="map", activation="relu")(inputs)
    model = randomise(keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax", name="classes")(x)))
    assert explained_layer(model) == "map"
    images, mask = feature_map(2, 8, 6, 3), np.zeros((8, 6), bool)
    mask[2:5, 1:3] = True
    found = hires_cam(model, images, Region(2, mask))
    assert (found[:, ~mask] == 0).all()
    maps = np.array(keras.Model(inputs, x)(images))
    kernel = model.get_layer("classes").get_weights()[0][0, 0]
    np.testing.assert_allclose(found[:, mask], (maps @ kernel[:, 2])[:, mask] / mask.sum(), atol=1e-6)
    predicted = np.argmax(model(images), axis=-1)
    own = hires_cam(model, images, Region(int(predicted[0, 0, 0])))
    assert (own[predicted != predicted[0, 0, 0]] == 0).all()


def test_several_outputs_are_explained_by_their_answer(net):
    both = keras.Model(net.input, {"maps": net.get_layer("last").output, "answer": net.output})
    np.testing.assert_allclose(grad_cam(both, IMAGES, 1, "last"), grad_cam(net, IMAGES, 1, "last"), atol=1e-6)


def test_the_first_component_of_a_map(net):
    maps = np.array(keras.Model(net.input, net.get_layer("last").output)(IMAGES))
    for found, each in zip(eigen_cam(net, IMAGES), maps, strict=True):
        rows = each.reshape(-1, each.shape[-1])
        rows = rows - rows.mean(axis=0)
        values, vectors = np.linalg.eigh(rows.T @ rows)
        np.testing.assert_allclose(np.abs(found.ravel()), np.abs(rows @ vectors[:, -1]), rtol=1e-3, atol=1e-3)
        assert np.corrcoef(found.ravel(), each.sum(axis=-1).ravel())[0, 1] > 0
        np.testing.assert_allclose((found**2).sum(), values[-1], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(layer="lst"), UnknownNameError, "has no layer 'lst' before its output; the last are .*dense"),
        (dict(layer=3), InvalidValueError, "layer=3 must be the name of a layer"),
        (dict(target=lambda x: x), InvalidValueError, r"the target <lambda> gives numbers of shape \(3, 4\) for 3 im"),
        (dict(target=lambda x: 1.5), InvalidValueError, "gives a float for 3 images; it must give a score for each"),
        (dict(layer="dense"), InvalidValueError, "dense of .* gives .*, no map"),
        (dict(target=4), InvalidValueError, "target=4: .* has classes 0 to 3"),
        (dict(target=[0, 1]), InvalidValueError, "one for each of the 3 images"),
        (dict(target="cat"), InvalidValueError, "target='cat' must be the index of a class"),
        (dict(target=Region(1)), InvalidValueError, "a Region is of a model that gives maps"),
    ],
)
def test_mistakes(net, options, error, message):
    with pytest.raises(error, match=message):
        grad_cam(net, IMAGES, **options)


def test_what_cannot_be_computed_is_named():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="wide")(keras.layers.MaxPooling2D(2, name="pool")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)), name="mine")
    with pytest.raises(InvalidValueError, match=r"(pool|wide) of mine cannot be computed of \(1, \d, \d, 3\): \S"):
        grad_cam(model, np.zeros((1, 1, 1, 3)), 0)


def test_a_model_inside_is_no_layer():
    inside = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Conv2D(4, 3, name="cc")], name="base")
    model = keras.Sequential([keras.Input((9, 7, 3)), inside, keras.layers.GlobalAveragePooling2D()], name="mine")
    with pytest.raises(UnknownNameError, match="'base' is a model inside mine; give a layer of it, such as base/cc"):
        grad_cam(model, np.zeros((1, 9, 7, 3)), 0, layer="base")


def test_images_of_another_shape(net):
    with pytest.raises(InvalidValueError, match="images are of type <U9; numbers are needed"):
        grad_cam(net, np.array("no images"))
    for images in (IMAGES[:, :12], IMAGES[0], IMAGES[:0]):
        with pytest.raises(InvalidValueError, match=r"takes \(n, 16, 13, 3\)"):
            grad_cam(net, images)


def test_a_name_in_several_models_needs_a_path():
    def branch(name):
        inner = keras.Input((8, 8, 3))
        return keras.Model(inner, keras.layers.Conv2D(2, 3, name="conv")(inner), name=name)

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Add()([branch("left")(inputs), branch("right")(inputs)])
    model = randomise(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))))
    images = feature_map(1, 8, 8, 3)
    with pytest.raises(UnknownNameError, match="several layers 'conv': left/conv, right/conv; give one path"):
        grad_cam(model, images, layer="conv")
    assert not np.allclose(grad_cam(model, images, 0, "left/conv"), grad_cam(model, images, 0, "right/conv"))


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_subclassed_models_are_refused():
    with pytest.raises(InvalidValueError, match="subclassed"):
        grad_cam(Subclassed(), IMAGES)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_give_the_same_maps(net, backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    net.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, numpy as np, kzoo, keras; from kzoo import explain; folder = sys.argv[1]; "
        "model, images = keras.saving.load_model(f'{folder}/model.keras'), np.load(f'{folder}/images.npy'); "
        "names = ['grad_cam', 'hires_cam', 'layer_cam', 'grad_cam_plus_plus', 'smooth_grad']; "
        "np.savez(f'{folder}/maps.npz', **{name: getattr(explain, name)(model, images, [2, 0, 1]) for name in names})"
    )
    environment = os.environ | {"KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=environment, capture_output=True)
    maps = np.load(tmp_path / "maps.npz")
    for name in maps.files:
        expected = getattr(kzoo.explain, name)(net, IMAGES, [2, 0, 1])
        np.testing.assert_allclose(maps[name], expected, atol=1e-5 * np.abs(expected).max(), err_msg=name)
