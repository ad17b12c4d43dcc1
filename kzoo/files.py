"""Writing files so that a crash never leaves half of one."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from kzoo.errors import OutputError

PARTIAL = ".partial"
LOCK = ".lock"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` with the same suffix and renames it when the block succeeds.

    If the block fails the temporary file is removed and `path` is as it was. After a kill, the temporary
    file of the next write to the same path takes the old one's place. What else has its name, such as a link that
    somebody planted there, is taken away and never followed.

    Raises:
        OutputError: a folder has the name of the temporary file.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name.split('.')[0]}{PARTIAL}{''.join(path.suffixes)}")
    if partial.is_dir() and not partial.is_symlink():
        raise OutputError(f"the folder {partial} is in the way; remove it")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError as error:
        raise OutputError(f"another process made {partial} in this moment; try again") from error
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields the path of a folder to be made, and moves it to `path`, in the place of one there, when the block
    succeeds; if it fails, `path` is as it was."""
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}{PARTIAL}", dir=path.parent) as hidden:
        new = Path(hidden, "new")
        yield new
        if path.exists():
            path.rename(Path(hidden, "old"))
        new.rename(path)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def refuse_unwritable(directory: str | Path) -> None:
    """Raises `OutputError` if `directory` could not be made or written, without making it."""
    existing = next(
        path for path in (Path(directory).absolute(), *Path(directory).absolute().parents) if path.exists()
    )
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {existing}; choose another output directory")


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Keeps other processes out of `directory` while the block runs; the system lets go of it after a kill.

    Raises:
        OutputError: another process is in it.
    """
    lock = filelock.FileLock(directory / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise OutputError(f"another process is training in {directory}; choose another --output-dir") from error
    except OSError as error:
        raise OutputError(f"cannot lock {directory / LOCK}: {error.strerror}; choose another --output-dir") from error
    try:
        yield
    finally:
        lock.release()


def ensure_writable(directory: str | Path, need_bytes: int = 0) -> Path:
    """Makes `directory`, proves that a file can be written there and that `need_bytes` are free.

    Raises:
        OutputError: the directory cannot be made or written, or its disk is too full.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(b"0")
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another output directory") from error
    free = shutil.disk_usage(directory).free
    if free < need_bytes:
        raise OutputError(
            f"{directory} has {free / 1e6:.1f} MB free and {need_bytes / 1e6:.1f} MB are needed; "
            "free some space or choose another output directory"
        )
    return directory


def keras_home() -> Path:
    """The folder where Keras keeps what it fetched: `KERAS_HOME`, or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
