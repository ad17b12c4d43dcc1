"""Checks of arguments and input shapes that several layers share."""

import keras

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


def check_positive(name: str, value) -> None:
    """Raises `InvalidValueError` unless `value` is an integer of at least 1."""
    if type(value) is not int or value < 1:
        raise InvalidValueError(f"{name}={value!r} must be a positive integer")


def pair(name: str, value, at_least: int = 1) -> tuple[int, int]:
    """(value, value) for an integer, else the pair; raises `InvalidValueError` for anything else."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sizes) != 2 or any(type(size) is not int or size < at_least for size in sizes):
        raise InvalidValueError(f"{name}={value!r} must be an integer of at least {at_least}, or a pair of them")
    return sizes


def check_odd(name: str, value) -> None:
    """Raises `InvalidValueError` unless `value` is an odd integer of at least 1."""
    if type(value) is not int or value < 1 or value % 2 == 0:
        raise InvalidValueError(f"{name}={value!r} must be a positive odd number such as 3 or 7")


def check_heads(layer: keras.layers.Layer, channels: int, num_heads: int, name: str = "channels") -> None:
    """Raises `InvalidValueError` unless `num_heads` divides `channels`."""
    if channels % num_heads:
        fitting = [heads for heads in range(1, channels + 1) if channels % heads == 0]
        raise InvalidValueError(
            f"{type(layer).__name__} {layer.name!r}: num_heads={num_heads} does not divide {name}={channels}; "
            f"use one of {', '.join(map(str, fitting))}"
        )
