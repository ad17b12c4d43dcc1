"""Checks of arguments and input shapes that several layers share."""

import math
from numbers import Integral, Real

import keras
import numpy as np

from kzoo.errors import InvalidValueError


def check_feature_map(layer: keras.layers.Layer, shape: tuple, static: bool = False) -> int:
    """Returns the channels of a (B, H, W, C) shape; raises `InvalidValueError` for any other.

    With `static`, height and width must be known too.
    """
    if len(shape) != 4 or not shape[-1]:
        raise InvalidValueError(
            f"{type(layer).__name__} {layer.name!r} takes feature maps (batch, height, width, channels) "
            f"with known channels, got shape {tuple(shape)}"
        )
    if static and not (shape[1] and shape[2]):
        raise InvalidValueError(
            f"{type(layer).__name__} {layer.name!r} needs maps of known height and width, got shape {tuple(shape)}; "
            "build with an input_shape"
        )
    return shape[-1]


def is_integer(value, at_least: int) -> bool:
    """Whether `value` is an integer, Python's or NumPy's and no truth value, of at least `at_least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= at_least


def check_positive(name: str, value) -> int:
    """The integer; raises `InvalidValueError` unless it is at least 1."""
    if not is_integer(value, 1):
        raise InvalidValueError(f"{name}={value!r} must be a positive integer")
    return int(value)


def check_seed(seed) -> int:
    """The seed of random numbers; raises `InvalidValueError` unless it is an integer of at least 0."""
    if not is_integer(seed, 0):
        raise InvalidValueError(f"seed={seed!r} must be an integer, 0 or more")
    return int(seed)


def check_number(name: str, value, accepts, accepted: str) -> float:
    """The finite number; raises `InvalidValueError` unless `accepts(value)`, which `accepted` says in words."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or not accepts(value):
        raise InvalidValueError(f"{name}={value!r} must be a number {accepted}")
    return float(value)


def check_flag(name: str, value) -> bool:
    """The truth value; raises `InvalidValueError` for anything but True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidValueError(f"{name}={value!r} must be True or False")
    return bool(value)


def activation(name: str, value):
    """The activation function; raises `InvalidValueError` unless it is Keras' name of one, or callable."""
    try:
        return keras.activations.get(value)
    except Exception as error:  # Keras and its deserialisation have one for each type
        raise InvalidValueError(
            f"{name}={value!r} is no activation; use the name of one in keras.activations, such as 'relu' or "
            "'sigmoid', a function, or None"
        ) from error


def pair(name: str, value, at_least: int = 1) -> tuple[int, int]:
    """(value, value) for an integer, else the pair; raises `InvalidValueError` for anything else."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sizes) != 2 or not all(is_integer(size, at_least) for size in sizes):
        raise InvalidValueError(f"{name}={value!r} must be an integer of at least {at_least}, or a pair of them")
    return int(sizes[0]), int(sizes[1])


def check_odd(name: str, value) -> int:
    """The integer; raises `InvalidValueError` unless it is odd and at least 1."""
    if not is_integer(value, 1) or value % 2 == 0:
        raise InvalidValueError(f"{name}={value!r} must be a positive odd number such as 3 or 7")
    return int(value)


def check_heads(layer: keras.layers.Layer, channels: int, num_heads: int, name: str = "channels") -> None:
    """Raises `InvalidValueError` unless `num_heads` divides `channels`."""
    if channels % num_heads:
        fitting = [heads for heads in range(1, channels + 1) if channels % heads == 0]
        raise InvalidValueError(
            f"{type(layer).__name__} {layer.name!r}: num_heads={num_heads} does not divide {name}={channels}; "
            f"use one of {', '.join(map(str, fitting))}"
        )
