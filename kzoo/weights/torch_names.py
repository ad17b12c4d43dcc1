"""How torch state dicts name and lay out the weights of the zoo's models."""

import math
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
    "table": "relative_position_bias_table",
    "position_bias": "rpb",
    "scale": "",  # a parameter of the block itself, which the family names whole
}
# a counter that inference does not use, and what Swin's windows follow from their size
IGNORED = re.compile(r"(.*\.)?(num_batches_tracked|relative_position_index|attn_mask)")
AUXILIARY = re.compile(r"(aux\d|AuxLogits)\..*")  # heads for training, which public files hold
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
    return [f"{name}.{_VARIABLES[variable]}".removesuffix(".") for name in layer_names(layer, model)]


def torch_shape(variable: keras.Variable, array_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `array_shape` would have in Keras layout if it held `variable`.

    Convolution kernels are (out, in, h, w) in torch and (h, w, in, out) in Keras; dense ones are transposed,
    and may be stored as convolutions of 1×1, or of a whole map that the zoo flattens channels first.
    """
    if variable.name != "kernel":
        return tuple(array_shape)
    if len(array_shape) == 4 and len(variable.shape) == 2:
        array_shape = (array_shape[0], math.prod(array_shape[1:]))
    return tuple(array_shape[axis] for axis in _axes(len(array_shape)))


def to_keras(variable: keras.Variable) -> Callable[[np.ndarray], np.ndarray]:
    """Turns a torch array into the layout of `variable`."""

    def convert(array: np.ndarray) -> np.ndarray:
        if variable.name == "kernel":
            if array.ndim == 4 and len(variable.shape) == 2:
                array = array.reshape(len(array), -1)
            array = array.transpose(_axes(array.ndim))
        return array.astype("float32")

    return convert


def _axes(rank: int) -> tuple[int, ...]:
    """Axes that move (out, in, *spatial) to (*spatial, in, out)."""
    return (*range(2, rank), 1, 0)
