"""What every layer must do inside a model: learn under XLA, fold, save, and run whole on the XNNPACK delegate."""

import inspect
import itertools

import keras
import numpy as np
import pytest
from helpers import (
    assert_weights_are,
    feature_map,
    randomise,
    relative_error,
    slow_but,
    weights_of,
    weights_without_gradient,
)
from layers.cases import CASES, CHANNELS

import kzoo
from kzoo import layers
from kzoo.errors import InvalidValueError
from kzoo.graph import count_macs

# One case of each layer; the others go the whole way with `pytest -m slow`, and so does residual attention under XLA,
# which compiles it for long
FIRST = set({type(case.make()): name for name, case in reversed(CASES.items())}.values())
# Not in any model that tests/test_whole_path.py exports by default
EXPORTED = (
    "centerness_scores",
    "decode_anchors",
    "decode_points",
    "drop_path",
    "kernel_regression",
    "layer_scale",
    "learned_position",
    "local_response_normalization",
    "relative_position_bias",
    "residual_attention_channel",
    "self_attention",
    "side_output",
    "sinusoidal_position",
)


@pytest.mark.quick
def test_no_layer_is_forgotten():
    public = {name for name in layers.__all__ if inspect.isclass(getattr(layers, name))} - {"Attention"}
    assert {type(case.make()).__name__ for case in CASES.values()} == public


GARBAGE = ("x", [], {}, (3, 3, 3), float("nan"), float("inf"), -1, 0, 2.5, True, None, object(), np.array([1, 2]))


@pytest.mark.parametrize("name", sorted({type(case.make()).__name__ for case in CASES.values()}))
def test_arguments_that_make_no_sense_are_refused(name):
    """Whatever an argument is given, it is accepted, and then saved, or refused with an error that names it."""
    make = getattr(layers, name)
    parameters = {key: p for key, p in inspect.signature(make).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    needed = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    required = {key: {} if key == "output" else 4 for key in needed}
    silent = []  # refusals that do not say which argument they are about
    for argument, value in itertools.product(parameters, GARBAGE):
        try:
            layer = make(**required | {argument: value})
        except InvalidValueError as error:
            silent += [str(error)] if argument not in str(error) else []
        else:
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert silent == []


def test_sizes_may_be_numpy_integers():
    layer = layers.NeighborhoodAttention(np.int64(2), np.int32(3), dilation=np.int64(2))
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).dilation == 2


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


@pytest.mark.parametrize("name", slow_but(FIRST, CASES, quick=["cbam"]))
def test_saves_and_folds(name, tmp_path):
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


@pytest.mark.parametrize("name", slow_but(EXPORTED, CASES, quick=["layer_scale"]))
def test_exports(name, tmp_path):
    model = randomise(CASES[name].model())
    images = feature_map(4, *model.input.shape[1:])
    expected = np.array(model(images))
    reports = kzoo.export_all(kzoo.fold_batch_norm(model), tmp_path, ("float32", "int8_dynamic"), calibration=images)
    for report in reports.values():
        assert report.xnnpack_partitions == 1
        assert not [op for op in report.ops if op.startswith(("Flex", "CUSTOM"))]
    assert reports["float32"].max_rel_error < 1e-5
    error = kzoo.edge.LiteRTModel(reports["int8_dynamic"].path).predict(images) - expected
    assert np.linalg.norm(error) / np.linalg.norm(expected) < 0.03


INSIDE = {"residual_attention", "channel_attention", "spatial_attention"}  # the last two inside `cbam`


@pytest.mark.parametrize("name", slow_but(FIRST - INSIDE, CASES, quick=["squeeze_excite"]))
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


@pytest.mark.parametrize("name", CASES)
def test_half_precision_bears_large_activations(name):
    """Maps of 300 and more, whose products of 16 channels overflow float16."""
    model = randomise(CASES[name].model())
    keras.config.set_dtype_policy("mixed_float16")
    try:
        low = CASES[name].model()
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in low.layers[1:]} == {"float16"}
    low.set_weights(model.get_weights())
    images = SCALES.get(name, 400) * feature_map(2, *model.input.shape[1:])
    expected, actual = np.array(model(images)), np.array(low(images)).astype("float32")
    assert np.isfinite(actual).all()
    # float16 keeps 11 bits, so that logits of thousands are off by whole numbers, whatever computes them
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 0.1


SCALES = {"non_local_dot_product": 10, "non_local_concatenation": 60}  # their outputs grow faster than their inputs


PLAIN = [name for name, case in CASES.items() if case.is_plain]
ONE_SIZE = ("learned_position", "relative_position_bias", "self_attention", "self_attention_relative_bias")


@pytest.mark.parametrize("size", [pytest.param((10, 20), marks=pytest.mark.slow), (17, 8), (3, 4)])
@pytest.mark.parametrize("name", slow_but(FIRST.intersection(PLAIN), PLAIN))
def test_takes_maps_of_another_size_or_refuses_them(name, size):
    """What a layer built for one size makes of another equals what one built for that size makes of it."""
    case = CASES[name]
    layer = case.make()
    layer.build((None, *case.size, CHANNELS))
    randomise(layer)
    x = feature_map(2, *size, CHANNELS)
    fresh = case.make()
    try:
        fresh.build((None, *size, CHANNELS))
        fresh.set_weights(layer.get_weights())
    except ValueError:  # the map is too small for it, or its tables are for one size
        with pytest.raises(ValueError, match=r"map|shape"):
            layer(x)
        return
    assert name not in ONE_SIZE
    np.testing.assert_array_equal(layer(x), fresh(x))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if hasattr(case.make(), "absorb")])
def test_absorbs_what_batch_normalisation_does(name):
    layer, x = CASES[name].make(), feature_map(2, *CASES[name].size, CHANNELS)
    layer.build(x.shape)
    y = np.array(randomise(layer)(x))
    rng = np.random.default_rng(3)
    scale, offset = rng.uniform(-2, 2, y.shape[-1]), rng.normal(size=y.shape[-1])
    absorbed, weights = layer.absorb(scale, offset)
    absorbed.build(x.shape)
    absorbed.set_weights(weights)
    assert relative_error(absorbed(x), scale * y + offset) < 1e-5
