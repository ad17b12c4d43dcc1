"""Changing arrays for another number of channels or another image size, only where their shapes leave no doubt."""

import math

import keras
import numpy as np

from kzoo.layers import LearnedPositionEncoding, RelativePositionBias
from kzoo.layers.position_tables import resize_positions, resize_relative_bias

RGB = 3


def adapt(variable: keras.Variable, array: np.ndarray, model: keras.Model) -> tuple[np.ndarray, str] | None:
    """Fits an array of another shape to a variable.

    Args:
        variable: variable of `model`.
        array: array in the layout of `variable`, of another shape.
        model: model that tells which kernel reads the image.

    Returns:
        The array and what was done, or None where it belongs to another architecture.
    """
    if variable.path == first_kernel(model):
        return _other_channels(array, tuple(variable.shape))
    if variable.name == "position_bias":
        return _other_kernel(array, tuple(variable.shape))
    if variable.name == "table":
        return _other_table(variable, array, model)
    return None


def first_kernel(model: keras.Model) -> str | None:
    """The path of the convolution kernel that reads the image, None where something else reads it."""
    first = next((layer for layer in model.layers if layer.weights), None)
    return first.kernel.path if isinstance(first, keras.layers.Conv2D) else None


def _other_channels(kernel: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    """A kernel for RGB images made one for `shape[2]` channels.

    Channel i of the image goes with channel i modulo 3 of the kernel. Several image channels share one of the kernel,
    several of the kernel are summed for one image channel. So the kernel's sum over the channels stays as it is, and
    an image with equal channels gives what it gave.
    """
    if kernel.ndim != 4 or kernel.shape[2] != RGB or (*kernel.shape[:2], kernel.shape[3]) != (*shape[:2], shape[3]):
        return None
    channels = shape[2]
    places = np.arange(max(channels, RGB))
    share = np.zeros((RGB, channels), "float32")
    share[places % RGB, places % channels] = 1
    share /= share.sum(axis=1, keepdims=True)
    done = "summed" if channels < RGB else "repeated and rescaled"
    adapted = np.einsum("hwio,ij->hwjo", kernel.astype("float32"), share)
    return adapted, f"{RGB} input channels to {channels}: {done}"


def _other_kernel(bias: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    """The biases of a neighbourhood, (heads, 2 k - 1, 2 k - 1), for another k."""
    side = bias.shape[-1]
    if bias.ndim != 3 or bias.shape != (shape[0], side, side) or side % 2 == 0:
        return None
    old, new = (side + 1) // 2, (shape[-1] + 1) // 2
    table = resize_relative_bias(bias.transpose(1, 2, 0).reshape(side**2, -1), old, new)
    return table.reshape(*shape[1:], -1).transpose(2, 0, 1), f"biases of {old}×{old} neighbours resized to {new}×{new}"


def _other_table(variable: keras.Variable, table: np.ndarray, model: keras.Model) -> tuple[np.ndarray, str] | None:
    """The table of a `RelativePositionBias`, from a square window, or of a `LearnedPositionEncoding`."""
    owner, shape = _owner(variable, model), tuple(variable.shape)
    if table.ndim != len(shape) or table.shape[-1] != shape[-1] or 0 in table.shape:
        return None
    if isinstance(owner, LearnedPositionEncoding):
        size = shape[:-1] if len(shape) == 3 else shape[0]
        return resize_positions(
            table, size
        ), f"positions resized from {_text(table.shape[:-1])} to {_text(shape[:-1])}"
    side = math.isqrt(len(table))
    if not isinstance(owner, RelativePositionBias) or side**2 != len(table) or side % 2 == 0:
        return None
    old = (side + 1) // 2
    resized = resize_relative_bias(table, old, owner.window_size)
    return resized, f"biases of {old}×{old} windows resized to {_text(owner.window_size)}"


def _owner(variable: keras.Variable, model: keras.Model) -> object:
    """The layer that made a variable, found by the names in its path; None where attributes have others."""
    first, *inner = variable.path.split("/")[:-1]
    layer = next((layer for layer in model.layers if layer.name == first), None)
    for name in inner:
        layer = getattr(layer, name, None)
    return layer


def _text(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))
