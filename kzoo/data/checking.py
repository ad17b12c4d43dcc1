"""What is looked at in every file of a dataset before work starts: its header, and whether it is there twice."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import check_header

T = TypeVar("T")
TRIED = 64  # files whose time is taken
SLOW_SECONDS = 1e-3  # for a file: a drive of this machine takes a tenth, one at the end of a network several times it
THREADS = 32
HEAD_BYTES = 4096


def check_headers(files: Sequence[Path]) -> None:
    """Raises `DatasetError` if files are no pictures, which names the first and counts the others."""

    def look(path: Path) -> str | None:
        try:
            check_header(path)
        except InvalidValueError as error:
            return str(error)
        return None

    if errors := [error for error in _each(look, files) if error]:
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
            found = _each(look, [files[index] for index in suspects])
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


def _each(function: Callable[[Path], T], files: Sequence[Path]) -> list[T]:
    """What a function gives for each file: in threads where the first files show that one waits for the drive."""
    began = time.perf_counter()
    values = [function(path) for path in files[:TRIED]]
    if time.perf_counter() - began < SLOW_SECONDS * len(values):
        return values + [function(path) for path in files[TRIED:]]
    with ThreadPoolExecutor(THREADS) as pool:
        return values + list(pool.map(function, files[TRIED:]))
