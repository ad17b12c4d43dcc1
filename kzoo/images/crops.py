"""Random parts of pictures, for training."""

import dataclasses
import math

import numpy as np
from PIL import Image

from kzoo.images.pixels import INTERPOLATION, Interpolation
from kzoo.images.reading import MODES, to_mode

ATTEMPTS = 10  # boxes among which the first one that fits is taken, as in torchvision and timm
RATIO = 4 / 3  # largest width over height; the smallest is 1 over it


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A box of a picture at any place, resized to an image; what is left out on the way is averaged.

    Attributes:
        area: the smallest and the largest share of the picture, with equal chances between.
        shape: (height, width, channels) of the image.
        interpolation: `"bilinear"` or `"bicubic"`.

    Call arguments:
        picture: of any mode and size.
        draw: number from which the box follows.

    Returns:
        Pixels of 0 to 255, uint8 `shape`.

    Reference: Szegedy et al. 2014, arXiv:1409.4842, section 6.

    Example:
        >>> RandomCrop((0.08, 1.0), (224, 224, 3))(Image.open("cat.jpg"), draw=7).shape
        (224, 224, 3)
    """

    area: tuple[float, float]
    shape: tuple[int, int, int]
    interpolation: Interpolation = "bilinear"

    def __call__(self, picture: Image.Image, draw: int) -> np.ndarray:
        picture = to_mode(picture, MODES[self.shape[2]])
        size, resampling = self.shape[1::-1], INTERPOLATION[self.interpolation]
        part = picture.crop(self.box(picture.size, draw))
        return np.asarray(part.resize(size, resampling)).reshape(self.shape)

    def box(self, size: tuple[int, int], draw: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in a picture of `size` (width, height); where none fits in ten attempts, the
        largest in the middle whose ratio is allowed."""
        rng = np.random.Generator(np.random.Philox(draw))
        width, height = size
        for _ in range(ATTEMPTS):
            pixels = width * height * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(-math.log(RATIO), math.log(RATIO)))
            columns, rows = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                left, top = int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1))
                return left, top, left + columns, top + rows
        columns, rows = min(width, round(height * RATIO)), min(height, round(width * RATIO))
        left, top = (width - columns) // 2, (height - rows) // 2
        return left, top, left + columns, top + rows
