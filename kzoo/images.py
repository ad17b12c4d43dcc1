"""Pictures on the disk: finding them, and reading them as models were evaluated on them."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kzoo.errors import InvalidValueError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels
SLIMMEST = 50  # a picture is cropped to this many times its shorter side before it is enlarged


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, and the PNG, JPEG, WebP and BMP files in folders and their folders, sorted.

    Raises:
        InvalidValueError: a path that does not exist, or a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise InvalidValueError(f"no image in {path}; its files must end in {', '.join(SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InvalidValueError(f"no file or folder at {path}")
    return list(dict.fromkeys(found))


def read_image(
    path: str | Path, shape: tuple[int, int, int], crop: float = 1.0, interpolation: str = "bilinear"
) -> np.ndarray:
    """Reads, turns, resizes and crops a picture as timm and torchvision evaluate their models.

    Args:
        path: a PNG, JPEG, WebP or BMP file. What a camera wrote about its rotation is followed, transparency becomes
            white, and of a moving picture the first one is taken.
        shape: (height, width, channels) to return, with 3 channels for RGB or 1 for grey.
        crop: side of the centre crop over the shorter side of the resized image: 0.875 resizes the shorter side to
            256 pixels for a crop of 224.
        interpolation: `"bilinear"` or `"bicubic"`; both average the pixels that they leave out.

    Returns:
        Pixels of 0 to 255, uint8.

    Raises:
        InvalidValueError: the file is no readable image.
    """
    image = read_picture(path, shape[2])
    short = SLIMMEST * min(image.size)
    image = _centre(image, min(image.width, short), min(image.height, short))
    height, width = (math.floor(size / crop) for size in shape[:2])
    if image.height * width >= image.width * height:
        size = (width, width * image.height // image.width)
    else:
        size = (height * image.width // image.height, height)
    image = _centre(image.resize(size, INTERPOLATION[interpolation]), shape[1], shape[0])
    return np.asarray(image).reshape(shape)


def read_picture(path: str | Path, channels: int) -> Image.Image:
    """Reads and turns a picture as `read_image` does, and leaves its size as it is.

    Args:
        path: a PNG, JPEG, WebP or BMP file.
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


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
