"""What torchvision's detectors did with the scenes: places, matches, losses and detections of detection.npz."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from goldens.scenes import SIZES, STRIDES

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "detection.npz")


class Places(NamedTuple):
    """Of a detector for images of a size, as torchvision has them."""

    image_size: tuple[int, int]
    anchors: np.ndarray
    levels: np.ndarray

    @property
    def points(self) -> np.ndarray:
        return (self.anchors[:, :2] + self.anchors[:, 2:]) / 2

    @property
    def strides(self) -> np.ndarray:
        return self.anchors[:, 2] - self.anchors[:, 0]


def geometry(detector: str, size: tuple[int, int]) -> Places:
    """The places of a detector for images of a size."""
    number = SIZES.index(size)
    return Places(size, GOLDENS[f"{detector}_anchors_{number}"], GOLDENS[f"{detector}_levels_{number}"])


def strides(detector: str, size: tuple[int, int]) -> np.ndarray:
    """Of the level of each place."""
    return np.float32(STRIDES)[geometry(detector, size).levels]


def matches_of_batches(name: str, detector: str):
    """The matches of each batch, (4, places)."""
    rest = GOLDENS[f"{name}_matches"]
    while len(rest):
        for size in SIZES:
            count = 4 * len(geometry(detector, size).anchors)
            yield rest[:count].reshape(4, -1)
            rest = rest[count:]
