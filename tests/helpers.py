"""Random weights, relative errors, gradients and small inputs for the tests."""

import inspect
import math

import keras
import numpy as np


def randomise(model, seed: int = 0):
    """Gives every weight of a model or layer random values, those of batch normalisation too; returns it."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif variable.name == "kernel":
            variable.assign(rng.normal(0, math.sqrt(1 / math.prod(shape[:-1])), shape))
        elif variable.name == "log_width":  # wide kernels, so that more than the nearest key counts
            variable.assign(variable + rng.uniform(0, 0.3))
        elif keras.backend.is_float_dtype(variable.dtype):
            variable.assign(rng.normal(0, 0.3, shape))
    return model


def relative_error(actual, expected) -> float:
    """The largest absolute difference over the largest absolute expected value."""
    actual = keras.ops.convert_to_numpy(actual).astype("float64")
    expected = keras.ops.convert_to_numpy(expected).astype("float64")
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def feature_map(*shape: int, seed: int = 1) -> np.ndarray:
    """Normal values of both signs."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def pixels(*shape: int, seed: int = 1) -> np.ndarray:
    """Pixels of 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


def weights_of(model) -> list[np.ndarray]:
    """Copies of every weight, without the states of random generators."""
    return [np.array(weight) for weight in model.get_weights()]


def assert_weights_are(model, expected: list[np.ndarray]) -> None:
    """Every weight equals its copy in `expected`, bit for bit."""
    for variable, old in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old, err_msg=variable.path)


def weights_without_gradient(model, x, idle: tuple[str, ...] = ()) -> list[str]:
    """Paths of the trainable weights that a random weighting of the training outputs gives no gradient.

    Those that end in one of `idle` are left out: a softmax or a batch normalisation behind them takes them out
    again, so that their gradient is rounding alone.
    """
    import tensorflow as tf

    with tf.GradientTape() as tape:
        y = model(x, training=True)
        loss = tf.reduce_sum(y * feature_map(*y.shape, seed=2))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    without = [v.path for v, g in zip(variables, gradients, strict=True) if g is None or not np.abs(g).max() > 0]
    return [path for path in without if not path.endswith(idle)]


def check_layer(layer, shape: tuple[int, ...], tmp_path, idle: tuple[str, ...] = ()) -> None:
    """What every layer must do: give its arguments back, save, compute in half precision, learn.

    For `idle` see `weights_without_gradient`.
    """
    arguments = set(inspect.signature(type(layer).__init__).parameters) - {"self", "kwargs"}
    config = layer.get_config()
    assert set(config) == arguments | {"name", "trainable", "dtype"}
    assert type(layer).from_config(config).get_config() == config

    inputs = keras.Input(shape[1:])
    model = randomise(keras.Model(inputs, layer(inputs)))
    x = feature_map(*shape)
    expected = np.array(model(x))
    model.save(tmp_path / "layer.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "layer.keras")(x), expected)
    assert layer.compute_output_shape(shape) == expected.shape

    half = type(layer).from_config(config | {"dtype": "mixed_float16"})
    half.build(shape)
    half.set_weights(layer.get_weights())
    y = half(x)
    assert y.dtype == "float16"
    assert {variable.dtype for variable in half.variables} <= {"float32"}
    assert relative_error(y, expected) < 5e-3  # half precision has 11 bits, 5e-4, and there are several roundings

    assert weights_without_gradient(model, x, idle) == []  # last: training moves the statistics
