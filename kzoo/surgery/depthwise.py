"""What averages or scales each channel by itself, written as a depthwise convolution, which accelerators run best."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from kzoo.surgery.fold_batch_norm import read_norm
from kzoo.surgery.folding import Replacement, plan_replacing, replace
from kzoo.surgery.level import Level, Refused
from kzoo.surgery.linear import same_padding
from kzoo.surgery.plan import FoldPlan

_AVERAGE = (keras.layers.AveragePooling2D, keras.layers.GlobalAveragePooling2D)
_ELSEWHERE = tuple(
    getattr(keras.layers, f"{whole}AveragePooling{rank}D") for whole in ("", "Global") for rank in (1, 3)
)
_MAXIMUM = tuple(getattr(keras.layers, f"{whole}MaxPooling{rank}D") for whole in ("", "Global") for rank in (1, 2, 3))


def norm_to_depthwise(model: keras.Model) -> keras.Model:
    """Returns an equal model whose batch normalisations of 2-D maps are 1x1 depthwise convolutions.

    For those that `kzoo.fold_batch_norm` had to leave: the kernel is `gamma / sqrt(var + eps)`, the bias
    `beta - mean * kernel`. They keep their names. What cannot be replaced is logged with its reason;
    `plan_norms` lists it.

    Args:
        model: a functional or Sequential model. It and its weights are left as they are.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.
    """
    return replace(model, _replace_norm)


def plan_norms(model: keras.Model) -> FoldPlan:
    """What `norm_to_depthwise` does, without changing the model."""
    return plan_replacing(Level(model), _replace_norm)


def pooling_to_conv(model: keras.Model) -> keras.Model:
    """Returns an equal model whose average poolings of 2-D maps are depthwise convolutions.

    GlobalAveragePooling2D of (batch, H, W, C) becomes a valid H x W convolution whose kernel is `1 / (H W)`, and a
    Reshape `{name}_flatten`, or a longer name where that is taken, unless it keeps its dimensions; AveragePooling2D
    a strided one, if it pads nothing: an average leaves the padding out. They keep their names. Max-pooling stays,
    since it is not linear. What stays is logged with its reason; `plan_pooling` lists it.

    Args:
        model: a functional or Sequential model with maps of known size where they are averaged.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.
    """
    return replace(model, _replace_pooling)


def plan_pooling(model: keras.Model) -> FoldPlan:
    """What `pooling_to_conv` does, without changing the model."""
    return plan_replacing(Level(model), _replace_pooling)


def _replace_norm(level: Level, name: str) -> Replacement | None:
    affine = read_norm(level, name)
    if affine is None:
        return None
    level.check_no_mask(name)
    if len(level.input_shape(name)) != 4:
        raise Refused(f"it reads a tensor of shape {level.input_shape(name)}, not a 2-D map")
    return [_depthwise(level.operations[name], affine.scale.reshape(1, 1, -1, 1), affine.offset)]


def _replace_pooling(level: Level, name: str) -> Replacement | None:
    layer = level.operations[name]
    if isinstance(layer, _MAXIMUM):
        raise Refused("max-pooling is not linear")
    if isinstance(layer, _ELSEWHERE):
        raise Refused(f"a {type(layer).__name__} does not read a 2-D map")
    if not isinstance(layer, _AVERAGE):
        return None
    shapes = {call.input_shapes[0][1:] for call in level.graph.calls[name]}
    if type(layer) not in _AVERAGE:
        raise Refused(f"it is a {type(layer).__name__}, which may compute something else")
    level.check_no_mask(name)
    if layer.data_format != "channels_last":
        raise Refused("it is channels first")
    if len(shapes) > 1 or None in next(iter(shapes)):
        raise Refused(f"it reads maps of different or unknown size {sorted(shapes, key=str)}")
    *size, channels = shapes.pop()
    if type(layer) is keras.layers.GlobalAveragePooling2D:
        flatten: list[tuple[keras.layers.Layer, list]] = (
            [] if layer.keepdims else [(keras.layers.Reshape((channels,), name=level.new_name(f"{name}_flatten")), [])]
        )
        return [_depthwise(layer, _mean_kernel(size, channels)), *flatten]
    padding = [same_padding(*axis) for axis in zip(size, layer.pool_size, layer.strides, strict=True)]
    if layer.padding == "same" and any(padding):
        raise Refused("it averages less values at the border")
    if len(set(layer.strides)) != 1:
        raise Refused(f"it has strides {layer.strides}, and a depthwise convolution one for both axes")
    return [_depthwise(layer, _mean_kernel(layer.pool_size, channels), strides=layer.strides)]


def _mean_kernel(size: Sequence[int], channels: int) -> np.ndarray:
    return np.full((*size, channels, 1), 1 / math.prod(size))


def _depthwise(layer, kernel: np.ndarray, bias: np.ndarray | None = None, strides=(1, 1)):
    """A valid depthwise convolution in the place of `layer`, and its weights."""
    convolution = keras.layers.DepthwiseConv2D(
        kernel.shape[:2], strides, use_bias=bias is not None, dtype=layer.dtype_policy, name=layer.name
    )
    return convolution, [kernel] if bias is None else [kernel, bias]
