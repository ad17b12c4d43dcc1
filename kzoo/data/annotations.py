"""Pictures with boxes, from whatever file describes them, and what is done with boxes that cannot be right."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kzoo.errors import DatasetError, InvalidValueError, counted
from kzoo.images import read_size

_log = logging.getLogger("kzoo")
SMALLEST = 1.0  # pixels of a side
ROUNDING = 0.5  # pixels by which a box may reach outside without being told of


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A picture with boxes.

    Attributes:
        path: of the picture, from the dataset's folder, with `/` between folders.
        boxes: float64 (n, 4): left, top, right and bottom, in pixels of the upright picture.
        names: class of each box.
        crowd: whether each box is a region in which detections are not judged: a crowd of COCO, difficult in VOC.
        place: what errors call the description.
        split: `"train"`, `"validation"` or `"test"`; None where nothing is divided.
        size: (width, height) that the description gives the picture; None where it says nothing.
        relative: whether the boxes are in shares of the picture's sides in place of pixels.
    """

    path: str
    boxes: np.ndarray
    names: tuple[str, ...]
    crowd: tuple[bool, ...]
    place: str
    split: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a dataset says.

    Attributes:
        root: folder that paths are relative to.
        pictures: in an order of their own.
        classes: in their order; those without a box may be among them.
    """

    root: Path
    pictures: Sequence[Annotated]
    classes: tuple[str, ...]


def annotated(path: str, boxes: Sequence, place: str, **more) -> Annotated:
    """A picture from a list of (box, name, crowd)."""
    arrays = np.array([box for box, _, _ in boxes], "float64").reshape(-1, 4)
    names, crowd = tuple(name for _, name, _ in boxes), tuple(crowd for _, _, crowd in boxes)
    return Annotated(path, arrays, names, crowd, place, **more)


def picture_sizes(annotations: Annotations) -> list[tuple[int, int]]:
    """(width, height) of the upright pictures, from their headers.

    Raises:
        DatasetError: a picture that is absent, none, or of another size than its description says; the message names
            the first and counts the others.
    """

    def look(picture: Annotated) -> tuple[int, int] | str:
        path = annotations.root / picture.path
        if not path.is_file():
            return f"{picture.place}: there is no picture {path}"
        try:
            size = read_size(path)
        except InvalidValueError as error:
            return str(error)
        if picture.size not in (None, size):
            given, found = (f"{width}×{height}" for width, height in (picture.size or size, size))
            return f"{picture.place} describes a picture of {given} pixels, and {picture.path}, upright, has {found}"
        return size

    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(look, annotations.pictures))
    if errors := [size for size in sizes if isinstance(size, str)]:
        more = f" (and {counted(len(errors) - 1, 'more picture')} with errors)" if len(errors) > 1 else ""
        raise DatasetError(f"{errors[0]}{more}; repair the picture or its description, or remove both")
    return [size for size in sizes if not isinstance(size, str)]


def usable_boxes(
    name: str, pictures: Sequence[Annotated], sizes: Sequence[tuple[int, int]], quietly: bool = False
) -> list[Annotated]:
    """The pictures with those of their boxes that can be right, in pixels; one warning counts what was done.

    A box that reaches outside its picture is cut at the border. Dropped are: one whose right side is left of its left
    one, or its bottom above its top; one that is outside altogether; one with a side of less than `SMALLEST`; and a
    second one of the same class at the same place.

    Args:
        name: of the dataset.
        pictures: with their boxes.
        sizes: (width, height) of each.
        quietly: whether nothing is told, as it was before.

    Raises:
        DatasetError: a box that is not of finite numbers.
    """
    kept, total = [], 0
    done: dict[str, list[str]] = {}
    for picture, size in zip(pictures, sizes, strict=True):
        boxes = picture.boxes * [*size, *size] if picture.relative else picture.boxes
        total += len(boxes)
        chosen: dict[tuple, int] = {}
        cut = np.clip(boxes, 0, [*size, *size])
        for index, (box, inside) in enumerate(zip(boxes.tolist(), cut.tolist(), strict=True)):
            shown = f"{picture.path}: {', '.join(f'{side:.6g}' for side in box)}"
            if not np.isfinite(box).all():
                raise DatasetError(f"{picture.place}: a box of {picture.names[index]!r} is no four numbers ({shown})")
            reason = _flaw(box, inside)
            key = (picture.names[index], *inside)
            if reason is None and key in chosen:
                reason = "there twice, and one of them dropped"
            if reason is not None:
                done.setdefault(reason, []).append(shown)
                continue
            if max(abs(one - other) for one, other in zip(box, inside, strict=True)) > ROUNDING:
                done.setdefault("reaching outside, and cut at the border", []).append(shown)
            chosen[key] = index
        numbers = list(chosen.values())
        names = tuple(picture.names[index] for index in numbers)
        crowd = tuple(picture.crowd[index] for index in numbers)
        kept.append(dataclasses.replace(picture, boxes=cut[numbers], names=names, crowd=crowd, relative=False))
    if done and not quietly:
        told = [
            f"{counted(len(shown), 'box', 'boxes')} {reason} (such as {shown[0]})" for reason, shown in done.items()
        ]
        _log.warning(f"{name}, of {counted(total, 'box', 'boxes')}: {'; '.join(told)}")
    return kept


def _flaw(box: Sequence[float], inside: Sequence[float]) -> str | None:
    """Why a box is dropped."""
    if box[2] < box[0] or box[3] < box[1]:
        return "turned inside out, and dropped"
    if min(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return f"less than {SMALLEST:g} pixel wide or high, and dropped"
    if min(inside[2] - inside[0], inside[3] - inside[1]) < SMALLEST:
        return "outside of their picture, and dropped"
    return None


def placed(root: Path, path: Path) -> str:
    """A path from the root, with `/` between folders, whether it lies below or beside it."""
    return Path(os.path.relpath(path, root)).as_posix()
