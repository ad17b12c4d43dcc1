"""Which places of its input a layer reads, so that what a place of its output is worth is handed down to them.

A relevance is an array (n, places) of a tensor, places counted row by row; tokens (n, places, channels) have it too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.flatten import Node
from kzoo.layers import MatchSize, MergePixels, SideOutput, Subsample

Size = tuple[int, int]
OF_THE_FIRST = (MatchSize, SideOutput)  # what else they are given is not in their output
ENLARGING = {"Resize", "Resizing", "UpSampling2D", "Upsample"}
MOVING = {"Permute", "Transpose", "Flip", "Roll", "Rot90", "MultiHeadAttention", "GroupedQueryAttention", "Attention"}


@dataclass(frozen=True)
class Reads:
    """The places that a place i of an output reads along an axis: `stride · i - before + dilation · j`, j < kernel.

    Attributes:
        kernel: rows and columns.
        strides: the same.
        dilation: the same.
        before: how far the first window reaches over the edge; None: as `padding="same"` lays it.
    """

    kernel: Size
    strides: Size = (1, 1)
    dilation: Size = (1, 1)
    before: Size | None = None

    def shares(self, axis: int, outputs: int, inputs: int, padding: tuple[int, int] = (0, 0)) -> np.ndarray:
        """(outputs, inputs) along one axis: equal shares of what each output reads, none of what is padding."""
        kernel, stride, dilation = self.kernel[axis], self.strides[axis], self.dilation[axis]
        around = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - inputs, 0)
        before = around // 2 if self.before is None else self.before[axis]
        read = np.zeros((outputs, inputs))
        for index in range(outputs):
            at = index * stride - before + dilation * np.arange(kernel)
            read[index, at[(at >= padding[0]) & (at < inputs - padding[1])]] = 1
        return read / np.maximum(read.sum(axis=1, keepdims=True), 1)

    def hand_down(
        self, relevance: np.ndarray, outputs: Size, inputs: Size, padding: tuple[Size, Size] = ((0, 0), (0, 0))
    ) -> np.ndarray:
        """The relevance of an input of this size, from that of an output; what reads padding alone gives none."""
        rows, columns = (self.shares(axis, outputs[axis], inputs[axis], padding[axis]) for axis in (0, 1))
        found = np.einsum("nij,ih,jw->nhw", relevance.reshape(-1, *outputs), rows, columns, optimize=True)
        return found.reshape(len(found), -1)


def handed(
    node: Node, relevance: np.ndarray, output: tuple[int, ...], inputs: Sequence[tuple[int, ...]]
) -> dict[int, np.ndarray]:
    """The relevance of the inputs of a call, from that of its output.

    Convolutions and pooling, with strides or without, and patch merging hand it in equal shares to the places that
    they read, of which padding is none; enlarging to the nearest place; a sum, a product or a concatenation in equal
    shares to each of its maps. Every other layer keeps it where it is.

    Args:
        node: the call, not one of attention.
        relevance: (n, places).
        output: shape of its output.
        inputs: shapes of what it is called on.

    Returns:
        Index of an input -> its relevance, of those that have places.

    Raises:
        InvalidValueError: a layer that moves places, or of which nobody knows what it reads.
    """
    operation = node.operation
    kind = type(operation).__name__
    for layers, reads in READS.items():
        if isinstance(operation, layers):
            before = node.sources[0].operation
            padding = before.padding if isinstance(before, keras.layers.ZeroPadding2D) else ((0, 0), (0, 0))
            return {0: reads(operation).hand_down(relevance, _size(output), _size(inputs[0]), padding)}
    like = [index for index, shape in enumerate(inputs) if places(shape) == relevance.shape[1]]
    if isinstance(operation, OF_THE_FIRST):
        like = [index for index in like if index == 0]
    if like and kind not in MOVING:
        return {index: relevance / len(like) for index in like}
    if kind in ENLARGING:
        return {0: _to_nearest(relevance, _size(output), _size(inputs[0]))}
    raise InvalidValueError(
        f"rollout cannot tell which places {node.path} ({kind}) reads; it follows convolutions, pooling, patch "
        "merging, padding, enlarging and what works place by place"
    )


def places(shape: tuple[int, ...]) -> int:
    """How many places a map or tokens have; 0 of another tensor."""
    return int(np.prod(shape[1:-1])) if len(shape) in (3, 4) else 0


def _size(shape: tuple[int, ...]) -> Size:
    return shape[1], shape[2]


def _to_nearest(relevance: np.ndarray, outputs: Size, inputs: Size) -> np.ndarray:
    at = [((np.arange(out) + 0.5) / out * length).astype(int) for out, length in zip(outputs, inputs, strict=True)]
    found = np.zeros((len(relevance), inputs[0] * inputs[1]))
    np.add.at(found.T, (at[0][:, None] * inputs[1] + at[1]).reshape(-1), relevance.T)
    return found


def _of_convolution(layer: Any) -> Reads:
    before = None if layer.padding == "same" else (0, 0)
    return Reads(_pair(layer.kernel_size), _pair(layer.strides), _pair(layer.dilation_rate), before)


def _of_pooling(layer: Any) -> Reads:
    before = None if layer.padding == "same" else (0, 0)
    return Reads(_pair(layer.pool_size), _pair(layer.strides), before=before)


def _of_padding(layer: Any) -> Reads:
    (top, _), (left, _) = layer.padding
    return Reads((1, 1), before=(top, left))


def _of_cropping(layer: Any) -> Reads:
    (top, _), (left, _) = layer.cropping
    return Reads((1, 1), before=(-top, -left))


def _pair(value: int | Sequence[int]) -> Size:
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows, columns


READS: dict[tuple[type, ...], Callable[[Any], Reads]] = {
    (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D): _of_convolution,
    (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D): _of_pooling,
    (keras.layers.ZeroPadding2D,): _of_padding,
    (keras.layers.Cropping2D,): _of_cropping,
    (MergePixels,): lambda layer: Reads((2, 2), (2, 2), before=(0, 0)),
    (Subsample,): lambda layer: Reads((1, 1), _pair(layer.strides), before=(0, 0)),
}
