"""What a check feeds to a model and reads from it: random weights, small inputs, errors, gradients, reasons."""

import math

import keras
import numpy as np

from kzoo.errors import CheckFailed


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


def feature_map(*shape: int, seed: int = 1) -> np.ndarray:
    """Normal values of both signs."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def pixels(*shape: int, seed: int = 1) -> np.ndarray:
    """Pixels of 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


def weights_of(model) -> list[np.ndarray]:
    """Copies of every weight, without the states of random generators."""
    return [np.array(weight) for weight in model.get_weights()]


def relative_error(actual, expected) -> float:
    """The largest absolute difference over the largest absolute expected value; of dicts that of the worst output.

    Raises:
        CheckFailed: the shapes or the names of the outputs differ.
    """
    if isinstance(expected, dict):
        if sorted(actual) != sorted(expected):
            raise CheckFailed(f"the outputs are {', '.join(actual)}, not {', '.join(expected)}")
        return float(np.max([relative_error(actual[name], expected[name]) for name in expected]))  # a NaN stays
    actual = keras.ops.convert_to_numpy(actual).astype("float64")
    expected = keras.ops.convert_to_numpy(expected).astype("float64")
    if actual.shape != expected.shape:
        raise CheckFailed(f"the shape is {actual.shape}, not {expected.shape}")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def weights_without_gradient(model, x, idle: tuple[str, ...] = ()) -> list[str]:
    """Paths of the trainable weights that a random weighting of the training outputs gives no gradient.

    Those that end in one of `idle` are left out: a softmax or a batch normalisation behind them takes them out
    again, so that their gradient is rounding alone.
    """
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(model(x, training=True))
        loss = sum(tf.reduce_sum(y * feature_map(*y.shape, seed=2)) for y in outputs)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    without = [v.path for v, g in zip(variables, gradients, strict=True) if g is None or not np.abs(g).max() > 0]
    return [path for path in without if not path.endswith(idle)]
