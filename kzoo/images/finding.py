"""Finding pictures on the disk."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kzoo.errors import InvalidValueError

# Pillow's name of each format that is read, with the endings of its files
ENDINGS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
FORMATS = tuple(ENDINGS)
SUFFIXES = tuple(ending for endings in ENDINGS.values() for ending in endings)
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
        pictures: files whose endings are in `SUFFIXES`.
        others: anything else that is not hidden: files of other endings, links that lead nowhere, pipes.
    """

    pictures: list[Path]
    others: list[Path]


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is none of the user's: its name begins with a dot, or a system left it there."""
    return path.name.startswith(".") or path.name.lower() in LITTER


def is_picture(path: Path) -> bool:
    """Whether a path is a file whose ending is that of a picture."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def list_folder(folder: Path) -> list[Path]:
    """What a folder holds, hidden things left out, sorted.

    Raises:
        InvalidValueError: it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path))
    except OSError as error:
        raise InvalidValueError(f"cannot read the folder {folder}: {error.strerror}") from error


def find_in(folder: Path) -> Found:
    """The pictures below a folder, and what else is there; a link to a folder above itself is not followed again.

    Raises:
        InvalidValueError: a folder that cannot be read.
    """
    found = Found([], [])
    for path in _walk(folder, frozenset()):
        (found.pictures if is_picture(path) else found.others).append(path)
    return found


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    above |= {os.path.realpath(folder)}
    for path in list_folder(folder):
        if not path.is_dir():
            yield path
        elif os.path.realpath(path) not in above:
            yield from _walk(path, above)


def find_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, and the pictures in folders and their folders (see `SUFFIXES`), sorted, none twice.

    Raises:
        InvalidValueError: a path that does not exist, or a folder without pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = find_in(path).pictures
            if not inside:
                raise InvalidValueError(f"no image in {path}; its files must end in {', '.join(SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InvalidValueError(f"no file or folder at {path}")
    return list(dict.fromkeys(found))
