"""Where a detector predicts boxes: levels of places with anchors, as one value that all who need it share.

place: a position of a level's grid, and one of the anchors that stand there. Places are in the order of the model's
outputs: levels from the finest, in each rows, then columns, then anchors.
anchor: a box (left, top, right, bottom) in pixels of the model's image. That of a point (FCOS, arXiv:1904.01355) is a
square as wide as the level's stride around it.

>>> places = Places.of((96, 128), "retinanet", levels=(3, 4, 5))
>>> places.count, places.anchors.shape, [level.grid for level in places.levels]
(2268, (2268, 4), [(12, 16), (6, 8), (3, 4)])
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np

from kzoo.errors import InvalidValueError, check_choice

PADDED_TO = 32  # torchvision pads images to multiples of this many pixels at the right and at the bottom
KINDS = ("fcos", "retinanet")
# Lin et al. 2017 (arXiv:1708.02002, section 4): anchors of 32² to 512² pixels on P3 to P7, three sizes an octave
ANCHOR_SIZE = 4  # strides: 32 pixels at stride 8
SCALES = (2 ** (0 / 3), 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)  # height over width


@dataclasses.dataclass(frozen=True)
class Level:
    """The places of one map.

    Attributes:
        stride: pixels of the image for one of the map, 2 to the power of the level.
        grid: rows and columns of the map.
        spacing: pixels between rows and between columns of places. They are the padded image's sides divided by those
            of the grid and rounded down, as torchvision computes them, so they are less than the stride where a
            coarse grid is rounded up: 61 of 64 for 13 rows of 800 pixels.
        shapes: the anchors (left, top, right, bottom) of the first place, in pixels.
    """

    stride: int
    grid: tuple[int, int]
    spacing: tuple[int, int]
    shapes: tuple[tuple[float, float, float, float], ...]

    @property
    def count(self) -> int:
        """The number of its places."""
        return self.grid[0] * self.grid[1] * len(self.shapes)

    @cached_property
    def anchors(self) -> np.ndarray:
        """The anchor of every place in pixels, float32 (count, 4)."""
        rows, columns = (np.arange(n) * step for n, step in zip(self.grid, self.spacing, strict=True))
        y, x = np.meshgrid(rows, columns, indexing="ij")
        shifts = np.stack([x, y, x, y], axis=-1).astype("float32")  # (rows, columns, 4)
        return (shifts[:, :, None] + np.array(self.shapes, "float32")).reshape(-1, 4)


@dataclasses.dataclass(frozen=True)
class Places:
    """All places of a detector on images of one size.

    Attributes:
        image: height and width of the model's image in pixels, without padding. Boxes are relative to it.
        levels: the levels, finest first.
    """

    image: tuple[int, int]
    levels: tuple[Level, ...]

    @classmethod
    def of(
        cls,
        image: Sequence[int],
        kind: str,
        levels: Sequence[int],
        *,
        anchor_size: float = ANCHOR_SIZE,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[float] = RATIOS,
    ) -> "Places":
        """The places of a kind of detector on images of one size.

        Args:
            image: height and width in pixels; padded to multiples of 32 inside the model.
            kind: `"fcos"`: one point at each position, or `"retinanet"`: anchors of all `scales` and `ratios`.
            levels: numbers of the maps, finest first; level n has stride 2^n.
            anchor_size: side of the anchors in strides, before scales and ratios.
            scales: of the anchors at one position. Sides are rounded down to whole pixels as in torchvision
                (32, 40, 50), which detectron2 does not do.
            ratios: height over width of the anchors; the area stays.

        Raises:
            InvalidValueError: another kind, no level, or a size that is not positive.
        """
        check_choice("kind", kind, KINDS)
        if not _is_list(image, lambda size: _is_whole(size, 1)) or len(image) != 2:
            raise InvalidValueError(
                f"image={image!r} must be the height and width in pixels; a detector needs both, for its places"
            )
        known = _is_list(levels, lambda level: _is_whole(level, 0) and level < 20)
        if not known or list(levels) != sorted(set(levels)):
            raise InvalidValueError(f"levels={levels!r} must be numbers of maps, finest first, such as (3, 4, 5)")
        if not _is_size(anchor_size):
            raise InvalidValueError(f"anchor_size={anchor_size!r} must be a number of strides above 0, such as 4")
        for name, values in (("scales", scales), ("ratios", ratios)):
            if not _is_list(values, _is_size):
                raise InvalidValueError(f"{name}={values!r} must be numbers above 0, such as (0.5, 1, 2)")
        padded = tuple(-(-int(size) // PADDED_TO) * PADDED_TO for size in image)
        return cls(
            (int(image[0]), int(image[1])),
            tuple(
                _level(padded, 2**level, _point(2**level))
                if kind == "fcos"
                else _level(padded, 2**level, _anchors(2**level, anchor_size, scales, ratios))
                for level in levels
            ),
        )

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the image with its padding, in pixels."""
        height, width = (-(-size // PADDED_TO) * PADDED_TO for size in self.image)
        return height, width

    @property
    def count(self) -> int:
        """The number of places."""
        return sum(self.level_sizes)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """The number of places of each level."""
        return tuple(level.count for level in self.levels)

    @cached_property
    def anchors(self) -> np.ndarray:
        """The anchor of every place in pixels, float32 (count, 4)."""
        return np.concatenate([level.anchors for level in self.levels])

    @cached_property
    def centres(self) -> np.ndarray:
        """The centre (x, y) of every anchor in pixels, float32 (count, 2)."""
        return (self.anchors[:, :2] + self.anchors[:, 2:]) / 2

    @cached_property
    def strides(self) -> np.ndarray:
        """The stride of every place in pixels, float32 (count,)."""
        return np.repeat([level.stride for level in self.levels], self.level_sizes).astype("float32")

    @cached_property
    def level_of(self) -> np.ndarray:
        """The position in `levels` of every place, int32 (count,)."""
        return np.repeat(range(len(self.levels)), self.level_sizes).astype("int32")

    @property
    def scale(self) -> np.ndarray:
        """What relative boxes are multiplied by to be pixels: width, height, width, height."""
        height, width = self.image
        return np.array([width, height, width, height], "float32")


def _is_list(values: object, accepts: Callable[[Any], bool]) -> bool:
    """Whether it is a tuple or list of such values, one at least."""
    return isinstance(values, (tuple, list)) and bool(values) and all(map(accepts, values))


def _is_whole(value: object, at_least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= at_least


def _is_size(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _level(padded: tuple[int, ...], stride: int, shapes: tuple) -> Level:
    rows, columns = (-(-size // stride) for size in padded)
    return Level(stride, (rows, columns), (padded[0] // rows, padded[1] // columns), shapes)


def _point(stride: int) -> tuple[tuple[float, float, float, float], ...]:
    side = stride / 2
    return ((-side, -side, side, side),)


def _anchors(stride: int, anchor_size: float, scales: Sequence[float], ratios: Sequence[float]) -> tuple:
    """Anchors around zero, rounded to whole pixels as in torchvision; ratios outside, scales inside."""
    sizes = np.array([int(stride * anchor_size * scale) for scale in scales], "float32")
    heights = np.sqrt(np.array(ratios, "float32"))
    widths = (1 / heights)[:, None] * sizes
    heights = heights[:, None] * sizes
    boxes = np.stack([-widths, -heights, widths, heights], axis=-1).reshape(-1, 4) / 2
    return tuple(tuple(float(side) for side in box) for box in np.round(boxes))
