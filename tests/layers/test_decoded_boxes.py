"""Boxes and scores against loops over places from the papers' equations."""

import math

import numpy as np
import pytest
from helpers import relative_error

from kzoo.errors import InvalidValueError
from kzoo.layers import CenternessScores, DecodeBoxes
from kzoo.places import Places

IMAGE, LEVELS = (40, 75), (3, 5)


def offsets_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    count = Places.of(IMAGE, kind, LEVELS).count
    offsets = rng.normal(0, 1, (2, 1, count, 4)).astype("float32")
    offsets[0, 0, :7, 2:] = 9  # sides that are limited
    return np.abs(offsets) if kind == "fcos" else offsets


def decode_by_hand(kind: str, offsets: np.ndarray) -> np.ndarray:
    places, boxes = Places.of(IMAGE, kind, LEVELS), np.zeros(offsets.shape)
    height, width = IMAGE
    for image in range(len(offsets)):
        for place, (left, top, right, bottom) in enumerate(places.anchors.astype("float64")):
            a, b, c, d = offsets[image, 0, place].astype("float64")
            x, y, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            if kind == "fcos":
                box = x - a * w, y - b * h, x + c * w, y + d * h
            else:
                limit = math.log(1000 / 16)
                w2, h2 = w * math.exp(min(c, limit)) / 2, h * math.exp(min(d, limit)) / 2
                box = x + a * w - w2, y + b * h - h2, x + a * w + w2, y + b * h + h2
            sides = (width, height, width, height)
            boxes[image, 0, place] = [min(max(value, 0), side) / side for value, side in zip(box, sides, strict=True)]
    return boxes


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
def test_decodes_by_hand(kind):
    offsets = offsets_of(kind)
    boxes = np.array(DecodeBoxes(IMAGE, kind, LEVELS)(offsets))
    expected = decode_by_hand(kind, offsets)
    assert 0.1 < np.mean((expected > 0) & (expected < 1)) < 0.9  # some are clipped
    assert np.abs(boxes - expected).max() < 1e-6


def test_sides_are_limited():
    """62.5 times the anchor's, here 2 pixels, in the middle of an image where nothing is clipped."""
    layer = DecodeBoxes((160, 160), "retinanet", (5,), anchor_size=1 / 16, scales=(1,), ratios=(1,))
    offsets = np.broadcast_to(np.array([0, 0, 9, 4.2], "float32"), (1, 1, 25, 4))
    box = np.array(layer(offsets))[0, 0, 12] * 160  # row 2, column 2
    np.testing.assert_allclose(box, [1.5, 1.5, 126.5, 126.5], atol=1e-3)


def test_scores_by_hand():
    rng = np.random.default_rng(2)
    logits, centerness = rng.normal(0, 4, (2, 1, 9, 3)), rng.normal(0, 4, (2, 1, 9, 1))
    expected = np.sqrt(1 / (1 + np.exp(-logits)) / (1 + np.exp(-centerness)))
    assert relative_error(CenternessScores()([logits, centerness]), expected) < 1e-6


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda: DecodeBoxes(IMAGE, "fcos", LEVELS),
            (2, 1, 7, 4),
            r"takes offsets \(batch, 1, 102, 4\) for the places",
        ),
        (CenternessScores, [(2, 1, 7, 3), (2, 1, 7, 2)], "takes a list, logits"),
        (CenternessScores, (2, 1, 7, 3), "takes a list, logits"),
    ],
)
def test_refuses(make, shape, message):
    with pytest.raises(InvalidValueError, match=message):
        make().build(shape)
