"""The heat map: class activation maps as the paper has them, whose means are the logits; and who has none."""

import keras
import numpy as np
import pytest
from helpers import kinds, pixels, randomise, relative_error, slow_but
from keras import layers

import kzoo
from kzoo.check.narrow_model import NarrowModel
from kzoo.errors import InvalidValueError
from kzoo.registry import CLASSIFICATION, lookup
from kzoo.surgery import fold_batch_norm, with_heatmap

IMAGES = pixels(3, 19, 26, 3)


def end(x, *tail):
    """A model of layers one after the other, behind a feature map of odd size."""
    image = keras.Input((19, 26, 3), name="image")
    features = layers.Conv2D(6, 3, strides=3, activation="relu", name="features")(layers.Rescaling(1 / 255)(image))
    for layer in (x, *tail):
        features = layer(features)
    return randomise(keras.Model(image, features, name="small"))


def maps_by_loops(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Equation 2 of Zhou et al. 2016, in float64: M_c(x, y) = sum over k of w_k^c f_k(x, y)."""
    maps = np.zeros((*features.shape[:3], kernel.shape[1]))
    for n, y, x in np.ndindex(features.shape[:3]):
        for c in range(kernel.shape[1]):
            maps[n, y, x, c] = sum(kernel[k, c] * features[n, y, x, k] for k in range(len(kernel)))
    return maps


ENDS = {
    "plain": (layers.GlobalAveragePooling2D(), layers.Dense(4)),
    "softmax inside": (layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")),
    "without bias": (layers.GlobalAveragePooling2D(), layers.Dense(4, use_bias=False), layers.Softmax()),
    "much between": (
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Identity(),
        layers.Reshape((6,)),
        layers.Dense(1, name="heatmap"),
        layers.Activation("sigmoid"),
        layers.Dropout(0.5),
    ),
}


@pytest.mark.parametrize("tail", ENDS)
def test_maps_are_those_of_the_paper_and_their_means_the_logits(tail):
    model = end(*ENDS[tail])
    before = model.get_weights()
    outputs = with_heatmap(model)(IMAGES)
    assert list(outputs) == ["answer", "heatmap"]
    np.testing.assert_array_equal(outputs["answer"], model(IMAGES))
    (dense,) = (layer for layer in model.layers if isinstance(layer, layers.Dense))
    features = np.array(keras.Model(model.input, model.get_layer("features").output)(IMAGES), "float64")
    kernel, bias = np.array(dense.kernel, "float64"), np.array(dense.bias if dense.use_bias else 0)
    assert outputs["heatmap"].shape == (3, 6, 8, dense.units)
    assert relative_error(outputs["heatmap"], maps_by_loops(features, kernel)) < 1e-6
    logits = features.mean(axis=(1, 2)) @ kernel + bias
    assert relative_error(np.mean(outputs["heatmap"], axis=(1, 2)) + bias, logits) < 1e-5
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_names_of_classes_and_folding_go_on():
    model = randomise(kzoo.build("cifar_resnet20_se", input_shape=(19, 26, 3), depths=(1, 1), widths=(4, 6)))
    named = kzoo.with_classes(model, list("abcdefghij"))
    expected, folded = with_heatmap(named)(IMAGES), with_heatmap(fold_batch_norm(named))
    for name, output in fold_batch_norm(with_heatmap(named))(IMAGES).items():
        assert relative_error(output, expected[name]) < 1e-5
        assert relative_error(folded(IMAGES)[name], expected[name]) < 1e-5
    assert folded.get_layer("meaning").output_fields["class_names"] == list("abcdefghij")


def test_a_model_with_a_heat_map_is_saved(tmp_path):
    model = with_heatmap(end(*ENDS["plain"]))
    model.save(tmp_path / "model.keras")
    for name, output in keras.saving.load_model(tmp_path / "model.keras")(IMAGES).items():
        np.testing.assert_array_equal(output, model(IMAGES)[name])


class OwnDropout(layers.Layer):
    def call(self, x):
        return x


OwnDropout.__name__ = "Dropout"
POOL, DENSE = layers.GlobalAveragePooling2D, layers.Dense
REFUSED = {
    "flattened": ((layers.Flatten(), DENSE(4)), "'features', a Conv2D, stands where a GlobalAveragePooling2D"),
    "maximum": ((layers.GlobalMaxPooling2D(name="most"), DENSE(4)), "'most', a GlobalMaxPooling2D, stands where a Gl"),
    "two dense layers": ((POOL(), DENSE(5, name="first"), DENSE(4)), "'first', a Dense, stands where a GlobalAverage"),
    "no dense layer": ((POOL(name="pool"),), "'pool', a GlobalAveragePooling2D, stands where a Dense must be"),
    "normalised": ((POOL(), layers.BatchNormalization(name="bn"), DENSE(4)), "'bn', a BatchNormalization, stands"),
    "rescaled": ((POOL(), DENSE(4), layers.Rescaling(2.0, name="double")), "'double', a Rescaling, stands"),
    "somebody's": ((POOL(), OwnDropout(name="own"), DENSE(4)), "'own', a Dropout, stands"),
    "groups": ((POOL(), layers.Reshape((2, 3)), DENSE(4, name="both"), layers.Flatten()), "'both' does not multiply"),
    "inside": ((keras.Sequential([POOL(name="inner_pool"), DENSE(4)]),), "'inner_pool' stands in a model inside it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_ends_are_refused_by_name_and_reason(case):
    tail, message = REFUSED[case]
    model = end(*tail)
    with pytest.raises(InvalidValueError, match="small gives no heat map, which needs an end of .*: " + message):
        with_heatmap(model)


def test_several_outputs_are_refused():
    model = end(*ENDS["plain"])
    for several in (with_heatmap(model), keras.Model(model.input, [model.output, model.output])):
        with pytest.raises(InvalidValueError, match="it has several outputs"):
            with_heatmap(several)


KINDS = kinds(kzoo.list_models())
NONE = {"airbench", "simple_cnn", "vgg"}  # a maximum, and several dense layers


@pytest.mark.parametrize(
    "name", slow_but(("googlenet", "swin_base"), [n for n in KINDS if lookup(n).task == CLASSIFICATION])
)
def test_classifiers_of_every_kind(name, tmp_path):
    narrow = NarrowModel(name, tmp_path)
    if narrow.entry.family in NONE:
        with pytest.raises(InvalidValueError, match="gives no heat map"):
            with_heatmap(narrow.model)
        return
    outputs = with_heatmap(narrow.model)(narrow.images)
    logits = np.mean(outputs["heatmap"], axis=(1, 2)) + np.array(narrow.model.get_layer("head_dense").bias)
    assert relative_error(logits, narrow.outputs) < 1e-5
