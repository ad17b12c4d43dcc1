"""The weights of a linear layer after what scales and shifts its input or its output has been folded in."""

import keras
import numpy as np

from kzoo.surgery.affine import Affine, to_numpy

DENSE = (keras.layers.Dense,)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
LINEAR = DENSE + CONVOLUTIONS + TRANSPOSED + DEPTHWISE + SEPARABLE  # by exact type: a subclass may compute otherwise


def linear_reason(layer: keras.layers.Layer) -> str:
    """Why nothing folds into the kernel of `layer`, one of `LINEAR`; empty if it may."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return f"{layer.name} is channels first"
    if getattr(layer, "quantization_mode", None):
        return f"{layer.name} is quantized to {layer.quantization_mode}"
    if getattr(layer, "lora_enabled", False):
        return f"{layer.name} has LoRA weights that are not merged"
    return ""


def mixes(layer: keras.layers.Layer) -> bool:
    """Whether every output channel reads every input channel through one kernel."""
    return type(layer) in DENSE + CONVOLUTIONS + TRANSPOSED and getattr(layer, "groups", 1) == 1


def pads(layer: keras.layers.Layer, input_shape: tuple) -> bool:
    """Whether some output of `layer` reads less than the whole kernel, so that an offset of its input is not constant.

    Args:
        layer: one of `LINEAR`.
        input_shape: (batch, ..., channels); sizes may be None.
    """
    if type(layer) in DENSE:
        return False
    sizes = zip(input_shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    if type(layer) in TRANSPOSED:
        return any(kernel != 1 or stride != 1 for _, kernel, stride, _ in sizes)
    if layer.padding == "valid":
        return False
    return any(
        kernel > 1 and (layer.padding == "causal" or size is None or same_padding(size, kernel, stride, dilation) > 0)
        for size, kernel, stride, dilation in sizes
    )


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Zeros that padding="same" adds along one axis, at both ends together."""
    return max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)


def folded_weights(
    layer: keras.layers.Layer,
    before: Affine | None = None,
    after: Affine | None = None,
    constant: float | None = None,
) -> list[np.ndarray]:
    """Kernel(s) and bias of `layer` with its neighbours folded in, computed in float64.

    With W the kernel, `after(W before(x) + b)` is `W' x + b'` where `W' = s_after W s_before` and
    `b' = s_after (b + sum(W o_before)) + o_after`; the sum is over the kernel's places and input channels.

    Args:
        layer: one of `LINEAR`.
        before: scale and offset that its input goes through first.
        after: scale and offset that its output goes through, if its activation is linear.
        constant: if given, the sum of the first input channel and of one that `constant_channel` adds to the input,
            which is padded as the others are. Its kernel slice is `sum over channels(W o_before) / constant`
            and is added to the first one's too: together they shift by the offset inside, and by nothing outside.
    """
    separable, depthwise = type(layer) in SEPARABLE, type(layer) in DEPTHWISE
    kernel = to_numpy(layer.depthwise_kernel if separable else layer.kernel)  # (..., in / groups, out)
    if type(layer) in TRANSPOSED:
        kernel = kernel.swapaxes(-1, -2)
    pointwise = [to_numpy(layer.pointwise_kernel)] if separable else []
    outputs = np.prod(kernel.shape[-2:]) if depthwise else (pointwise or [kernel])[0].shape[-1]
    bias = to_numpy(layer.bias) if layer.use_bias else np.zeros(outputs)
    if before is not None:
        scaled, shifted = (_per_input(layer, kernel, values) for values in (before.scale, before.offset))
        if before.reorders:
            scaled[..., before.order, :] = scaled.copy()
        if constant is not None:
            added = shifted.sum(axis=-2, keepdims=True) / constant
            scaled[..., :1, :] += added
            scaled = np.concatenate([scaled, added], axis=-2)
        elif depthwise:
            bias = bias + shifted.sum(axis=tuple(range(kernel.ndim - 2))).reshape(-1)
        elif separable:
            sums = shifted.sum(axis=tuple(range(kernel.ndim - 2))).reshape(-1)
            bias = bias + sums @ pointwise[0].reshape(len(sums), -1)
        else:
            bias = bias + shifted.sum(axis=tuple(range(kernel.ndim - 1)))
        kernel = scaled
    if after is not None:
        if separable:
            pointwise[0] = pointwise[0] * after.scale
        else:
            kernel = kernel * (after.scale.reshape(kernel.shape[-2:]) if depthwise else after.scale)
        bias = bias * after.scale + after.offset
    if type(layer) in TRANSPOSED:
        kernel = kernel.swapaxes(-1, -2)
    return [kernel, *pointwise, bias]


def _per_input(layer: keras.layers.Layer, kernel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The kernel times one value for each input channel; groups of outputs read other inputs."""
    groups = getattr(layer, "groups", 1)
    values = values.reshape(groups, -1).T  # (in / groups, groups)
    return kernel * np.repeat(values, kernel.shape[-1] // groups, axis=1)


def with_folds(layer: keras.layers.Layer, weights: list[np.ndarray]) -> tuple[keras.layers.Layer, list[np.ndarray]]:
    """A layer like `layer` that has a bias, and the weights for it."""
    return type(layer).from_config({**layer.get_config(), "use_bias": True}), weights


def constant_channel(like: keras.layers.Layer, channels: int, constant: float, name: str):
    """A 1x1 convolution that copies the channels and adds one, `constant` minus the first; and its weights.

    The sum of the first and the last one is constant inside, and 0 where both are padded. A channel that holds the
    constant itself would need a kernel of zeros, for which 8-bit quantization finds no scale that its bias fits.

    Args:
        like: the convolution that will read it, which gives rank and precision.
    """
    kind = CONVOLUTIONS[like.rank - 1]
    kernel, bias = np.eye(channels, channels + 1), np.zeros(channels + 1)
    kernel[0, -1], bias[-1] = -1, constant
    layer = kind(channels + 1, 1, dtype=like.dtype_policy, name=name)
    return layer, [kernel.reshape((1,) * like.rank + kernel.shape), bias]
