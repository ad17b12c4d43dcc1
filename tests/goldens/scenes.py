"""Random scenes of boxes and raw outputs of detectors: the same here and beside torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CLASSES = 3
MOST = 14  # boxes of a scene, with padding
SCENES, BATCH = 200, 4
SIZES = (96, 64), (75, 107)  # height, width, in turn; the second one is padded to 96×128 inside a model
STRIDES = 8, 16, 32, 64, 128


@dataclass(frozen=True)
class Batch:
    """Scenes of one size.

    Attributes:
        size: height and width.
        boxes: float32 (n, MOST, 4) in pixels.
        classes: int32 (n, MOST), -1 for no box.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    classes: np.ndarray

    def truth(self) -> dict[str, np.ndarray]:
        """What a loss takes: boxes relative to the image."""
        return {"boxes": self.boxes / np.float32([*self.size[::-1], *self.size[::-1]]), "classes": self.classes}


def batches() -> Iterator[Batch]:
    """Fifty of four scenes: a scene in six has no box, in one batch none has any, half of the boxes lie on others."""
    rng = np.random.default_rng(18)
    for number in range(SCENES // BATCH):
        size = SIZES[number % 2]
        scenes = [_scene(rng, size, empty=number == 7 or rng.random() < 1 / 6) for _ in range(BATCH)]
        yield Batch(size, *(np.stack(arrays) for arrays in zip(*scenes, strict=True)))


def _scene(rng: np.random.Generator, size: tuple[int, int], empty: bool) -> tuple[np.ndarray, np.ndarray]:
    boxes, classes = np.zeros((MOST, 4), "float32"), np.full(MOST, -1, "int32")
    limit = np.array([size[1], size[0]])
    areas: list[float] = []
    count = 0 if empty else rng.integers(1, MOST + 1)
    while len(areas) < count:
        index = len(areas)
        sides = np.minimum(np.exp(rng.uniform(np.log(3), np.log(110), 2)), limit - 0.5)
        corner = rng.uniform(0, limit - sides)
        if index and rng.random() < 0.5:  # near another one, and nearly as large
            other = boxes[rng.integers(index)].astype(float)
            sides = (other[2:] - other[:2]) * rng.uniform(0.7, 1.3, 2)
            corner = other[:2] + sides * rng.uniform(-0.3, 0.3, 2)
        first, last = np.maximum(corner, 0), np.minimum(corner + sides, limit)
        boxes[index] = [*first, *np.maximum(last, first + 1)]
        classes[index] = rng.integers(CLASSES)
        area = float(np.prod(boxes[index, 2:] - boxes[index, :2]))
        # torchvision subtracts areas from 1e8 to find the smallest, which leaves 8 px² of float32
        if min((abs(area - other) for other in areas), default=99) > 16:
            areas.append(area)
    boxes[len(areas) :], classes[len(areas) :] = 0, -1
    return boxes, classes


def outputs(name: str, number: int, count: int, places: int, shift: float = -2.0) -> dict[str, np.ndarray]:
    """Raw outputs of a detector, `"fcos"` or `"retinanet"`, for the batch of a number with `count` scenes."""
    rng = np.random.default_rng([number, len(name)])

    def normal(channels: int, scale: float, middle: float = 0.0) -> np.ndarray:
        return rng.normal(middle, scale, (count, places, channels)).astype("float32")

    logits, offsets = normal(CLASSES, 2.0, shift), normal(4, 0.5)
    if name == "retinanet":
        return {"logits": logits, "offsets": offsets}
    return {"logits": logits, "offsets": np.maximum(offsets * 4 + 1, 0), "centerness": normal(1, 2.0)}
