"""Boxes in a table: CSV or TSV with a row for each box."""

import csv
from pathlib import Path

from kzoo.data.annotations import Annotations, annotated
from kzoo.data.listing import SPLIT_NAMES, path_inside
from kzoo.data.tables import check_files, sorted_classes, text_rows
from kzoo.errors import DatasetError, InvalidValueError

SIDES = ("left", "top", "right", "bottom")
COLUMNS = {  # what people call them -> what they are called here
    **dict.fromkeys(("path", "filename", "file", "image"), "path"),
    **dict.fromkeys(("label", "class", "name"), "label"),
    **dict.fromkeys(("left", "xmin", "x1"), "left"),
    **dict.fromkeys(("top", "ymin", "y1"), "top"),
    **dict.fromkeys(("right", "xmax", "x2"), "right"),
    **dict.fromkeys(("bottom", "ymax", "y2"), "bottom"),
    "split": "split",
}


def read_box_table(table: Path) -> Annotations:
    """The pictures that a table names, by paths from the table's folder.

    A row is a box: `path`, `label`, `left`, `top`, `right`, `bottom` in pixels, and perhaps `split`; `filename`,
    `class`, and `xmin`, `ymin`, `xmax`, `ymax` are understood too. A row with a path and nothing of a box is a picture
    that has none. Other columns say nothing.

    Raises:
        DatasetError: it cannot be read, lacks a column, has a row that is no box, a picture in two splits, one that is
            not there, or a path that leaves the folder; the message names the line.
    """
    if not table.is_file():
        raise DatasetError(f"no table at {str(table)!r}")
    try:
        rows = list(text_rows(table, lambda names: _header(table, names)))
    except (InvalidValueError, csv.Error) as error:
        raise DatasetError(str(error) if isinstance(error, InvalidValueError) else f"{table}: {error}") from error
    if not rows:
        raise DatasetError(f"{table} has no rows under its header; each row is a box")
    divided = any(cells.get("split") for _, cells in rows)
    boxes: dict[str, list] = {}
    places: dict[str, str] = {}
    splits: dict[str, str | None] = {}
    for place, cells in rows:
        if not cells["path"]:
            raise DatasetError(f"{table}, {place}: no path; each row must have one")
        path = path_inside(cells["path"], table.parent, f"{table}, {place}")
        places.setdefault(path, place)
        split = SPLIT_NAMES.get(cells["split"].lower()) if divided else None
        if divided and split is None:
            raise DatasetError(
                f"{table}, {place}: split {cells['split']!r} is not accepted; use one of {', '.join(SPLIT_NAMES)}"
            )
        if splits.setdefault(path, split) != split:
            raise DatasetError(f"{table}, {place}: {path} is in {split}, and in {splits[path]} in {places[path]}")
        found = boxes.setdefault(path, [])
        if any(cells[column] for column in (*SIDES, "label")):
            found.append((_box(table, place, cells), cells["label"], False))
    check_files(table, places)
    classes = sorted_classes(table, {name for found in boxes.values() for _, name, _ in found})
    pictures = [
        annotated(path, found, f"{table.name}, {places[path]}", split=splits[path]) for path, found in boxes.items()
    ]
    return Annotations(table.parent, pictures, classes)


def _header(table: Path, names: list[str]) -> list[str]:
    header = [COLUMNS.get(name.strip().lower(), name) for name in names]
    wrong = [column for column in ("path", "label", *SIDES) if header.count(column) != 1]
    if wrong or header.count("split") > 1:
        found = ", ".join(repr(name) for name in names[:10])
        raise DatasetError(
            f"{table} must have a header with one column path, one label, one each of {', '.join(SIDES)}, and perhaps "
            f"one split; its first line is {found[:200]}"
        )
    return header


def _box(table: Path, place: str, cells: dict[str, str]) -> list[float]:
    if not cells["label"]:
        raise DatasetError(f"{table}, {place}: a box without a label")
    try:
        return [float(cells[side]) for side in SIDES]
    except ValueError as error:
        shown = ", ".join(f"{side} {cells[side][:20]!r}" for side in SIDES)
        raise DatasetError(f"{table}, {place}: {shown}: these must be four numbers") from error
