"""Random weights, relative errors, gradients and small inputs for the tests; which of many names are tested when."""

import contextlib
import dataclasses
import functools
import inspect
import json
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import pytest

from kzoo.check.probe import feature_map, pixels, randomise, relative_error, weights_of, weights_without_gradient
from kzoo.layers.target import is_for_gpu
from kzoo.recipe import Data, Recipe
from kzoo.registry import lookup

__all__ = [
    "assert_weights_are",
    "check_layer",
    "computes_dilated_transposed_convolutions",
    "converted_once",
    "fails",
    "feature_map",
    "in_float64",
    "kinds",
    "make_recipe",
    "one_of_each_kind",
    "pixels",
    "randomise",
    "relative_error",
    "slow_but",
    "weights_of",
    "weights_without_gradient",
]


def make_recipe(name: str, model: str, dataset: str, **flags) -> Recipe:
    """A recipe from its settings by their flags, whichever parts they are in."""
    return Recipe(name=name, model=model, data=Data(dataset)).replace(**flags)


def kinds(names: Iterable[str]) -> list[str]:
    """The first name of each kind of narrow model: the others are equal to it but for their full size."""
    found = {}
    for name in names:
        entry = lookup(name)
        found.setdefault((repr(dataclasses.replace(entry.config, **entry.narrow)), entry.preprocessing), name)
    return list(found.values())


def slow_but(default: Iterable, values: Iterable, quick: Iterable = ()) -> list:
    """Parameters of a test: all `values`, of which those that are not in `default` are slow and `quick` are quick."""
    assert not isinstance(values, set), "a set has another order in each process, and workers must collect alike"
    default, values, quick = list(default), list(values), list(quick)
    assert set(quick) <= set(default) <= set(values), f"no such parameters: {set(quick + default) - set(values)}"
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=marks(value, default, quick))
        for value in values
    ]


def marks(value, default: list, quick: list) -> list:
    """`quick`, none, or `slow`."""
    if value in quick:
        return [pytest.mark.quick]
    return [] if value in default else [pytest.mark.slow]


def one_of_each_kind(names: Iterable[str]) -> list:
    """Parameters of a test: all `names`, of which those that are of a kind with one before are slow."""
    names = list(names)
    return slow_but(kinds(names), names)


@functools.cache
def computes_dilated_transposed_convolutions() -> bool:
    """Whether TensorFlow does, which without oneDNN it does not on a processor."""
    try:
        keras.layers.Conv2DTranspose(1, 2, dilation_rate=2)(np.ones((1, 3, 3, 1), "float32"))
    except Exception:  # InvalidArgumentError, which only TensorFlow can name
        return False
    return True


@contextlib.contextmanager
def converted_once() -> Iterator[None]:
    """Until the block ends, a model is converted once for each size of a batch, however often it is exported."""
    from kzoo.edge import exporting

    convert, known = exporting.convert, {}

    def once(model: keras.Model, batch_size: int) -> bytes:
        key = model.to_json(), b"".join(weight.tobytes() for weight in model.get_weights()), is_for_gpu(), batch_size
        if key not in known:
            known[key] = convert(model, batch_size)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "convert", once)
        yield


def assert_weights_are(model, expected: list[np.ndarray]) -> None:
    """Every weight equals its copy in `expected`, bit for bit."""
    for variable, old in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old, err_msg=variable.path)


def in_float64(model: keras.Model) -> keras.Model:
    """The same model with inputs, layers and weights in float64, where rounding hides nothing.

    TensorFlow pools volumes in float32 alone; what is equal before is equal after.
    """

    def changed(value):
        if isinstance(value, dict):
            single = value.get("class_name") in ("MaxPooling3D", "AveragePooling3D")
            return value if single else {name: changed(inside) for name, inside in value.items()}
        if isinstance(value, list):
            return [changed(inside) for inside in value]
        return "float64" if value == "float32" else value

    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    double = keras.saving.deserialize_keras_object(changed(config), safe_mode=False)
    double.set_weights(model.get_weights())
    return double


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
    """Runs the command, expects exit code 2, and returns its one line, which warnings may come before."""
    from kzoo.cli import main

    with pytest.raises(SystemExit) as stop:
        main(args)
    *warnings, error = capsys.readouterr().err.splitlines(keepends=True)
    assert stop.value.code == 2
    assert all(line.startswith("kzoo: warning: ") for line in warnings)
    assert error.startswith("kzoo: ")
    assert error.endswith("\n")
    return error
