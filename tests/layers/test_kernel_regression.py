"""Kernel regression against the estimator of Nadaraya and Watson, written with loops."""

import math

import keras
import numpy as np
import pytest
from helpers import check_layer, feature_map, relative_error
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.kernel_regression import KernelRegressionAttention


def regression(queries, keys, values, width):
    """f(x) = sum_i K(x - x_i) y_i / sum_j K(x - x_j) with K(u) = exp(-||u||² / (2 width²)), for (batch, N, D)."""
    queries, keys, values = (np.asarray(each, "float64") for each in (queries, keys, values))
    outputs = np.zeros((*queries.shape[:2], values.shape[-1]))
    for n, q in np.ndindex(*queries.shape[:2]):
        kernels = []
        for key in keys[n]:
            squares = ((a - b) ** 2 for a, b in zip(queries[n, q], key, strict=True))
            kernels.append(math.exp(-sum(squares) / (2 * width**2)))
        for kernel, value in zip(kernels, values[n], strict=True):
            outputs[n, q] += kernel / sum(kernels) * value
    return outputs


def inputs(features, size=2):
    return feature_map(2, 5, features, seed=1), feature_map(2, 9, features, seed=2), feature_map(2, 9, size, seed=3)


@pytest.mark.parametrize(("width", "learn_width"), [(0.7, False), (3.0, True), (None, False), (None, True)])
@pytest.mark.parametrize("features", [1, 3, 8, 9, 64])
def test_is_the_estimator(features, width, learn_width):
    queries, keys, values = inputs(features)
    layer = KernelRegressionAttention(width, learn_width)
    expected = regression(queries, keys, values, width or math.sqrt(features))
    assert relative_error(layer(queries, keys, values), expected) < 1e-5
    eye = np.broadcast_to(np.eye(9), (2, 9, 9))
    weights = regression(queries, keys, eye, width or math.sqrt(features))
    assert relative_error(layer.attention_weights(queries, keys), weights) < 1e-5


@pytest.mark.parametrize("features", [3, 16])
def test_defaults_of_keys_and_values(features):
    queries, keys, _ = inputs(features)
    other = feature_map(2, 5, 4, seed=5)
    layer = KernelRegressionAttention(2.0)
    assert relative_error(layer(queries), regression(queries, queries, queries, 2.0)) < 1e-5
    layer = KernelRegressionAttention(2.0)
    assert relative_error(layer(queries, keys), regression(queries, keys, keys, 2.0)) < 1e-5
    layer = KernelRegressionAttention(2.0)
    assert relative_error(layer(queries, values=other), regression(queries, queries, other, 2.0)) < 1e-5


def test_maps():
    x, guided = feature_map(2, 5, 7, 3), feature_map(2, 5, 7, 4, seed=2)
    flat = x.reshape(2, 35, 3)
    expected = regression(flat, flat, flat, 0.5).reshape(2, 5, 7, 3)
    assert relative_error(KernelRegressionAttention(0.5)(x), expected) < 1e-5
    expected = regression(flat, flat, guided.reshape(2, 35, 4), 0.5).reshape(2, 5, 7, 4)
    assert relative_error(KernelRegressionAttention(0.5)(x, x, guided), expected) < 1e-5
    keys, values = feature_map(2, 9, 3, seed=3), feature_map(2, 9, 2, seed=4)
    expected = regression(flat, keys, values, 0.5).reshape(2, 5, 7, 2)
    assert relative_error(KernelRegressionAttention(0.5)(x, keys, values), expected) < 1e-5


@pytest.mark.parametrize("features", [1, 3, 64])
def test_tiny_width_is_the_nearest_neighbour_and_huge_width_the_mean(features):
    queries, keys, values = inputs(features)
    distances = np.square(queries[:, :, None].astype("float64") - keys[:, None]).sum(-1)
    nearest = np.take_along_axis(values, distances.argmin(-1)[..., None], axis=1)
    # one weight is 1 and all others 0, but a matrix product may round what it multiplies: float32 keeps 6e-8
    assert relative_error(KernelRegressionAttention(1e-4)(queries, keys, values), nearest) < 1e-6
    assert relative_error(KernelRegressionAttention(1e-4)(100 * queries, 100 * keys, values), nearest) < 1e-6
    mean = np.broadcast_to(values.mean(1, keepdims=True), nearest.shape)
    assert relative_error(KernelRegressionAttention(1e6)(queries, keys, values), mean) < 1e-5


@pytest.mark.parametrize("features", [1, 8])
def test_few_features_stay_exact_below_the_rounding_of_the_spread(features):
    queries, keys, values = (each.copy() for each in inputs(features))
    queries *= 1e-4
    keys *= 1e-4
    keys[:, 0] = 100  # products of centred keys of about 10 would be rounded to 1e-5, against squares of 1e-8
    expected = regression(queries, keys, values, 1e-4)
    assert relative_error(KernelRegressionAttention(1e-4)(queries, keys, values), expected) < 1e-5


@pytest.mark.parametrize(("features", "tolerance"), [(3, 1e-5), (64, 1e-4)])
def test_a_common_offset_does_not_matter(features, tolerance):
    queries, keys, values = inputs(features)
    queries, keys = queries + 1024, keys + 1024  # rounds them, to 1e-4; the squares are 2e6 times the differences'
    expected = regression(queries, keys, values, 4.0)
    assert relative_error(KernelRegressionAttention(4.0)(queries, keys, values), expected) < tolerance


@pytest.mark.parametrize(("features", "width"), [(3, 120), (64, 600)])  # log(width) is far from its float16 rounding
def test_half_precision_computes_distances_and_width_in_single(features, width):
    queries, keys, values = (each.astype("float16") for each in inputs(features))
    queries, keys = 100 * queries, 100 * keys  # squared distances beyond float16's 65504
    y = KernelRegressionAttention(width, learn_width=True, dtype="mixed_float16")(queries, keys, values)
    assert y.dtype == "float16"
    assert relative_error(y, regression(queries, keys, values, width)) < 1e-3


@pytest.mark.parametrize("features", [1, 3, 64])
def test_gradient_of_the_width(features):
    import tensorflow as tf

    queries, keys, values = inputs(features)
    start, cotangent = math.sqrt(features), feature_map(2, 5, 2, seed=4)
    layer = KernelRegressionAttention(None, learn_width=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(queries, keys, values) * cotangent)
    assert [weight.path for weight in layer.trainable_weights] == [f"{layer.name}/log_width"]
    assert float(layer.log_width) == pytest.approx(math.log(start))
    gradient = tape.gradient(loss, layer.log_width.value)
    step = 1e-4
    high, low = (
        (regression(queries, keys, values, start * math.exp(sign * step)) * cotangent).sum() for sign in (1, -1)
    )
    assert float(gradient) == pytest.approx((high - low) / (2 * step), rel=1e-4)


def test_a_learned_width_fits_better():
    """The one-dimensional regression of the course books: y = 2 sin x + x^0.8 with noise, x in 0 to 5."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 5, 50)).astype("float32")
    y = 2 * np.sin(x) + x**0.8 + rng.normal(0, 0.5, 50).astype("float32")
    others = np.array([[j for j in range(50) if j != i] for i in range(50)])
    training = [x[:, None, None], x[others][..., None], y[others][..., None]]  # each point from all others

    tensors = [keras.Input((None, 1)) for _ in range(3)]
    layer = KernelRegressionAttention(learn_width=True)
    model = keras.Model(tensors, layer(*tensors))
    model.compile(keras.optimizers.Adam(0.2), "mse")
    grid = np.linspace(0, 5, 50, endpoint=False, dtype="float32")

    def truth_error():
        fit = np.array(layer(grid[None, :, None], x[None, :, None], y[None, :, None]))[0, :, 0]
        return np.square(fit - 2 * np.sin(grid) - grid**0.8).mean()

    before, loss_before = truth_error(), model.evaluate(training, y[:, None, None], verbose=0)
    model.fit(training, y[:, None, None], batch_size=50, epochs=20, verbose=0)
    assert model.evaluate(training, y[:, None, None], verbose=0) < 0.8 * loss_before
    assert truth_error() < 0.5 * before
    assert 0.05 < math.exp(float(layer.log_width)) < 0.6


@pytest.mark.parametrize(("features", "learn_width"), [(2, False), (20, True)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_functional_models(count, features, learn_width, tmp_path):
    arrays = inputs(features, 4)[:count]
    tensors = [keras.Input((None if count == 2 else each.shape[1], each.shape[2])) for each in arrays]
    model = keras.Model(tensors, KernelRegressionAttention(0.5, learn_width)(*tensors))
    assert model.output_shape == (None, tensors[0].shape[1], [features, features, 4][count - 1])
    expected = regression(arrays[0], arrays[min(1, count - 1)], arrays[-1], 0.5)
    assert relative_error(model.predict(arrays, verbose=0), expected) < 1e-5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert relative_error(loaded.predict(arrays, verbose=0), expected) < 1e-5


def test_maps_of_unknown_size():
    tensor = keras.Input((None, None, 3))
    model = keras.Model(tensor, KernelRegressionAttention(0.5)(tensor))
    assert model.output_shape == (None, None, None, 3)
    x = feature_map(2, 5, 7, 3)
    flat = x.reshape(2, 35, 3)
    assert relative_error(model.predict(x, verbose=0), regression(flat, flat, flat, 0.5).reshape(x.shape)) < 1e-5


def test_learned_width_survives_saving(tmp_path):
    tensor = keras.Input((5, 7, 3))
    layer = KernelRegressionAttention(learn_width=True)
    model = keras.Model(tensor, layer(tensor))
    layer.log_width.assign(math.log(0.3))
    model.save(tmp_path / "model.keras")
    x = feature_map(2, 5, 7, 3)
    loaded = keras.saving.load_model(tmp_path / "model.keras")(x)
    assert relative_error(loaded, KernelRegressionAttention(0.3)(x)) < 1e-5


def test_macs():
    layer = KernelRegressionAttention()
    assert layer.macs((None, 5, 7, 16)) == 2 * 35 * 35 * 16
    assert layer.macs((None, 9, 3)) == 2 * 9 * 9 * 3
    with pytest.raises(InvalidValueError, match="known number of positions"):
        layer.macs((None, None, 7, 16))


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 5, 7, 16), (2, 9, 4)], ids=str)
@pytest.mark.parametrize(
    "layer",
    [KernelRegressionAttention(), KernelRegressionAttention(None, learn_width=True, name="pool")],
    ids=lambda layer: layer.name,
)
def test_layer_contract(layer, shape, tmp_path):
    check_layer(type(layer).from_config(layer.get_config()), shape, tmp_path)


@pytest.mark.parametrize("width", [0, -1.0, math.inf, math.nan, 1e-30, "1"])
def test_bad_width(width):
    with pytest.raises(InvalidValueError, match=r"width=.* must be a positive number, .* or None for sqrt"):
        KernelRegressionAttention(width)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5),), r"got queries of shape \(2, 5\); add an axis to numbers without features: x\[\.\.\., None\]"),
        (((2, 5, 1), (2, 9)), r"got keys of shape \(2, 9\); add an axis"),
        (((2, 5, 3), (2, 9, 4)), "queries have 3 features and keys 4"),
        (((2, 5, 3), (2, 9, 3), (2, 8, 1)), "9 keys and 8 values; give each key one value"),
        (((2, 5, 7, 3), (2, 34, 3), (2, 5, 7, 1)), "34 keys and 35 values"),
        (((2, 3, 5, 7, 3),), r"maps \(batch, height, width, features\)"),
    ],
)
def test_inputs_that_do_not_fit(shapes, message):
    with pytest.raises(InvalidValueError, match=message):
        KernelRegressionAttention()(*(ops.ones(shape) for shape in shapes))
