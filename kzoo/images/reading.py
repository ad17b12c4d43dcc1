"""Reading a picture from its file, at its own size.

The rules, for every format alike: what a camera wrote about its rotation is followed (EXIF orientation 1 to 8),
transparency becomes white, of a moving picture the first one is taken, 16 bits become the 8 upper ones, and nothing is
decoded whose header declares more than `MOST_PIXELS` pixels.
"""

import contextlib
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from kzoo.errors import InvalidValueError
from kzoo.images.finding import FORMATS

MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels
MOST_PIXELS = 100_000_000  # of 4 bytes at most, in a few copies
STRIP_PIXELS = 2**20  # that are laid over white at once
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of grey with more than 8 bits
READABLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", *DEEP)
DARK = 2**14  # values of 16 bits that stay below it use a quarter of the range, or less

_log = logging.getLogger("kzoo")
_told_of_dark = threading.Event()

# EXIF orientation -> what turns the picture upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # of them those that change width for height


def read_picture(source: str | Path | bytes, channels: int, name: str | None = None) -> Image.Image:
    """Reads and turns a picture, and leaves its size as it is.

    Args:
        source: a file of one of `kzoo.images.FORMATS`, or its content.
        channels: 3 for RGB or 1 for grey.
        name: name of it in errors; default: its path.

    Raises:
        InvalidValueError: the file is no readable picture, or one too large.
    """
    name = name or _name(source)
    with _readable(name):
        picture, deep = _decode(source, name)
        return to_mode(picture, MODES[channels], deep, name)


def read_numbers(source: str | Path | bytes, name: str | None = None) -> Image.Image:
    """Reads and turns a picture in its own mode: a mask, whose numbers must stay as they are.

    Args:
        source: as in `read_picture`.
        name: as in `read_picture`.

    Raises:
        InvalidValueError: the file is no readable picture, or one too large.
    """
    name = name or _name(source)
    with _readable(name, "a mask"):
        return _decode(source, name)[0]


def check_header(path: str | Path) -> None:
    """Reads the header of a picture and none of its pixels.

    Raises:
        InvalidValueError: what `read_picture` would say of the header.
    """
    with _readable(str(path)), Image.open(path, formats=FORMATS) as file:
        _check(file, str(path))


def read_size(source: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """Width and height of the upright picture, from the header of its file and none of its pixels.

    Args:
        source: as in `read_picture`.
        name: as in `read_picture`.

    Raises:
        InvalidValueError: what `read_picture` would say of the header.
    """
    name = name or _name(source)
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with _readable(name), Image.open(opened, formats=FORMATS) as file:
        _check(file, name)
        return file.size[::-1] if _orientation(file) in SIDEWAYS else file.size


def _name(source: str | Path | bytes) -> str:
    return "the picture" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _readable(name: str, what: str = "an image") -> Iterator[None]:
    """Turns whatever fails in the block into one error that names the picture."""
    try:
        yield
    except InvalidValueError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is met before ours
        raise InvalidValueError(_too_large(name)) from error
    except Exception as error:  # each format has its own errors for broken files
        raise InvalidValueError(f"{name} cannot be read as {what} ({error})") from error


def _too_large(name: str) -> str:
    return f"{name} has more than {MOST_PIXELS // 10**6} million pixels, the most that is read; reduce or divide it"


def _check(file: Image.Image, name: str) -> None:
    if file.width * file.height > MOST_PIXELS:
        raise InvalidValueError(_too_large(name))
    if file.mode not in READABLE:
        told = {"F": "numbers with a fraction, of no known range", "LAB": "colours of the LAB space"}
        raise InvalidValueError(
            f"{name} cannot be read as an image: it holds {told.get(file.mode, f'pixels of mode {file.mode}')}; "
            "save it as RGB or grey with 8 bits"
        )


def _decode(source: str | Path | bytes, name: str) -> tuple[Image.Image, bool]:
    """The upright picture in its own mode, and whether its file has 16 bits a channel."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
        _check(file, name)
        deep = file.mode in DEEP or any(";16" in str(tile[3]) for tile in file.tile)
        file.load()
        orientation = _orientation(file)
        return (file.transpose(TURNS[orientation]) if orientation in TURNS else file), deep


def _orientation(file: Image.Image) -> int:
    try:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whoever wrote nonsense behind a whole picture said nothing of its rotation
        return 1


def to_mode(picture: Image.Image, mode: str, deep: bool = False, name: str = "the picture") -> Image.Image:
    """A picture of any mode in `"RGB"` or `"L"`, on white where it is transparent.

    Args:
        picture: picture from a file or of one's own.
        mode: one of `MODES`.
        deep: whether its file has 16 bits for each channel.
        name: name of it in errors.

    Raises:
        InvalidValueError: its numbers have no known range.
    """
    if picture.mode in DEEP:  # which Pillow would clip at 255
        picture, highest = _upper_bits(picture, name)
    elif deep:  # Pillow kept the upper bits alone
        extrema: Any = picture.getextrema()  # (low, high) of each band, where there are several
        bands = dict(zip(picture.getbands(), extrema, strict=True))
        highest = 257 * max(high for band, (_, high) in bands.items() if band != "A")
    if deep and 0 < highest < DARK and not _told_of_dark.is_set():
        _told_of_dark.set()
        _log.warning(
            f"{name} has 16 bits and no value above {highest}; 65535 is white, so it is read as almost black. Scale "
            "its values to the whole range (12 bits: times 16) and save it again; other such files are not named"
        )
    if not picture.has_transparency_data:
        return picture if picture.mode == mode else picture.convert(mode)
    flat = Image.new(mode, picture.size)
    rows = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        flat.paste(Image.alpha_composite(white, strip).convert(mode), (0, top))
    return flat


def _upper_bits(picture: Image.Image, name: str) -> tuple[Image.Image, int]:
    """The upper 8 of 16 bits of grey, and the highest value of 16 bits."""
    values = np.asarray(picture)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InvalidValueError(
            f"{name} cannot be read as an image: its values go from {low} to {high}, and grey of up to 16 bits has 0 "
            "to 65535; scale them and save it with 8 or 16 bits"
        )
    grey = (values >> 8).astype("uint8")
    clear = picture.info.get("transparency")
    return Image.fromarray(grey if clear is None else np.where(values == clear, np.uint8(255), grey)), high
