"""Boxes as Pascal VOC has them: an XML file for each picture."""

import logging
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

from kzoo.data.annotations import Annotated, Annotations, annotated, placed
from kzoo.data.listing import SPLIT_NAMES
from kzoo.errors import DatasetError, InvalidValueError, counted
from kzoo.images import find_in
from kzoo.reading import parse_xml, read_bytes, read_text

_log = logging.getLogger("kzoo")
LARGEST_BYTES = 2**24
SIDES = ("xmin", "ymin", "xmax", "ymax")


def find_xml(root: Path) -> list[Path]:
    """The XML files below a folder, sorted."""
    return [path for path in find_in(root).others if path.suffix.lower() == ".xml" and path.is_file()]


def read_voc(root: Path, files: list[Path]) -> Annotations:
    """The pictures that XML files describe; each has the name of its picture, or says it in `filename`.

    Splits are those of `ImageSets/Main/train.txt`, `val.txt` (or `trainval.txt`) and `test.txt`, or folders `train`,
    `val` and `test`; a picture that is in no list, and one without an XML file, is passed over, and a warning counts
    them. Coordinates are taken as they stand, in pixels from the picture's corner; what is `difficult` is a crowd.

    Raises:
        DatasetError: a file that is no XML or no such description, or a picture that is absent; the message names it.
    """
    pictures = find_in(root).pictures
    by_name: dict[str, list[Path]] = {}
    for path in pictures:
        by_name.setdefault(path.stem, []).append(path)
    listed = _lists(root)
    read, unlisted = [], 0
    for file in files:
        split = listed.get(file.stem) if listed else _folder_split(root, file)
        if listed and split is None:
            unlisted += 1
            continue
        read.append(_read(root, file, by_name, split))
    if listed and (absent := sorted(listed.keys() - {file.stem for file in files})):
        raise DatasetError(
            f"{root / 'ImageSets'} names {absent[0]}, which no XML file describes (nor {len(absent) - 1} more)"
        )
    used = {picture.path for picture in read}
    others = [path for path in pictures if placed(root, path) not in used]
    if unlisted or (others and not listed):
        told = f"{counted(unlisted, 'XML file')} in no list of ImageSets" if listed else ""
        told = told or f"{counted(len(others), 'picture')} without an XML file (such as {placed(root, others[0])})"
        _log.warning(f"passed over in {root}: {told}")
    if not read:
        raise DatasetError(f"{root} has XML files, and none of them is in a list of {root / 'ImageSets'}")
    classes = sorted({name for picture in read for name in picture.names})
    return Annotations(root, read, tuple(classes))


def _lists(root: Path) -> dict[str, str]:
    """Name -> split, of the lists in `ImageSets/Main`; empty where there are none."""
    folder = root / "ImageSets" / "Main"
    known = {name: folder / f"{name}.txt" for name in ("train", "val", "trainval", "test")}
    there = {name: path for name, path in known.items() if path.is_file()}
    if "train" in there:
        there.pop("trainval", None)
    found: dict[str, str] = {}
    for name, path in there.items():
        split = "train" if name == "trainval" else SPLIT_NAMES[name]
        for stem in _words(path):
            if found.setdefault(stem, split) != split:
                raise DatasetError(f"{path} names {stem}, which is in {found[stem]} too; take it out of one list")
    return found


def _words(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error


def _folder_split(root: Path, file: Path) -> str | None:
    """The split that the first folder of a file's path is called by."""
    parts = file.relative_to(root).parts
    return next((SPLIT_NAMES[part.lower()] for part in parts[:-1] if part.lower() in SPLIT_NAMES), None)


def _read(root: Path, file: Path, by_name: Mapping[str, list[Path]], split: str | None) -> Annotated:
    place = placed(root, file)
    try:
        tree = parse_xml(read_bytes(file, LARGEST_BYTES), str(file))
    except InvalidValueError as error:
        raise DatasetError(f"{error}; repair or remove it") from error
    if tree.tag != "annotation":
        raise DatasetError(f"{file} describes no picture: it begins with <{tree.tag[:40]}>, not with <annotation>")
    boxes = [_object(file, one) for one in tree.findall("object")]
    size = [(tree.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    width, height = (int(side) if side.isdecimal() else 0 for side in size)  # tools leave it out, or write 0
    picture = _picture(file, tree, by_name)
    known = (width, height) if width and height else None
    return annotated(placed(root, picture), boxes, place, split=split, size=known)


def _object(file: Path, found: Element) -> tuple[list[float], str, bool]:
    name = " ".join((found.findtext("name") or "").split())
    if not name:
        raise DatasetError(f"{file} has an <object> without a <name>")
    sides = [(found.findtext(f"bndbox/{side}") or "").strip() for side in SIDES]
    try:
        box = [float(side) for side in sides]
    except ValueError as error:
        shown = ", ".join(f"{side} {text[:20]!r}" for side, text in zip(SIDES, sides, strict=True))
        raise DatasetError(f"{file}: the <bndbox> of {name!r} is no four numbers: {shown}") from error
    return box, name, (found.findtext("difficult") or "").strip() == "1"


def _picture(file: Path, tree: Element, by_name: Mapping[str, list[Path]]) -> Path:
    said = Path((tree.findtext("filename") or "").replace("\\", "/")).stem
    found = by_name.get(file.stem) or by_name.get(said) or []
    beside = [path for path in found if path.parent.parent == file.parent.parent]
    near = [path for path in found if path.parent == file.parent] or beside or found
    if len(near) != 1:
        what = "no picture is" if not near else f"{near[0]} and {near[1]} are both"
        raise DatasetError(f"{file}: {what} called {file.stem!r} in the dataset; each XML file has one picture")
    return near[0]
