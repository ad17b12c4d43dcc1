"""How much boxes (left, top, right, bottom) overlap; with Keras' operations, for tensors of any leading axes."""

from keras import ops

TINY = 1e-7  # px², added to what is divided by, as torchvision does


def areas(boxes):
    """Areas (...) of boxes (..., 4); nothing of one that is turned inside out."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def _shared(boxes, others):
    """Area that boxes and others, of shapes that go together, have in common."""
    corners = ops.maximum(boxes[..., :2], others[..., :2]), ops.minimum(boxes[..., 2:], others[..., 2:])
    return areas(ops.concatenate(corners, axis=-1))


def overlap(boxes, others):
    """Intersection over union of each box with each other one.

    Args:
        boxes: (..., n, 4).
        others: (..., m, 4).

    Returns:
        (..., n, m), from 0 to 1; 0 where both have no area.

    Example:
        >>> overlap(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 2], [1, 0, 3, 2]]))
        [[1.0, 0.333]]
    """
    shared = _shared(boxes[..., :, None, :], others[..., None, :, :])
    both = areas(boxes)[..., :, None] + areas(others)[..., None, :] - shared
    return ops.where(both > 0, shared / ops.where(both > 0, both, 1), 0)


def generalized_overlap(boxes, others):
    """Generalised intersection over union of each box with the other one at its place.

    What the two leave empty of the smallest box around them is taken away, so that boxes far apart get a gradient too.

    Args:
        boxes: (..., 4), in pixels: `TINY` is small beside a pixel.
        others: (..., 4).

    Returns:
        (...), from -1 to 1.

    Reference: Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1.
    """
    shared = _shared(boxes, others)
    both = areas(boxes) + areas(others) - shared
    around = ops.minimum(boxes[..., :2], others[..., :2]), ops.maximum(boxes[..., 2:], others[..., 2:])
    whole = areas(ops.concatenate(around, axis=-1))
    return shared / (both + TINY) - (whole - both) / (whole + TINY)
