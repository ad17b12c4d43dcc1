"""What `kzoo predict` writes of the boxes in pictures: drawings, crops, and one file as COCO has them.

>>> for result in find_boxes(opened, output_paths([Path("cells.jpg")], Path("predictions"), ENDINGS)):
...     print(result["drawing"], result["boxes"][0])
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kzoo.errors import InvalidValueError
from kzoo.files import atomic_path, ensure_writable, write_text
from kzoo.images import read_picture
from kzoo.images.boxes import draw_boxes
from kzoo.predict.classifier import Opened
from kzoo.predict.detector import detect

ENDINGS = {"drawing": "_boxes.png"}
CROP = "{stem}_box{number}.png"
IS_CROP = re.compile(r"_box\d+\.png$")
COCO_FILE = "detections.json"


def find_boxes(
    opened: Opened, files: Mapping[Path, dict[str, Path]], score: float | None = None, crops: bool = False
) -> Iterator[dict | InvalidValueError]:
    """Finds boxes in pictures, and writes a drawing of each.

    Args:
        opened: a detector.
        files: pictures and the files of each, from `output_paths`.
        score: least score of what is found; default: that of the model.
        crops: whether each box is cut out too, as NAME_box1.png, the surest first.

    Yields:
        The picture, its size, its files and `boxes`, the surest first, each with its class, index, score and box:
        left, top, right and bottom in pixels of the picture; or the error of a picture that cannot be read.

    Raises:
        InvalidValueError: a score that is none.
        OutputError: the folder cannot be made or written.
    """
    assert opened.output.suppression is not None, "of a detector"
    rule = opened.output.suppression if score is None else replace(opened.output.suppression, score=score)
    names = opened.class_names
    for path, written in files.items():
        try:
            picture = read_picture(path, opened.input_shape[2])
        except InvalidValueError as error:
            yield error
            continue
        [found] = detect(opened.model, [picture], opened.pixels, rule)
        directory = written["drawing"].parent
        ensure_writable(directory)
        with atomic_path(written["drawing"]) as partial:
            draw_boxes(picture, found.boxes, found.classes, names, found.scores).save(partial)
        rows = [
            {"class": names[index], "index": index, "score": sure, "box": [round(side, 2) for side in box]}
            for box, index, sure in zip(
                found.boxes.tolist(), found.classes.tolist(), found.scores.tolist(), strict=True
            )
        ]
        result: dict[str, Any] = {"image": str(path), "width": picture.width, "height": picture.height}
        result |= {"drawing": str(written["drawing"]), "boxes": rows}
        if crops:
            for number, row in enumerate(rows, start=1):
                crop = directory / CROP.format(stem=path.stem, number=number)
                with atomic_path(crop) as partial:
                    picture.crop(_pixels(row["box"], picture.size)).save(partial)
                row["crop"] = str(crop)
        yield result


def _pixels(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels that a box touches, one at least."""
    left, top = (min(int(side), most - 1) for side, most in zip(box[:2], size, strict=True))
    right, bottom = (min(-int(-side // 1), most) for side, most in zip(box[2:], size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def check_crop_paths(pictures: Sequence[Path], directory: Path) -> None:
    """Raises `InvalidValueError` if a picture lies where crops go and is called as one: it may be written over."""
    for picture in pictures:
        if IS_CROP.search(picture.name) and picture.resolve().parent == directory.resolve():
            raise InvalidValueError(
                f"{picture} is called as a crop of a former run, and may be written over; leave it out, or choose "
                "another --output-dir"
            )


def write_coco(results: Sequence[Mapping[str, Any]], class_names: Sequence[str], path: Path) -> None:
    """Writes what was found as COCO's tools read it, with `score` in each annotation: `COCO(path)` opens it, and its
    `annotations` are what `loadRes` takes.

    Args:
        results: of `find_boxes`, without errors.
        class_names: names of the classes, whose numbers from 1 on are COCO's.
        path: of the JSON file.
    """
    boxes = [(number, each) for number, result in enumerate(results, start=1) for each in result["boxes"]]
    told = {
        "images": [
            {"id": number, "file_name": Path(each["image"]).name, "width": each["width"], "height": each["height"]}
            for number, each in enumerate(results, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)],
        "annotations": [
            {"id": index, "image_id": number, "category_id": each["index"] + 1, "score": each["score"], "iscrowd": 0}
            | _sides(each["box"])
            for index, (number, each) in enumerate(boxes, start=1)
        ],
    }
    write_text(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _sides(box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = round(right - left, 2), round(bottom - top, 2)
    return {"bbox": [left, top, width, height], "area": round(width * height, 2)}
