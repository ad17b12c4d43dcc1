"""Random weights, relative errors, gradients and small inputs for the tests."""

import inspect

import keras
import numpy as np
import pytest

from kzoo.check.probe import feature_map, pixels, randomise, relative_error, weights_of, weights_without_gradient

__all__ = [
    "assert_weights_are",
    "check_layer",
    "fails",
    "feature_map",
    "pixels",
    "randomise",
    "relative_error",
    "weights_of",
    "weights_without_gradient",
]


def assert_weights_are(model, expected: list[np.ndarray]) -> None:
    """Every weight equals its copy in `expected`, bit for bit."""
    for variable, old in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old, err_msg=variable.path)


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


def fails(capsys, *args) -> str:
    """Runs the command, expects exit code 2, and returns its one line."""
    from kzoo.cli import main

    with pytest.raises(SystemExit) as stop:
        main(args)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert error.startswith("kzoo: ")
    return error
