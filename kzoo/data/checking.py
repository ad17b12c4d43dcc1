"""What is looked at in every file of a dataset before work starts: its header, and whether it is there twice."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import check_header

T = TypeVar("T")
TOGETHER = 256  # files that a thread takes at once
HEAD_BYTES = 4096


def check_headers(files: Sequence[Path]) -> None:
    """Raises `DatasetError` if files are no pictures, which names the first and counts the others."""

    def look(path: Path) -> str | None:
        try:
            check_header(path)
        except InvalidValueError as error:
            return str(error)
        return None

    if errors := [error for error in _in_threads(look, files) if error]:
        more = f", nor can {len(errors) - 1} more files" if len(errors) > 1 else ""
        raise DatasetError(f"{errors[0]}{more}; repair or remove what is no picture")


def first_copies(files: Sequence[Path]) -> np.ndarray:
    """Finds files of the same bytes. Only those of one size are opened, and only those that begin alike read whole.

    Args:
        files: that exist.

    Returns:
        (n,) int: for each file the number of the first one that is its copy; its own where it is the first.

    Raises:
        DatasetError: a file that cannot be read.
    """
    known: list[tuple] = [()] * len(files)
    suspects = list(range(len(files)))
    for look in (os.path.getsize, _head, _digest):
        try:
            found = _in_threads(look, [files[index] for index in suspects])
        except OSError as error:
            raise DatasetError(f"cannot read {error.filename}: {error.strerror}") from error
        for index, value in zip(suspects, found, strict=True):
            known[index] += (value,)
        counts = Counter(known[index] for index in suspects)
        suspects = [index for index in suspects if counts[known[index]] > 1]
    copies = np.arange(len(files))
    first: dict[tuple, int] = {}
    for index in suspects:
        copies[index] = first.setdefault(known[index], index)
    return copies


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(HEAD_BYTES)).digest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _in_threads(function: Callable[[Path], T], files: Sequence[Path]) -> list[T]:
    """What a function gives for each file; drives at the end of a network answer many threads at once."""
    parts = [files[start : start + TOGETHER] for start in range(0, len(files), TOGETHER)]
    with ThreadPoolExecutor() as pool:
        return [value for part in pool.map(lambda part: [function(path) for path in part], parts) for value in part]
