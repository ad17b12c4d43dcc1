"""What torchvision's detectors did with the scenes: matches, losses and detections of boxes.npz."""

from pathlib import Path

import numpy as np
from goldens.scenes import SIZES

from kzoo.places import Places

LEVELS = 3, 4, 5, 6, 7
GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "boxes.npz")


def places_of(detector: str, size: tuple[int, int]) -> Places:
    """The places of a detector for images of a size."""
    return Places.of(size, detector, levels=LEVELS)


def matches_of_batches(name: str, detector: str):
    """The matches of each batch, (4, places)."""
    rest = GOLDENS[f"{name}_matches"]
    while len(rest):
        for size in SIZES:
            count = 4 * places_of(detector, size).count
            yield rest[:count].reshape(4, -1)
            rest = rest[count:]
