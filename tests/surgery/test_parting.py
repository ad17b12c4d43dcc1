"""Shared linear layers whose calls have norms of their own: a folded copy for each of these calls."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise, relative_error

import kzoo
from kzoo.surgery import plan_folding

layers = keras.layers
SHARED = {
    "conv": lambda: layers.Conv2D(5, 3, padding="same", use_bias=False, name="shared"),
    "conv with bias": lambda: layers.Conv2D(5, 3, padding="same", name="shared"),
    "dense": lambda: layers.Dense(5, name="shared"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, name="shared"),
}


def norms(model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def levels(shared, normed=(True, True, True)) -> keras.Model:
    """A shared layer, and a shared ReLU behind it, on maps of three sizes, the last one made of the first's answer."""
    image = keras.Input((12, 10, 4), name="image")
    relu, last = layers.ReLU(name="relu"), layers.Conv2D(2, 1, name="last")
    outputs = {}
    x = image
    for number, norm in enumerate(normed, start=1):
        y = shared(x)
        if norm:
            y = layers.BatchNormalization(name=f"bn{number}")(y)
        y = relu(y)
        outputs[f"level{number}"] = last(y)
        x = layers.AveragePooling2D(2, 1, "same", name=f"pool{number}")(layers.Conv2D(4, 1, name=f"next{number}")(y))
    return randomise(keras.Model(image, outputs))


@pytest.mark.parametrize("kind", SHARED)
def test_each_call_has_its_own_folded_layer(kind):
    model = levels(SHARED[kind]())
    images = pixels(2, 12, 10, 4) / 255
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert relative_error(folded(images), model(images)) < 1e-5
    assert {layer.name for layer in folded.layers if "shared" in layer.name} == {f"shared_call{n}" for n in (1, 2, 3)}
    assert plan_folding(model).folds == {f"bn{n}": f"shared_call{n}" for n in (1, 2, 3)}
    # the weights by the equation, from the one kernel
    norm = model.get_layer("bn2")
    scale = np.array(norm.gamma) / np.sqrt(np.array(norm.moving_variance) + norm.epsilon)
    kernel = np.array(model.get_layer("shared").kernel)
    scaled = kernel * (scale.reshape(kernel.shape[-2:]) if kind == "depthwise" else scale)
    np.testing.assert_allclose(folded.get_layer("shared_call2").kernel, scaled, rtol=1e-5)


def test_a_call_without_a_norm_keeps_the_layer():
    model = levels(SHARED["conv with bias"](), normed=(False, True, False))
    images = pixels(2, 12, 10, 4) / 255
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert relative_error(folded(images), model(images)) < 1e-5
    assert {layer.name for layer in folded.layers if "shared" in layer.name} == {"shared", "shared_call2"}
    for ours, theirs in zip(
        folded.get_layer("shared").get_weights(), model.get_layer("shared").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_layer_that_reads_itself():
    image, shared = keras.Input((12, 10, 5)), layers.Conv2D(5, 3, padding="same", name="shared")
    model = randomise(keras.Model(image, layers.BatchNormalization(name="bn")(shared(shared(image)))))
    folded = kzoo.fold_batch_norm(model)
    assert plan_folding(model).folds == {"bn": "shared_call2"}
    images = pixels(2, 12, 10, 5) / 255
    assert relative_error(folded(images), model(images)) < 1e-5


def test_in_models_inside_and_not_where_nothing_is_gained():
    inner = levels(SHARED["conv"]())
    image = keras.Input((12, 10, 4))
    outer = keras.Model(image, inner(image))
    images = pixels(2, 12, 10, 4) / 255
    folded = kzoo.fold_batch_norm(outer)
    assert relative_error(folded(images), outer(images)) < 1e-5
    assert not any("moving" in variable.path for variable in folded.variables)

    active = levels(layers.Conv2D(5, 3, padding="same", activation="relu", name="shared"))
    assert len(plan_folding(active).kept) == 3
    assert norms(kzoo.fold_batch_norm(active)) == ["bn1", "bn2", "bn3"]


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_heads_with_batch_normalisation_fold_whole(name, tmp_path):
    tiny = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
    options = tiny | ({} if name == "fcos" else dict(anchor_size=1))
    model = randomise(
        kzoo.build(
            name, input_shape=(64, 96, 3), num_classes=3, head_norm="batch", head_depth=2, extra_levels=1, **options
        )
    )
    images = pixels(2, 64, 96, 3)
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == []
    assert relative_error(folded(images), model(images)) < 1e-5
    assert "head_class_conv2_call4" in {layer.name for layer in folded.layers}
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-5
