"""Boxes as what a network predicts at its places, and back; with Keras' operations, in pixels.

RetinaNet predicts how an anchor moves and grows, FCOS how far the sides are from a point.
"""

import math
from collections.abc import Mapping
from typing import Any

from keras import ops

from kzoo.places import Places

LARGEST_GROWTH = math.log(1000 / 16)  # that is decoded: a side of 16 becomes one of 1000, as in Detectron


def _centres_and_sides(boxes):
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode_deltas(boxes, anchors):
    """How anchors move and grow to become boxes.

    Args:
        boxes: (..., 4), with sides above 0.
        anchors: (..., 4), of a shape that goes with it.

    Returns:
        (..., 4): moves right and down in sides of the anchor, logarithms of the growth of width and height.

    Reference: Girshick et al. 2014, arXiv:1311.2524, equations 6 to 9.
    """
    centres, sides = _centres_and_sides(boxes)
    from_centres, from_sides = _centres_and_sides(anchors)
    return ops.concatenate([(centres - from_centres) / from_sides, ops.log(sides / from_sides)], axis=-1)


def decode_deltas(deltas, anchors):
    """Boxes (..., 4) that anchors become by `deltas`, see `encode_deltas`; growth ends at `LARGEST_GROWTH`."""
    from_centres, from_sides = _centres_and_sides(anchors)
    centres = from_centres + deltas[..., :2] * from_sides
    half = ops.exp(ops.minimum(deltas[..., 2:], LARGEST_GROWTH)) * from_sides / 2
    return ops.concatenate([centres - half, centres + half], axis=-1)


def encode_distances(boxes, points, strides):
    """How far the sides of boxes are from points.

    Args:
        boxes: (..., 4).
        points: (..., 2), x and y.
        strides: (...), what distances are measured in.

    Returns:
        (..., 4): to the left, top, right and bottom; negative for a side that the point is beyond.

    Reference: Tian et al. 2019, arXiv:1904.01355, equation 1.
    """
    distances = ops.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)
    return distances / strides[..., None]


def decode_distances(distances, points, strides):
    """Boxes (..., 4) whose sides are so far from points, see `encode_distances`."""
    lengths = distances * strides[..., None]
    return ops.concatenate([points - lengths[..., :2], points + lengths[..., 2:]], axis=-1)


def centerness(distances):
    """How near points are to the middle of their boxes: 1 in the middle, 0 at a side.

    Args:
        distances: (..., 4) of the sides from the points, in any unit, above 0; what is not gives 0.

    Returns:
        (...).

    Reference: Tian et al. 2019, arXiv:1904.01355, equation 3.
    """
    first, last = distances[..., :2], distances[..., 2:]
    inside = ops.minimum(first, last) > 0
    share = ops.where(inside, ops.minimum(first, last) / ops.where(inside, ops.maximum(first, last), 1), 0)
    return ops.sqrt(share[..., 0] * share[..., 1])


def decode_outputs(outputs: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """Boxes and scores of what training takes, as the finished detector gives them.

    Args:
        outputs: `logits` (n, places, classes), `offsets` (n, places, 4) and, of FCOS, `centerness` (n, places, 1).
        places: of the detector.

    Returns:
        `boxes` (n, places, 4), relative to the image, and `scores` (n, places, classes), float32.
    """
    offsets, logits = (ops.cast(outputs[name], "float32") for name in ("offsets", "logits"))
    if "centerness" in outputs:
        boxes = decode_distances(offsets, ops.convert_to_tensor(places.centres), ops.convert_to_tensor(places.strides))
        scores = ops.sqrt(ops.sigmoid(logits) * ops.sigmoid(ops.cast(outputs["centerness"], "float32")))
    else:
        boxes, scores = decode_deltas(offsets, ops.convert_to_tensor(places.anchors)), ops.sigmoid(logits)
    return {"boxes": ops.clip(boxes / places.scale, 0.0, 1.0), "scores": scores}
