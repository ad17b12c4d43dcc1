"""Folders that a command writes whole, and replaces: what somebody else put there is left alone."""

from pathlib import Path

from kzoo.errors import OutputError
from kzoo.reading import read_json


def check_own(folder: Path, told: str, key: str, command: str) -> None:
    """Raises `OutputError` unless the folder is absent, empty, or what `command` wrote there and nothing else.

    Args:
        folder: path of the folder.
        told: name of the JSON file in it that has the names of all its files under "files".
        key: field of that file by which it is known.
        command: what writes such folders, for the message, such as "kzoo page".

    Example:
        >>> check_own(Path("site"), "page.json", "kzoo_page", "kzoo page")
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"{folder} is in the way; choose another --output")
    inside = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    known = read_json(folder / told) if (folder / told).is_file() else None
    if not isinstance(known, dict) or key not in known:
        if next(inside, None) is None:  # the rest of a home folder need not be looked through
            return
        raise OutputError(f"{folder} holds other files than those of {command}; choose another --output")
    files = {path.relative_to(folder).as_posix() for path in inside}
    ours = known.get("files")
    if others := sorted(files - set(map(str, ours if isinstance(ours, list) else ()))):
        raise OutputError(f"{folder} holds {others[0]}, which {command} did not write; choose another --output")
