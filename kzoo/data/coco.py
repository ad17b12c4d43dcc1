"""Boxes as COCO has them: a JSON file for all pictures of a split."""

import re
from pathlib import Path
from typing import Any

from kzoo.data.annotations import Annotated, Annotations, annotated, placed
from kzoo.data.listing import SPLIT_NAMES, path_inside
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import find_in
from kzoo.reading import parse_json, read_text

LARGEST_BYTES = 2**30
KEYS = ("images", "annotations", "categories")


def find_json(root: Path) -> list[Path]:
    """The JSON files below a folder, sorted; where some describe `instances`, these alone; of a TFDS set none."""
    found = [path for path in find_in(root).others if path.suffix.lower() == ".json" and path.is_file()]
    if any(path.name == "features.json" for path in found):  # which TFDS leaves beside its own
        return []
    instances = [path for path in found if path.stem.startswith("instances")]
    return instances or found


def read_coco(root: Path, files: list[Path]) -> Annotations:
    """The pictures that JSON files describe, each a split by its name or its folder's; one alone may be undivided.

    Pictures lie beside the file, or in `images`, in a folder that is called as the split in the file's name
    (`train2017` of `instances_train2017.json`), or in one of these inside the other. Boxes that are `iscrowd` are
    crowds.

    Raises:
        DatasetError: no such JSON, categories that differ between splits, a number that belongs to nothing, a
            picture that is absent, or a file_name that leaves the folder; the message names the file.
    """
    splits = [_split(root, file) for file in files]
    if len(files) > 1:
        for file, split in zip(files, splits, strict=True):
            if split is None or splits.count(split) > 1:
                told = "of no split" if split is None else f"of {split}, as is another one"
                raise DatasetError(f"{file} is {told}; each JSON file needs train, val or test in its name")
    read: list[Annotated] = []
    first: dict[int, str] = {}
    for file, split in zip(files, splits, strict=True):
        value = _parse(file)
        names = _categories(file, value["categories"])
        if first and names != first:
            differing = sorted({*names.items()} ^ {*first.items()})
            raise DatasetError(
                f"{file} has other categories than {files[0].name}: {differing[0][1]!r} with the id {differing[0][0]} "
                "is in one of them only; give both the same"
            )
        first = names
        read += _pictures(root, file, value, names, split)
    return Annotations(root, read, tuple(first[number] for number in sorted(first)))


def _split(root: Path, file: Path) -> str | None:
    folders = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()
    words = [*re.split(r"[^a-z]+", file.stem.lower()), *(folder.lower() for folder in folders)]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _parse(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        value = parse_json(read_text(file, LARGEST_BYTES), str(file))
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(value, dict) or not all(_are_objects(value.get(key)) for key in KEYS):
        raise DatasetError(f"{file} is no description of COCO's: it must have lists of objects {', '.join(KEYS)}")
    return value


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _categories(file: Path, categories: list[dict[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for each in categories:
        number, name = each.get("id"), each.get("name")
        if type(number) is not int or not isinstance(name, str) or number in names or name in names.values():
            raise DatasetError(f"{file}: the category with the id {number!r} has no id and name of its own")
        names[number] = name
    return names


def _pictures(
    root: Path, file: Path, value: dict[str, list[dict[str, Any]]], names: dict[int, str], split: str | None
) -> list[Annotated]:
    boxes: dict[Any, list] = {}
    for each in value["images"]:
        number, path = each.get("id"), each.get("file_name")
        if not isinstance(number, int | str) or number in boxes or not isinstance(path, str) or not path:
            raise DatasetError(f"{file}: the image with the id {number!r} has no id and file_name of its own")
        path_inside(path, root, f"{file}, the image with the id {number!r}")
        boxes[number] = []
    for each in value["annotations"]:
        number, category, box = each.get("image_id"), each.get("category_id"), each.get("bbox")
        what = f"{file}: the annotation with the id {each.get('id')!r}"
        if not isinstance(number, int | str) or number not in boxes:
            raise DatasetError(f"{what} is of an image {number!r}, which is not in the file")
        if type(category) is not int or category not in names:
            raise DatasetError(f"{what} is of a category {category!r}, which is not in the file")
        if not isinstance(box, list) or len(box) != 4 or any(type(side) not in (int, float) for side in box):
            raise DatasetError(f"{what} has no bbox of four numbers: left, top, width and height")
        left, top, width, height = box
        corners = [left, top, left + width, top + height]
        boxes[number].append((corners, names[category], each.get("iscrowd") == 1))
    folder = _folder(root, file, [each["file_name"] for each in value["images"]])
    read = []
    for each in value["images"]:
        size = each.get("width"), each.get("height")
        known = size if all(type(side) is int and side > 0 for side in size) else None
        path = placed(root, folder / each["file_name"])
        place = f"{file.name}, image {each['id']}"
        read.append(annotated(path, boxes[each["id"]], place, split=split, size=known))
    return read


def _folder(root: Path, file: Path, paths: list[str]) -> Path:
    """The folder from which the pictures' names go: the first of those that are usual in which one of them lies."""
    own = [word for word in re.split(r"[_.\-]", file.stem) if re.sub(r"\d", "", word.lower()) in SPLIT_NAMES]
    bases = [file.parent, root, file.parent.parent]
    inside = [*own, "images", *(f"images/{word}" for word in own), *(f"{word}/images" for word in own)]
    folders = [base / part for base in bases for part in ("", *inside)]
    return next((folder for folder in folders if any((folder / path).is_file() for path in paths[:3])), file.parent)
