"""Finding pictures on the disk."""

from collections.abc import Iterable
from pathlib import Path

from kzoo.errors import InvalidValueError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


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
