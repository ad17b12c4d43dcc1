"""What every layer must do inside a model: learn under XLA, fold, save, and run whole on the XNNPACK delegate."""

import inspect

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, feature_map, randomise, relative_error, weights_of, weights_without_gradient
from layers.cases import CASES

import kzoo
from kzoo import layers
from kzoo.graph import count_macs


def test_no_layer_is_forgotten():
    public = {name for name in layers.__all__ if inspect.isclass(getattr(layers, name))} - {"Attention"}
    assert {type(case.make()).__name__ for case in CASES.values()} == public


@pytest.mark.parametrize("name", CASES)
def test_knows_its_cost(name):
    """The model's multiply-adds are those of its convolutions and what the layer says of itself."""
    model = CASES[name].model()
    layer = next(layer for layer in model.layers if type(layer).__module__.startswith("kzoo."))
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(layer.input)]
    macs = layer.macs(shapes[0])
    assert isinstance(macs, int)
    convolutions = [each for each in model.layers if isinstance(each, keras.layers.Conv2D)]
    assert count_macs(model) == macs + sum(
        int(np.prod(conv.output.shape[1:3])) * int(np.prod(conv.kernel.shape)) for conv in convolutions
    )


@pytest.mark.parametrize("name", CASES)
def test_saves_and_folds_and_exports(name, tmp_path):
    model = randomise(CASES[name].model())
    images = feature_map(4, *model.input.shape[1:])
    expected = np.array(model(images))

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_weights_are(loaded, weights_of(model))
    np.testing.assert_array_equal(loaded(images), expected)

    folded = kzoo.fold_batch_norm(model)
    assert not any("moving" in variable.path for variable in folded.variables)
    assert relative_error(folded(images), expected) < 1e-5

    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert not [op for op in report.ops if op.startswith(("Flex", "CUSTOM"))]
    assert report.max_rel_error < 1e-5

    path = tmp_path / "int8.tflite"
    report = kzoo.export(folded, path, "int8_dynamic", calibration=images)
    assert report.xnnpack_partitions == 1
    error = kzoo.edge.LiteRTModel(path).predict(images) - expected
    assert np.linalg.norm(error) / np.linalg.norm(expected) < 0.03


@pytest.mark.parametrize("name", CASES)
def test_learns_under_xla(name):
    model = randomise(CASES[name].model())
    images = feature_map(4, *model.input.shape[1:])
    targets = feature_map(4, *model.output.shape[1:], seed=2)
    idle = CASES[name].idle
    assert weights_without_gradient(model, images, idle) == []

    model = randomise(CASES[name].model())
    eager = float(np.mean((np.array(model(images, training=True)) - targets) ** 2))
    model = randomise(CASES[name].model())
    before = weights_of(model)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
    loss = model.train_on_batch(images, targets)
    assert model.jit_compile is True
    if name != "drop_path":  # random
        assert loss == pytest.approx(eager, rel=1e-4)
    trained = zip(model.weights, before, strict=True)
    assert [w.path for w, old in trained if np.array_equal(w, old) and not w.path.endswith(idle)] == []
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
