"""Maps equal to pytorch-grad-cam's, and the models on which other packages fail."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded_pictures
from helpers import pixels, randomise, relative_error, slow_but
from models.test_timm_parity import torch_state
from models.transformers import load_seeded

import kzoo
from kzoo import explain

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "cams.npz")
CAMS = ("grad_cam", "hires_cam", "layer_cam")


@pytest.mark.parametrize(
    ("name", "place", "layer"),
    slow_but(
        [("resnet18", "p4", "p4")],
        [
            ("resnet18", "p4", "p4"),
            ("resnet18", "p5", None),
            ("swin_tiny", "norm2", "stage4_block2_norm2"),
            ("swin_tiny", "norm", None),
        ],
    ),
)
def test_maps_are_those_of_pytorch_grad_cam(name, place, layer, tmp_path):
    """Before it cuts off what is negative and scales the rest; None is the layer that is explained by default."""
    model = kzoo.build(name, classifier_activation=None)
    if name == "swin_tiny":
        load_seeded(model, tmp_path / "model.safetensors")
    else:
        safetensors.numpy.save_file(torch_state(model), tmp_path / "model.safetensors")
        kzoo.load_weights(model, tmp_path / "model.safetensors")
    for method in CAMS:
        found = getattr(explain, method)(model, seeded_pictures(224, 224), [3, 701], layer)
        assert relative_error(found, GOLDENS[f"{name}_{place}_{method}"]) < 1e-4, method


@pytest.fixture(scope="module")
def transferred() -> keras.Model:
    """As the guides of Keras transfer: pixels scaled, a model of keras.applications as a layer, and a dense layer."""
    backbone = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    inputs = keras.Input((64, 64, 3))
    x = backbone(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, keras.layers.Dense(4, activation="softmax", name="dense")(x)))


@pytest.mark.parametrize("path", ["out_relu", "mobilenetv2_0.35_64/out_relu", None])
def test_a_model_as_a_layer_by_its_layers(transferred, path):
    """tf-keras-vis, Xplique and the recipe of keras.io raise here, for any layer inside and for their defaults."""
    images, classes = pixels(2, 64, 64, 3), [2, 0]
    backbone, (kernel, _) = transferred.layers[2], transferred.get_layer("dense").get_weights()
    path = path and path.replace("mobilenetv2_0.35_64", backbone.name)
    maps = np.array(backbone(images / 127.5 - 1))
    expected = np.einsum("nyxk,kn->nyx", maps, kernel[:, classes]) / np.prod(maps.shape[1:3])
    for method in (explain.grad_cam, explain.hires_cam):
        found = method(transferred, images, classes, path)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_layer_inside_whose_gradient_goes_through_others(transferred):
    """Before the ReLU that ends at 6."""
    images, classes = pixels(2, 64, 64, 3), [2, 0]
    backbone, (kernel, _) = transferred.layers[2], transferred.get_layer("dense").get_weights()
    maps = np.array(keras.Model(backbone.input, backbone.get_layer("Conv_1_bn").output)(images / 127.5 - 1))
    passed = np.where((maps > 0) & (maps < 6), maps, 0)
    expected = np.einsum("nyxk,kn->nyx", passed, kernel[:, classes]) / np.prod(maps.shape[1:3])
    found = explain.hires_cam(transferred, images, classes, "Conv_1_bn")
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("make", "layer"),
    slow_but(
        [(keras.applications.MobileNetV3Small, None)],
        [
            (keras.applications.MobileNetV3Small, None),
            (keras.applications.DenseNet121, "relu"),
            (keras.applications.EfficientNetB0, "top_activation"),
            (keras.applications.ResNet50, "conv5_block3_out"),
            (keras.applications.ConvNeXtTiny, None),
        ],
    ),
)
def test_models_of_keras_applications(make, layer):
    """Whichever way they pool: MobileNetV3 goes on with layers that read what pooling left, one place."""
    model = randomise(make(input_shape=(64, 64, 3), classes=5, weights=None))
    images = pixels(2, 64, 64, 3)
    maps = explain.hires_cam(model, images, [1, 3])
    assert layer in (None, explain.explained_layer(model))
    assert maps.shape == (2, 2, 2)
    assert np.ptp(maps, axis=(1, 2)).min() > 0
    alone = explain.hires_cam(model, images[1:], 3)
    np.testing.assert_allclose(maps[1:], alone, atol=1e-4 * np.abs(alone).max())
