"""How a picture becomes the pixels of a model's input."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from PIL import Image

from kzoo.errors import InvalidValueError, check_choice
from kzoo.images.reading import MODES, read_picture, to_mode

Resize = Literal["stretch", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
RESIZE = get_args(Resize)
INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SMALLEST_CROP = 0.05
SLIMMEST = 50  # a picture is cropped to this many times its shorter side before it is enlarged


class PixelChanges(TypedDict, total=False):
    """What `Pixels.changed` takes, by name."""

    resize: Resize | None
    crop: float | None
    interpolation: Interpolation | None


@dataclass(frozen=True)
class Pixels:
    """One way from a picture to pixels, for training, validation, evaluation, prediction, calibration and cards.

    Resizing averages the pixels that it leaves out (antialiasing), whatever the interpolation.

    Attributes:
        resize: `"stretch"` shows the whole picture and changes its proportions; `"crop"` resizes the shorter side and
            keeps the centre, as timm and torchvision evaluate their models; `"pad"` shows the whole picture in its
            proportions, in the centre of black.
        crop: side of the centre crop over the shorter side of the resized picture, with `"crop"` alone: 0.875 resizes
            the shorter side to 256 pixels for a crop of 224.
        interpolation: `"bilinear"` or `"bicubic"`.

    Raises:
        InvalidValueError: a value that is not accepted.

    Example:
        >>> Pixels("crop", crop=0.95, interpolation="bicubic").read("elephant.jpg", (224, 224, 3)).shape
        (224, 224, 3)
    """

    resize: Resize = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self):
        check_choice("resize", self.resize, RESIZE)
        check_choice("interpolation", self.interpolation, INTERPOLATION)
        number = isinstance(self.crop, int | float) and not isinstance(self.crop, bool)
        if not (number and SMALLEST_CROP <= self.crop <= 1):
            raise InvalidValueError(f"crop={self.crop!r} must be a number from {SMALLEST_CROP} to 1")
        if self.resize != "crop" and self.crop != 1:
            raise InvalidValueError(f"crop={self.crop} goes with resize='crop', and resize is {self.resize!r}")

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "Pixels":
        """What `to_json` gave, from a file of anybody's.

        Raises:
            InvalidValueError: it is something else; the message names the field.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(value, dict):
            raise InvalidValueError(f"pixels must be an object with {', '.join(names)}, not {type(value).__name__}")
        for name in names:
            if name not in value:
                raise InvalidValueError(f"pixels have no {name}; they must have {', '.join(names)}")
        if unknown := sorted(str(name)[:40] for name in value.keys() - set(names)):
            raise InvalidValueError(f"pixels have {unknown[0]!r}, which is unknown; known are {', '.join(names)}")
        return cls(**value)

    @classmethod
    def default(cls, of_whole: bool = False) -> "Pixels":
        """What is done where nobody tells: the centre for a classifier, the whole, stretched, where the answer is of
        all of the picture."""
        return STRETCHED if of_whole else cls()

    def changed(
        self, resize: Resize | None = None, crop: float | None = None, interpolation: Interpolation | None = None
    ) -> "Pixels":
        """These pixels with what is not None in place of their own; a `crop` alone asks for `resize="crop"`.

        Raises:
            InvalidValueError: a value that is not accepted.
        """
        resize = resize or (self.resize if crop is None else "crop")
        kept = self.crop if resize == "crop" else 1.0
        return Pixels(resize, kept if crop is None else crop, interpolation or self.interpolation)

    def check_whole(self, what: str, says: str = "gives each pixel a class") -> None:
        """Raises `InvalidValueError` if part of a picture is not seen, of which `what` says something."""
        if self.resize == "crop":
            raise InvalidValueError(
                f"resize='crop' leaves out the borders of pictures, and {what} {says}; use 'stretch' or 'pad'"
            )

    def read(self, path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
        """Reads a file as pixels of 0 to 255, uint8 `shape` (height, width, channels), of 3 channels or 1 (grey).

        Raises:
            InvalidValueError: the file is no readable picture.
        """
        return self.apply(read_picture(path, shape[2]), shape)

    def apply(self, picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
        """Fits a picture of any mode and size to `shape` (height, width, channels): pixels of 0 to 255, uint8."""
        picture = to_mode(picture, MODES[shape[2]])
        return self._fit(picture, shape[:2], INTERPOLATION[self.interpolation], border=0).reshape(shape)

    def apply_to_mask(self, mask: np.ndarray, shape: tuple[int, int], border: int) -> np.ndarray:
        """Fits a mask (height, width) of uint8 to `shape` as `apply` fits its picture, by the nearest pixel.

        Args:
            mask: index of the class of each pixel.
            shape: (height, width).
            border: value of the pixels that `"pad"` adds.
        """
        return self._fit(Image.fromarray(mask), shape, Image.Resampling.NEAREST, border)

    def window(self, size: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of `shape` (height, width) that show a picture of `size` (width, height) and no border."""
        resized = self._resized(size, shape)
        left, top = (max(0, -start) for start in _corner(resized, shape))
        return slice(top, top + min(shape[0], resized[1])), slice(left, left + min(shape[1], resized[0]))

    def _fit(self, picture: Image.Image, shape: tuple[int, int], resampling: int, border: int) -> np.ndarray:
        height, width = shape
        if self.resize == "crop":  # a sliver would be enlarged far beyond what is kept of it
            short = SLIMMEST * min(picture.size)
            picture = _centre(picture, (min(picture.height, short), min(picture.width, short)))
        size = self._resized(picture.size, shape)
        if size != picture.size:
            picture = picture.resize(size, resampling)
        return np.asarray(_centre(picture, (height, width), border))

    def apply_to_boxes(self, boxes: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Boxes in pixels of a picture, relative to the image that `apply` makes of it.

        Args:
            boxes: (n, 4): left, top, right and bottom.
            size: (width, height) of the picture.
            shape: (height, width) of the image.

        Returns:
            float32 (n, 4), of 0 to 1 for boxes inside the picture.

        Raises:
            InvalidValueError: `"crop"`, which would cut boxes.
        """
        scale, shift = self._to_image(size, shape)
        return (np.asarray(boxes, "float64") * scale + shift).astype("float32")

    def boxes_in_picture(self, boxes: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Boxes relative to an image, in pixels of its picture and not outside of it: `apply_to_boxes` backwards."""
        scale, shift = self._to_image(size, shape)
        return np.clip((np.asarray(boxes, "float64") - shift) / scale, 0, [*size, *size]).astype("float32")

    def _to_image(self, size: tuple[int, int], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """What places in a picture are multiplied by, and what is added, to be relative to the image."""
        self.check_whole("boxes", "may lie there")
        rows, columns = self.window(size, shape)
        sides = np.array([columns.stop - columns.start, rows.stop - rows.start]) / shape[::-1]
        return np.tile(sides / size, 2), np.tile(np.array([columns.start, rows.start]) / shape[::-1], 2)

    def _resized(self, size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of a whole picture of `size` (width, height) before it is cropped or padded."""
        height, width = shape
        if self.resize == "stretch":
            return width, height
        if self.resize == "crop":
            height, width = math.floor(height / self.crop), math.floor(width / self.crop)
        taller = size[1] * width >= size[0] * height  # than what it must fit
        if taller == (self.resize == "crop"):
            return width, max(1, width * size[1] // size[0])
        return max(1, height * size[0] // size[1]), height


def _corner(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Left and top of the centre (height, width) of a picture (width, height); negative where that is smaller."""
    return round((size[0] - shape[1]) / 2), round((size[1] - shape[0]) / 2)


def _centre(picture: Image.Image, shape: tuple[int, int], border: int = 0) -> Image.Image:
    """The centre (height, width) of a picture, with a border where it is too small."""
    if picture.size == shape[::-1]:
        return picture
    left, top = _corner(picture.size, shape)
    centre = Image.new(picture.mode, shape[::-1], (border,) * len(picture.getbands()))
    centre.paste(picture, (-left, -top))
    return centre


STRETCHED = Pixels("stretch")  # what training does where nobody says otherwise
