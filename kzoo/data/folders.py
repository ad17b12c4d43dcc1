"""Image folders: `CLASS/*`, or `train/CLASS/*` with `validation/CLASS/*` and `test/CLASS/*`."""

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath

from kzoo.data.listing import SPLIT_NAMES, TABLES, Listing
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import FORMATS, find_in, is_picture, list_folder

_log = logging.getLogger("kzoo")


def is_pairs(folder: Path) -> bool:
    """Whether a folder is laid out as images and masks, for segmentation."""
    return any((part / "images").is_dir() and (part / "masks").is_dir() for part in (folder, folder / "train"))


def list_pictures(root: Path) -> Listing:
    """Finds the pictures of each class. A folder inside a class's belongs to that class.

    What is hidden, no picture, or in no class is passed over; one warning counts it.

    Args:
        root: the folder.

    Raises:
        DatasetError: a folder that is laid out otherwise, or a class without pictures to train on.
    """
    if is_pairs(root):
        raise DatasetError(f"{root} holds images and masks, for models of the task segmentation; see kzoo list")
    try:
        found = find_in(root)
        parts = _parts(root)
        train = root if parts is None else root / next(name for name, split in parts.items() if split == "train")
        folders = [path for path in list_folder(train) if path.is_dir()]
        classes = tuple(dict.fromkeys(_class(path.name) for path in folders))
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error
    depth = 1 if parts is None else 2  # of folders around a picture
    paths = [path.relative_to(root) for path in found.pictures]
    mine = [path for path in paths if len(path.parts) > depth and (parts is None or path.parts[0] in parts)]
    labels = [(_class(path.parts[depth - 1]),) for path in mine]
    splits = None if parts is None else [parts[path.parts[0]] for path in mine]
    _check(train, folders, labels, splits)
    inside = set(mine)
    _warn(
        root,
        {
            "that are hidden or left by systems": [path.relative_to(root) for path in found.hidden],
            "that are no pictures": [path.relative_to(root) for path in found.others],
            "in no folder of a class": [path for path in paths if path not in inside],
        },
    )
    if deeper := [path for path in mine if len(path.parts) > depth + 1]:
        _log.warning(
            f"{root}: {len(deeper)} pictures are in folders inside a class's, and of that class, such as "
            f"{deeper[0].as_posix()}"
        )
    return Listing(str(root), root, [path.as_posix() for path in mine], labels, splits, classes)


def _class(name: str) -> str:
    """The name of a class in the one of two spellings that systems give letters with accents."""
    return unicodedata.normalize("NFC", name)


def _parts(root: Path) -> dict[str, str] | None:
    """Name of a folder -> split that it holds; None where folders are classes, one of which may be called train."""
    folders = [path for path in list_folder(root) if path.is_dir()]
    parts = {path.name: SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in SPLIT_NAMES}
    divided = any(
        split == "train" and any(path.is_dir() for path in list_folder(root / name)) for name, split in parts.items()
    )
    if not folders or (len(parts) < len(folders) and not divided):
        return None
    if "train" not in parts.values():
        raise DatasetError(f"{root} has {' and '.join(parts)}, and no train; it must have train/CLASS/*, or CLASS/*")
    for split in dict.fromkeys(parts.values()):
        if len(twice := [name for name, one in parts.items() if one == split]) > 1:
            raise DatasetError(f"{root} has {' and '.join(twice)}, which are one split; put their pictures into one")
    return parts


def _check(
    train: Path, folders: Sequence[Path], labels: Sequence[tuple[str, ...]], splits: Sequence[str] | None
) -> None:
    """Raises unless the folder of training pictures has some of each class."""
    parts = splits or ["train"] * len(labels)
    trained = {label for (label,), part in zip(labels, parts, strict=True) if part == "train"}
    need = f"each class needs a folder in it with {', '.join(FORMATS)} files"
    if not trained:
        tables = [path for path in list_folder(train) if path.suffix.lower() in TABLES]
        instead = f"; or give {tables[0]} as the dataset, if it says the class of each picture" if tables else ""
        loose = [path for path in list_folder(train) if is_picture(path)]
        told = f", but {len(loose)} that lie directly in it (such as {loose[0].name})" if loose else ""
        raise DatasetError(f"{train} has no picture of any class{told}; {need}{instead}")
    if empty := [path.name for path in folders if _class(path.name) not in trained]:
        raise DatasetError(f"{train} has no picture of {', '.join(empty)}; {need}")
    if len(folders) == 1 and sum(path.is_dir() for path in list_folder(folders[0])) > 1:
        raise DatasetError(f"{train} has one folder, {folders[0].name}, which would be the only class; give that one")


def _warn(root: Path, passed_over: dict[str, list[PurePath]]) -> None:
    """One warning that counts what is not taken, by the reason."""
    told = [f"{len(paths)} {why} (such as {paths[0].as_posix()})" for why, paths in passed_over.items() if paths]
    if told:
        _log.warning(f"passed over in {root}: {', '.join(told)}")
