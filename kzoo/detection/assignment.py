"""Which box each place of a detector is to find; with Keras' operations and static shapes.

boxes: (n, most, 4) in pixels, padded to the same number for every image; those whose class is below 0 are none.
places: of `kzoo` detectors, all images alike. Each gets the index of its box, or one of these:
"""

from keras import ops

from kzoo.detection.overlaps import areas, overlap

BACKGROUND = -1  # finds nothing
IGNORED = -2  # is not trained
ROUNDING = 1e-5  # share by which an overlap may miss the best one and still be as good
RANGE = 4, 8  # distances in strides that the points of a level are for (the first from 0, the last without end)


def match_anchors(boxes, classes, anchors, foreground=0.5, background=0.4, low_quality=True):
    """The box that each anchor overlaps most, if it does enough.

    Args:
        boxes: (n, most, 4).
        classes: (n, most), below 0 for no box.
        anchors: (places, 4).
        foreground: overlap from which on an anchor finds its box.
        background: overlap below which it finds nothing; between the two it is ignored.
        low_quality: whether the anchors that a box overlaps most find theirs, however little that is, if it is
            anything. Those within `ROUNDING` of the best count as equal, for a compiler to round as it likes.

    Returns:
        (n, places) int32: index of the box, `BACKGROUND` or `IGNORED`.

    Reference: Lin et al. 2017, arXiv:1708.02002, section 4; with `low_quality` as in Faster R-CNN, arXiv:1506.01497,
    section 3.1.2 (i).
    """
    real = classes >= 0
    shares = ops.where(real[..., None], overlap(boxes, anchors), -1)  # (n, most, places)
    best, found = ops.max(shares, axis=1), ops.cast(ops.argmax(shares, axis=1), "int32")
    matches = ops.where(best >= foreground, found, ops.where(best >= background, IGNORED, BACKGROUND))
    if low_quality:
        highest = ops.max(shares, axis=2, keepdims=True)
        chosen = (highest > 0) & (shares >= highest * (1 - ROUNDING))
        matches = ops.where(ops.any(chosen, axis=1), found, matches)
    return matches


def sample_centres(boxes, classes, points, strides, levels, radius=1.5):
    """The smallest box in whose middle each point lies and whose size is that of the point's level.

    A point must be inside the box, less than `radius` strides from its middle along both axes, and its farthest side
    must be as far as the level is for: `RANGE` strides.

    Args:
        boxes: (n, most, 4).
        classes: (n, most), below 0 for no box.
        points: (places, 2), x and y.
        strides: (places,) of the points' levels.
        levels: (places,) numbers of the levels, the finest first.
        radius: in strides.

    Returns:
        (n, places) int32: index of the box, or `BACKGROUND`.

    Reference: Tian et al. 2019, arXiv:1904.01355, section 3.2; the middle is of the version of 2020, arXiv:2006.09214,
    section 2.1.
    """
    corners, middles = boxes[:, None], (boxes[:, None, :, :2] + boxes[:, None, :, 2:]) / 2
    from_points = points[None, :, None, :]
    sides = ops.concatenate([from_points - corners[..., :2], corners[..., 2:] - from_points], axis=-1)
    farthest = ops.max(sides, axis=-1)  # (n, places, most)
    strides = strides[None, :, None]
    levels = levels[None, :, None]
    low = ops.where(levels == ops.min(levels), 0.0, RANGE[0] * strides)
    high = ops.where(levels == ops.max(levels), float("inf"), RANGE[1] * strides)
    fits = (
        (classes[:, None] >= 0)
        & (ops.max(ops.abs(from_points - middles), axis=-1) < radius * strides)
        & (ops.min(sides, axis=-1) > 0)
        & (farthest > low)
        & (farthest < high)
    )
    sizes = ops.where(fits, areas(boxes)[:, None], float("inf"))
    smallest = ops.cast(ops.argmin(sizes, axis=-1), "int32")
    return ops.where(ops.any(fits, axis=-1), smallest, BACKGROUND)


def matched(values, matches):
    """What belongs to the box of each place: `values` (n, most, ...) at `matches` (n, places), the first for none."""
    index = ops.maximum(matches, 0)
    shape = (*index.shape[1:], *(1,) * (len(values.shape) - 2))
    return ops.take_along_axis(values, ops.reshape(index, (-1, *shape)), axis=1)
