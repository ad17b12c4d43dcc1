"""Reading a picture from its file, at its own size."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kzoo.errors import InvalidValueError
from kzoo.images.finding import FORMATS

MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels


def read_picture(path: str | Path, channels: int) -> Image.Image:
    """Reads and turns a picture, and leaves its size as it is.

    Args:
        path: a PNG, JPEG, WebP or BMP file. What a camera wrote about its rotation is followed, transparency becomes
            white, and of a moving picture the first one is taken.
        channels: 3 for RGB or 1 for grey.

    Raises:
        InvalidValueError: the file is no readable image.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            return _convert(ImageOps.exif_transpose(file), MODES[channels])
    except Exception as error:  # each format has its own errors for broken files
        raise InvalidValueError(f"{path} cannot be read as an image ({error})") from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
