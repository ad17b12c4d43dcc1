"""Finding pictures on the disk."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, features

from kzoo.errors import InvalidValueError

# Pillow's name of each format that is read, with the endings of its files: those that tell themselves by their first
# bytes and run no other program; Pillow's own builds have the last two
ENDINGS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
}
_ABSENT = {
    name
    for name, there in (("JPEG2000", features.check_codec("jpg_2000")), ("AVIF", features.check_module("avif")))
    if not there
}
FORMATS = tuple(name for name in ENDINGS if name not in _ABSENT)
SUFFIXES = tuple(ending for name in FORMATS for ending in ENDINGS[name])
# what systems and network drives leave beside pictures, in small letters
LITTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin"),
        *("system volume information", "lost+found"),
    }
)


class Found(NamedTuple):
    """What a folder and its folders hold, each sorted.

    Attributes:
        pictures: files that `is_picture` takes for one.
        others: anything else that is not hidden: files of something else, links that lead nowhere, pipes.
        hidden: files and folders that are passed over, see `is_hidden`.
    """

    pictures: list[Path]
    others: list[Path]
    hidden: list[Path]


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is none of the user's: its name begins with a dot, or a system left it there."""
    return path.name.startswith(".") or path.name.lower() in LITTER


def is_picture(path: Path) -> bool:
    """Whether a path is a file whose ending is that of a picture, or that begins as one, whatever it is called."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:  # a picture, which reading it refuses
        return True
    except Exception:  # each format has its own errors for what it does not know
        return False


def list_folder(folder: Path) -> list[Path]:
    """What a folder holds, hidden things left out, sorted.

    Raises:
        InvalidValueError: it cannot be read.
    """
    return [path for path in _sorted(folder) if not is_hidden(path)]


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise InvalidValueError(f"cannot read the folder {folder}: {error.strerror}") from error


def find_in(folder: Path) -> Found:
    """The pictures below a folder, and what else is there; a link to a folder above itself is not followed again.

    Raises:
        InvalidValueError: a folder that cannot be read.
    """
    found = Found([], [], [])
    for path in _walk(folder, frozenset()):
        if is_hidden(path):
            found.hidden.append(path)
        else:
            (found.pictures if is_picture(path) else found.others).append(path)
    return found


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    above |= {os.path.realpath(folder)}
    for path in _sorted(folder):
        if is_hidden(path) or not path.is_dir():
            yield path
        elif os.path.realpath(path) not in above:
            yield from _walk(path, above)


def find_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, and the pictures in folders and their folders (see `is_picture`), sorted, none twice.

    Raises:
        InvalidValueError: a path that does not exist, or a folder without pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = find_in(path).pictures
            if not inside:
                raise InvalidValueError(f"no image in {path}; pictures are {', '.join(FORMATS)} files")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InvalidValueError(f"no file or folder at {path}")
    return list(dict.fromkeys(found))
