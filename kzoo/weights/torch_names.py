"""How torch state dicts name and lay out the weights of the zoo's models."""

import re
from collections.abc import Callable

import keras
import numpy as np

from kzoo.errors import UnknownNameError
from kzoo.registry import lookup
from kzoo.weights.torch_rules import LAYER_NAMES

_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
IGNORED = re.compile(r"(.*\.)?num_batches_tracked")  # a counter that inference does not use
PREFIXES = ("module.", "model.", "backbone.", "encoder.")  # what wrappers put before every name


def torch_names(path: str, model: keras.Model) -> list[str]:
    """Names that torch code bases give the variable of `model` at a Keras `path`; empty where none is known.

    >>> torch_names("stage2_block1_conv2/kernel", kzoo.build("resnet50"))
    ['layer2.0.conv2.weight']
    """
    layer, _, variable = path.rpartition("/")
    try:
        layer_names = LAYER_NAMES.get(lookup(model.name).family)
    except UnknownNameError:
        layer_names = None
    if layer_names is None or variable not in _VARIABLES:
        return []
    return [f"{name}.{_VARIABLES[variable]}" for name in layer_names(layer, model)]


def torch_shape(variable: keras.Variable, array_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `array_shape` would have in Keras layout if it held `variable`.

    Convolution kernels are (out, in, h, w) in torch and (h, w, in, out) in Keras; dense ones are transposed,
    and may be stored as 1×1 convolutions.
    """
    if variable.name != "kernel":
        return tuple(array_shape)
    if len(array_shape) == 4 and len(variable.shape) == 2 and array_shape[2:] == (1, 1):
        array_shape = array_shape[:2]
    return tuple(array_shape[axis] for axis in _axes(len(array_shape)))


def to_keras(variable: keras.Variable) -> Callable[[np.ndarray], np.ndarray]:
    """Turns a torch array into the layout of `variable`."""

    def convert(array: np.ndarray) -> np.ndarray:
        if variable.name == "kernel":
            if array.ndim == 4 and len(variable.shape) == 2:
                array = array[:, :, 0, 0]
            array = array.transpose(_axes(array.ndim))
        return array.astype("float32")

    return convert


def _axes(rank: int) -> tuple[int, ...]:
    """Axes that move (out, in, *spatial) to (*spatial, in, out)."""
    return (*range(2, rank), 1, 0)
