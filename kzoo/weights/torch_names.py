"""How torch state dicts name and lay out the weights of the zoo's models.

A rule is a pattern on a layer of the zoo, and templates of the names that torch code bases give it, the
commonest first. Layers inside an attention layer are written behind it: `stage1_block1_attention/reduce`.
"""

import re
from collections.abc import Callable

import keras
import numpy as np

_BLOCK = r"stage(?P<stage>\d+)_block(?P<block>\d+)"
_RULES: tuple[tuple[re.Pattern, tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), templates)
    for pattern, templates in (
        ("stem_conv", ("conv1",)),
        ("stem_bn", ("bn1",)),
        (rf"{_BLOCK}_(?P<kind>conv|bn)(?P<index>\d)", ("layer{stage}.{block}.{kind}{index}",)),
        (rf"{_BLOCK}_shortcut_conv", ("layer{stage}.{block}.downsample.0", "layer{stage}.{block}.shortcut.0")),
        (rf"{_BLOCK}_shortcut_bn", ("layer{stage}.{block}.downsample.1", "layer{stage}.{block}.shortcut.1")),
        (rf"{_BLOCK}_attention/reduce", ("layer{stage}.{block}.se.fc1", "layer{stage}.{block}.se_module.fc1")),
        (rf"{_BLOCK}_attention/expand", ("layer{stage}.{block}.se.fc2", "layer{stage}.{block}.se_module.fc2")),
        (rf"{_BLOCK}_attention/channel/reduce", ("layer{stage}.{block}.se.channel.fc1",)),
        (rf"{_BLOCK}_attention/channel/expand", ("layer{stage}.{block}.se.channel.fc2",)),
        (rf"{_BLOCK}_attention/spatial/conv", ("layer{stage}.{block}.se.spatial.conv.conv",)),
        (rf"{_BLOCK}_attention/spatial/batch_norm", ("layer{stage}.{block}.se.spatial.conv.bn",)),
        ("head_dense", ("fc", "linear", "classifier")),
    )
)
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


def torch_names(path: str) -> list[str]:
    """Names that torch code bases give the variable at a Keras `path`; empty where no rule knows it.

    >>> torch_names("stage2_block1_conv2/kernel")
    ['layer2.0.conv2.weight']
    """
    layer, _, variable = path.rpartition("/")
    for pattern, templates in _RULES:
        match = pattern.fullmatch(layer)
        if match and variable in _VARIABLES:
            groups = match.groupdict()
            if "block" in groups:
                groups["block"] = int(groups["block"]) - 1
            return [f"{template.format(**groups)}.{_VARIABLES[variable]}" for template in templates]
    return []


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
