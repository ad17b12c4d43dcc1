"""What every model of the zoo must do: save, learn under XLA, fold, and run whole on the XNNPACK delegate."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, pixels, randomise, relative_error, weights_of, weights_without_gradient

import kzoo
from kzoo.registry import lookup
from kzoo.surgery import plan_folding
from kzoo.taps import tap_names


def names(slow: tuple[str, ...] = ()) -> list:
    """Every name; slow are those that equal an earlier one once both are narrow, and those that end in `slow`."""
    marked, seen = [], set()
    for name in kzoo.list_models():
        entry = lookup(name)
        kind = (dataclasses.replace(entry.config, **entry.narrow), entry.preprocessing)
        is_slow = kind in seen or name.endswith(slow)
        marked.append(pytest.param(name, marks=[pytest.mark.slow] if is_slow else []))
        seen.add(kind)
    return marked


def narrow(name: str) -> keras.Model:
    """A small model of the same kind, that gives logits."""
    entry = lookup(name)
    shape = (entry.narrow_size, entry.narrow_size, 3)
    return kzoo.build(name, input_shape=shape, num_classes=10, classifier_activation=None, **entry.narrow)


def norms(model) -> set[str]:
    return {layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}


@pytest.mark.parametrize("name", kzoo.list_models())
def test_builds_with_taps_at_their_strides(name):
    entry = lookup(name)
    height, width = entry.narrow_size, 2 * entry.narrow_size
    model = kzoo.build(name, input_shape=(height, width, 3), num_classes=7, **entry.narrow)
    assert model.output.shape == (None, 7)
    levels = [int(tap[1:]) for tap in tap_names(model)]
    assert levels == list(range(levels[0], levels[-1] + 1))
    assert 2 ** levels[-1] == dataclasses.replace(entry.config, **entry.narrow).total_stride
    lost = 4 if entry.family == "inception_v3" else 0  # pixels of a map that convolutions without padding cost
    for level in levels:
        stride = 2**level
        rows, columns = model.get_layer(f"p{level}").output.shape[1:3]
        assert height // stride - lost <= rows <= height // stride
        assert width // stride - lost <= columns <= width // stride


@pytest.mark.parametrize("name", names())
def test_saves_and_folds_and_exports(name, tmp_path):
    model = randomise(narrow(name))
    images = pixels(4, *model.input.shape[1:])
    expected = np.array(model(images))
    assert np.isfinite(expected).all()

    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert_weights_are(loaded, weights_of(model))
    np.testing.assert_array_equal(loaded(images), expected)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]

    plan = plan_folding(model)
    assert set(plan.kept) == norms_that_stay(model)
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == norms_that_stay(model)
    assert [v.path for v in folded.variables if "moving" in v.path and v.path.split("/")[0] not in plan.kept] == []
    assert relative_error(folded(images), expected) < 1e-5
    assert tap_names(folded) == tap_names(model)

    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert not [op for op in report.ops if op.startswith(("Flex", "CUSTOM"))]
    assert report.max_rel_error < 1e-5


def norms_that_stay(model) -> set[str]:
    """Of a pre-activation network, those that read a sum or the stem's pool: each block's first and the last one.

    Of a network with an attention stem, the one behind its max-pooling. All others follow a linear layer.
    """
    if model.name.endswith("_full"):
        return {"stem_bn"}
    if "_v2" not in model.name and not model.name.startswith("residual_attention"):
        return set()
    return {layer.name for layer in model.layers if layer.name == "final_bn" or layer.name.endswith("_bn1")}


def is_idle_bias(path: str) -> bool:
    """Whether batch normalisation or a softmax takes this bias out again, so that its gradient is rounding alone."""
    return re.fullmatch(r".*(conv\d?|_attention\d/(g|phi|out))/bias", path) is not None


@pytest.mark.parametrize("name", names(slow=("_se", "_cbam")))  # every layer by itself learns under XLA too
def test_learns_under_xla(name):
    model = randomise(narrow(name))
    images, labels = pixels(8, *model.input.shape[1:]), np.arange(8) % 10
    assert [path for path in weights_without_gradient(model, images) if not is_idle_bias(path)] == []

    before = weights_of(model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True)
    loss = model.train_on_batch(images, labels)
    assert model.jit_compile is True
    assert np.isfinite(loss)
    logits = randomise(narrow(name))(images, training=True)
    eager = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    assert loss == pytest.approx(float(eager), rel=1e-4)  # XLA adds up in another order, through batch statistics
    unmoved = [v.path for v, old in zip(model.variables, before, strict=True) if np.array_equal(v, old)]
    assert [path for path in unmoved if not is_idle_bias(path)] == []
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnet50_v1",
        "resnet50_v2",
        "resnet50_se",
        "resnet50_cbam",
        "cifar_resnet20",
        "plain18",
    ],
)
def test_full_size_runs_in_one_partition(name, tmp_path):
    model = randomise(kzoo.build(name, classifier_activation=None))
    images = pixels(2, *model.input.shape[1:])
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == norms_that_stay(model)
    assert relative_error(folded(images), model(images)) < 1e-5
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-5
