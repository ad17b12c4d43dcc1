"""Boxes as YOLO has them: a text file for each picture, and the names of the classes once for all."""

from pathlib import Path

import yaml

from kzoo.class_names import read_class_names
from kzoo.data.annotations import Annotated, Annotations, annotated, placed
from kzoo.data.listing import SPLIT_NAMES
from kzoo.errors import DatasetError, InvalidValueError, counted
from kzoo.images import find_in
from kzoo.reading import read_text

LARGEST_YAML = 2**20
NAMES = ("classes.txt", "obj.names")


def is_yolo(root: Path) -> bool:
    """Whether a folder has labels as YOLO has them."""
    parts = (root, *(root / name for name in SPLIT_NAMES))
    return any((part / "labels").is_dir() for part in parts)


def read_yolo(root: Path) -> Annotations:
    """The pictures below a folder, each with the text file in `labels` where the picture is in `images`.

    A picture without one has no boxes. Splits are folders `train`, `val` and `test` in the path, outside `images` or
    inside. The names of the classes are the lines of `classes.txt` or `obj.names`, or `names` in a YAML file.

    Raises:
        DatasetError: no names, no labels, a class without a name, or a line that is no box; the message names it.
    """
    names = _class_names(root)
    found = find_in(root)
    texts = {path for path in found.others if path.suffix.lower() == ".txt"}
    read, used = [], set()
    for picture in found.pictures:
        parts = picture.relative_to(root).parts
        if "images" not in parts:
            continue
        labels = root.joinpath(*("labels" if part == "images" else part for part in parts)).with_suffix(".txt")
        used.add(labels)
        split = next((SPLIT_NAMES[part.lower()] for part in parts[:-1] if part.lower() in SPLIT_NAMES), None)
        read.append(_read(root, picture, labels if labels in texts else None, names, split))
    lonely = sorted(path for path in texts - used if "labels" in path.relative_to(root).parts[:-1])
    lonely = [path for path in lonely if path.name not in NAMES]
    if lonely:
        more = f" (nor have {counted(len(lonely) - 1, 'more file')})" if len(lonely) > 1 else ""
        raise DatasetError(f"{lonely[0]} has no picture of its name in images{more}")
    if not read:
        raise DatasetError(f"{root} has labels and no pictures in a folder images")
    return Annotations(root, read, names)


def _class_names(root: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers."""
    try:
        for path in (root / name for name in NAMES):
            if path.is_file():
                return _unique(path, read_class_names(path))
        files = sorted(path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml"))
        for path in files:
            try:
                value = yaml.safe_load(read_text(path, LARGEST_YAML))
            except (yaml.YAMLError, RecursionError) as error:
                raise DatasetError(f"{path} is no valid YAML: {' '.join(str(error).split())[:150]}") from error
            names = value.get("names") if isinstance(value, dict) else None
            if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
                names = [names[number] for number in range(len(names))]
            if isinstance(names, list) and names and all(isinstance(name, str | int) for name in names):
                return _unique(path, [str(name) for name in names])
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error
    raise DatasetError(f"{root} does not name its classes; write classes.txt, a class a line, or `names` in data.yaml")


def _unique(path: Path, names: list[str]) -> tuple[str, ...]:
    if len(set(names)) < len(names) or not names:
        raise DatasetError(f"{path} must name each class once")
    return tuple(names)


def _read(root: Path, picture: Path, labels: Path | None, names: tuple[str, ...], split: str | None) -> Annotated:
    boxes = []
    try:
        lines = [] if labels is None else read_text(labels).splitlines()
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error
    for number, line in enumerate(lines, start=1):
        if not (cells := line.split()):
            continue
        place = f"{labels}, line {number}"
        try:
            middle_x, middle_y, width, height = (float(cell) for cell in cells[1:])
        except ValueError as error:
            raise DatasetError(
                f"{place} has {counted(len(cells), 'cell')}, {line.strip()[:60]!r}; a box is a class and 4 numbers: "
                "middle x and y, width and height, in shares of the picture"
            ) from error
        if not cells[0].isdecimal() or int(cells[0]) >= len(names):
            raise DatasetError(f"{place}: the class {cells[0][:20]!r} has no name; there are {len(names)}, from 0 on")
        half_x, half_y = width / 2, height / 2
        box = [middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y]
        boxes.append((box, names[int(cells[0])], False))
    where = placed(root, picture if labels is None else labels)
    return annotated(placed(root, picture), boxes, where, split=split, relative=True)
