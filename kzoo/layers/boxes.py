"""From what a detector's heads give to boxes and scores, with ops that edge delegates run."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kzoo.detection.coding import decode_deltas
from kzoo.errors import InvalidValueError
from kzoo.layers.checks import pair
from kzoo.places import ANCHOR_SIZE, RATIOS, SCALES, Places


@keras.saving.register_keras_serializable(package="kzoo")
class DecodeBoxes(keras.layers.Layer):
    """Boxes (left, top, right, bottom), relative to the image and clipped to it, from a box head's offsets.

    For `"fcos"` offsets are the distances of the four sides from the point in strides (arXiv:1904.01355, equation 1,
    divided by the stride as in torchvision). For `"retinanet"` they are those of R-CNN (arXiv:1311.2524, appendix C)
    with weights of one: the centre moves by (dx · width, dy · height) of the anchor, and its sides are multiplied by
    exp(dw) and exp(dh), of which log(1000 / 16) counts at most. It computes in the precision of its dtype; half
    precision knows no pixels of large images, so pass `dtype="float32"` under mixed precision.

    Args:
        image: height and width of the image in pixels, without padding.
        kind: `"fcos"` or `"retinanet"`.
        levels: numbers of the maps, finest first; level n has stride 2^n.
        anchor_size: side of an anchor in strides. Points have none.
        scales: of the anchors at one position.
        ratios: height over width of the anchors.

    Input shape: (batch, 1, places, 4), places in the order of `kzoo.places`. Output shape: the same.

    Raises:
        InvalidValueError: an argument that `Places.of` refuses, or another number of places.

    Example:
        >>> DecodeBoxes((64, 96), "fcos", levels=(4, 5))(keras.ops.ones((2, 1, 30, 4))).shape
        TensorShape([2, 1, 30, 4])
    """

    def __init__(
        self,
        image: tuple[int, int],
        kind: str = "fcos",
        levels: Sequence[int] = (3, 4, 5, 6, 7),
        anchor_size: float = ANCHOR_SIZE,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[float] = RATIOS,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image = pair("image", image)
        self.kind = kind
        self.places = Places.of(
            self.image, kind, levels, anchor_size=anchor_size, scales=scales, ratios=ratios
        )  # which checks them
        self.levels = tuple(map(int, levels))
        self.anchor_size = float(anchor_size)
        self.scales, self.ratios = tuple(map(float, scales)), tuple(map(float, ratios))

    def build(self, input_shape):
        self.compute_output_shape(input_shape)  # for its checks

    def call(self, offsets):
        anchors = self.places.anchors[None, None] / self.places.scale
        if self.kind == "fcos":  # a stride is another share of the width than of the height
            first, last = np.split(anchors, 2, axis=-1)  # left, top and right, bottom
            centre, size = np.tile((first + last) / 2, 2), last - first
            away = np.concatenate([-size, size], axis=-1)
            boxes = offsets * ops.convert_to_tensor(away, offsets.dtype) + ops.convert_to_tensor(centre, offsets.dtype)
        else:
            boxes = decode_deltas(offsets, ops.convert_to_tensor(anchors, offsets.dtype))
        return ops.minimum(ops.maximum(boxes, 0.0), 1.0)

    def compute_output_shape(self, input_shape):
        if tuple(input_shape[1:]) != (1, self.places.count, 4):
            raise InvalidValueError(
                f"DecodeBoxes {self.name!r} takes offsets (batch, 1, {self.places.count}, 4) for the places of "
                f"{self.image[0]}×{self.image[1]} pixels, got shape {tuple(input_shape)}"
            )
        return tuple(input_shape)

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds are counted: two for a value at most."""
        return 0

    def get_config(self):
        return super().get_config() | {
            "image": self.image,
            "kind": self.kind,
            "levels": self.levels,
            "anchor_size": self.anchor_size,
            "scales": self.scales,
            "ratios": self.ratios,
        }


@keras.saving.register_keras_serializable(package="kzoo")
class CenternessScores(keras.layers.Layer):
    """`√(σ(logits) · σ(centerness))`: the scores of FCOS, which rank boxes far from a centre lower.

    The product is that of arXiv:1904.01355, section 3.3; the square root is of arXiv:2006.09214 and torchvision. It
    computes in the precision of its dtype; pass `dtype="float32"` under mixed precision.

    Input shape: a list, the logits (..., classes) and the centerness (..., 1). Output shape: the logits'.

    Raises:
        InvalidValueError: an input that is no list of two such tensors.

    Example:
        >>> CenternessScores()([keras.ops.zeros((2, 1, 30, 5)), keras.ops.zeros((2, 1, 30, 1))]).shape
        TensorShape([2, 1, 30, 5])
    """

    def __init__(self, **kwargs):  # without this signature Keras adds arguments of its own to the config
        super().__init__(**kwargs)

    def build(self, input_shape):
        self.compute_output_shape(input_shape)  # for its checks

    def call(self, inputs):
        logits, centerness = inputs
        return ops.sqrt(ops.sigmoid(logits) * ops.sigmoid(centerness))

    def compute_output_shape(self, input_shape):
        shapes = [tuple(shape) if isinstance(shape, (tuple, list)) else () for shape in input_shape]
        if len(shapes) != 2 or not shapes[0] or (*shapes[0][:-1], 1) != shapes[1]:
            raise InvalidValueError(
                f"CenternessScores {self.name!r} takes a list, logits (..., classes) and centerness (..., 1), got "
                f"shape {tuple(input_shape)}"
            )
        return shapes[0]

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds are counted: one for a score."""
        return 0
