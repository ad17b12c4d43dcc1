"""Stochastic depth: whole samples are dropped, the expectation stays (arXiv:1603.09382)."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import check_layer, feature_map, relative_error

from kzoo.errors import InvalidValueError
from kzoo.layers.stochastic_depth import DropPath


def kept_samples(y, x, rate, tolerance=1e-6):
    """Which samples of y are x / (1 - rate); every other one must be zero in all its values."""
    y = keras.ops.convert_to_numpy(y)
    kept = np.array([sample.any() for sample in y])
    for sample, source, survives in zip(y, x, kept, strict=True):
        expected = source.astype("float64") / (1 - rate) if survives else np.zeros_like(source)
        np.testing.assert_allclose(sample, expected, rtol=tolerance)
    return kept


@pytest.mark.parametrize("shape", [(64,), (64, 3), (64, 5, 8), (64, 5, 7, 3), (64, 2, 3, 4, 5)], ids=len)
def test_a_sample_is_zero_or_scaled(shape):
    x = feature_map(*shape)
    kept = kept_samples(DropPath(0.4, seed=3)(x, training=True), x, 0.4)
    assert 0 < kept.sum() < 64


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_fraction_and_mean(rate):
    samples = 20_000
    y = np.array(DropPath(rate, seed=1)(np.ones((samples, 2), "float32"), training=True))
    deviation = np.sqrt(rate * (1 - rate) / samples)
    assert abs((y[:, 0] == 0).mean() - rate) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - rate)


@pytest.mark.parametrize("options", [dict(), dict(training=False)])
def test_nothing_happens_at_inference(options):
    x = feature_map(8, 5, 7, 3)
    np.testing.assert_array_equal(DropPath(0.9)(x, **options), x)


def test_nothing_happens_at_rate_0():
    x = feature_map(8, 5, 7, 3)
    layer = DropPath()
    np.testing.assert_array_equal(layer(x, training=True), x)
    assert layer.variables == []  # no random state to save


def test_a_seed_repeats_the_sequence():
    x = np.ones((64, 2), "float32")
    first, second, other = DropPath(0.5, seed=7), DropPath(0.5, seed=7), DropPath(0.5, seed=8)
    steps = [np.array(first(x, training=True)) for _ in range(3)]
    for step in steps:
        np.testing.assert_array_equal(second(x, training=True), step)
    assert (steps[0] != steps[1]).any()
    assert (steps[0] != np.array(other(x, training=True))).any()


def test_gradient_flows_through_kept_samples_alone():
    x = tf.constant(feature_map(32, 5, 7, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = DropPath(0.25, seed=1)(x, training=True)
        loss = tf.reduce_sum(y)
    kept = kept_samples(y, x.numpy(), 0.25)
    expected = np.broadcast_to(kept[:, None, None, None] / 0.75, x.shape)
    np.testing.assert_allclose(tape.gradient(loss, x), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_under_xla_with_unknown_batch(dtype):
    inputs = keras.Input((5, 7, 3))
    model = keras.Model(inputs, DropPath(0.5, seed=2, dtype=dtype)(inputs))
    x = feature_map(32, 5, 7, 3).astype("float32" if dtype == "float32" else "float16")
    step = tf.function(lambda images: model(images, training=True), jit_compile=True)
    masks = []
    for _ in range(2):
        y = step(x)
        assert y.dtype == x.dtype
        masks.append(kept_samples(y, x, 0.5, tolerance=1e-6 if dtype == "float32" else 1e-3))
    assert (masks[0] != masks[1]).any()  # the state advances in the compiled step


def test_trains_under_xla():
    inputs = keras.Input((5, 7, 3))
    x = keras.layers.Conv2D(3, 1, name="branch")(inputs)
    x = keras.layers.Add()([inputs, DropPath(0.5, seed=2)(x)])
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse", jit_compile=True)
    before = np.array(model.get_layer("branch").kernel)
    model.fit(feature_map(16, 5, 7, 3), feature_map(16, 5, 7, 3, seed=2), batch_size=8, verbose=0)
    assert relative_error(model.get_layer("branch").kernel, before) > 1e-4


def test_layer_contract(tmp_path):
    check_layer(DropPath(name="drop"), (2, 5, 7, 3), tmp_path)


def test_config_and_saving_with_a_rate(tmp_path):
    layer = DropPath(0.3, seed=5, name="drop")
    config = layer.get_config()
    assert {key: config[key] for key in ("rate", "seed", "name")} == dict(rate=0.3, seed=5, name="drop")
    assert DropPath.from_config(config).get_config() == config
    inputs = keras.Input((5, 7, 3))
    model = keras.Model(inputs, layer(inputs))
    assert layer.compute_output_shape((2, 5, 7, 3)) == (2, 5, 7, 3)
    assert model.weights == []
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = feature_map(64, 5, 7, 3)
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


def test_masks_of_sequences_pass_through():
    tokens = keras.layers.Embedding(5, 4, mask_zero=True)(np.array([[1, 2, 0], [3, 0, 0]]))
    assert DropPath(0.5)(tokens)._keras_mask is tokens._keras_mask


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan")])
def test_bad_rate(rate):
    with pytest.raises(InvalidValueError, match=rf"rate={rate} must be a number of at least 0 and below 1"):
        DropPath(rate)


def test_a_frozen_layer_does_nothing_in_training_until_it_is_free_again():
    layer, x = DropPath(0.5, seed=1), feature_map(64, 3)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), x)
    again = DropPath.from_config(layer.get_config())  # as a file keeps it
    np.testing.assert_array_equal(again(x, training=True), x)
    layer.trainable = True
    assert 0 < kept_samples(layer(x, training=True), x, 0.5).sum() < 64
