"""How torch state dicts name and lay out the weights of the zoo's models."""

import math
import re
from collections.abc import Collection

import keras
import numpy as np

from kzoo.weights.family import family_of
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
HEAD_LAYERS = ("head_fc1", "head_fc2", "head_dense")
# what wrappers put before every name, one inside the other: DataParallel, torch.compile, trainers, tasks
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")


def torch_names(path: str, model: keras.Model) -> list[str]:
    """Names that torch code bases give the variable of `model` at a Keras `path`; empty where none is known.

    >>> torch_names("stage2_block1_conv2/kernel", kzoo.build("resnet50"))
    ['layer2.0.conv2.weight']
    """
    layer, _, variable = path.rpartition("/")
    layer_names = LAYER_NAMES.get(family_of(model) or "")
    if layer_names is None or variable not in _VARIABLES:
        return []
    return [f"{name}.{_VARIABLES[variable]}".removesuffix(".") for name in layer_names(layer, model)]


class TorchNames:
    """The arrays of a file with torch names, as a model of the zoo sees them.

    Attributes:
        arrays: name -> array, without the wrappers' prefixes.
    """

    def __init__(self, arrays: dict[str, np.ndarray], model: keras.Model):
        arrays = {name: array for name, array in arrays.items() if not IGNORED.fullmatch(name)}
        known = {name for variable in model.weights for name in torch_names(variable.path, model)}
        while prefix := _common_prefix(arrays, known):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
        self.arrays = arrays
        self._model = model

    def belonging_to(self, model: keras.Model) -> set[str]:
        """Names that belong to variables of another model."""
        others = TorchNames(self.arrays, model)
        return {name for variable in model.weights if (name := others.find(variable))}

    def find(self, variable: keras.Variable) -> str | None:
        """The name of a variable's array, None where the file has none."""
        return next((name for name in torch_names(variable.path, self._model) if name in self.arrays), None)

    def convert(self, variable: keras.Variable, name: str, array: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """The array `name` in the layout of `variable`, and what was done to it beyond the order of its axes.

        Convolution kernels are (out, in, h, w) in torch and (h, w, in, out) in Keras; dense ones are transposed,
        and may be stored as convolutions of 1×1, or of a whole map that the zoo flattens channels first.
        """
        if variable.name != "kernel":
            return array, []
        notes = []
        if array.ndim == 4 and len(variable.shape) == 2:
            height, width = array.shape[2:]
            notes.append(f"{height}×{width} convolution to dense")
            array = array.reshape(len(array), math.prod(array.shape[1:]))
        return array.transpose(_axes(array.ndim)) if array.ndim > 1 else array, notes

    def of_absent_head(self) -> list[str]:
        """Names that belong to layers of a head which the model was built without."""
        present = {layer.name for layer in self._model.layers}
        names = (
            name
            for layer in HEAD_LAYERS
            if layer not in present
            for kind in ("kernel", "bias")
            for name in torch_names(f"{layer}/{kind}", self._model)
        )
        return [name for name in names if name in self.arrays]

    def of_absent_auxiliary(self) -> list[str]:
        """Names that belong to auxiliary heads which the model was built without."""
        if any(layer.name.startswith("auxiliary") for layer in self._model.layers):
            return []
        return [name for name in self.arrays if AUXILIARY.fullmatch(name)]


def _common_prefix(names: Collection[str], known: set[str]) -> str:
    """What one of the wrappers put before all names, empty where some name is `known` as it is."""
    if known.intersection(names):
        return ""
    return next((each for each in PREFIXES if names and all(name.startswith(each) for name in names)), "")


def _axes(rank: int) -> tuple[int, ...]:
    """Axes that move (out, in, *spatial) to (*spatial, in, out)."""
    return (*range(2, rank), 1, 0)
