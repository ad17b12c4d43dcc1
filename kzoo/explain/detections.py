"""Which detections of an image are explained, and the same ones in another model."""

from collections.abc import Collection, Sequence

import numpy as np

from kzoo.detection.suppression import Suppression, overlaps
from kzoo.errors import InvalidValueError, counted
from kzoo.explain.boxes import Box
from kzoo.last_operation import BOXES, SCORES

EXPLAINED = 3  # detections of which maps are made where nobody says which
SHOWN = 10  # detections in the table of a picture


def found_boxes(
    outputs: dict[str, np.ndarray],
    rule: Suppression,
    class_names: Sequence[str],
    classes: Collection[int] = (),
    numbers: Sequence[int] = (),
) -> tuple[list[dict], list[Box]]:
    """What a detector finds in one image, and which of it is explained.

    Where nothing is found, or nothing of the classes that are asked for, the surest box that there is is explained:
    its map shows what speaks against it.

    Args:
        outputs: `boxes` (1, places, 4), of any unit, and `scores` (1, places, classes).
        rule: what is kept.
        class_names: names of the classes.
        classes: indices of those that are explained; none: all.
        numbers: numbers of the detections that are explained, 1 is the surest; none: the three surest of `classes`.

    Returns:
        Rows of a table, the surest first, each with number, class and its index, place, score and box; and what is
        explained.

    Raises:
        InvalidValueError: no detection of such a number.
    """
    boxes, scores = outputs[BOXES][0], outputs[SCORES][0]
    found = Box.of(rule(boxes, scores))
    if unknown := [number for number in numbers if not 1 <= number <= len(found)]:
        known = f"give numbers from 1 to {len(found)}, the surest is 1" if found else "leave it out"
        raise InvalidValueError(f"box {unknown[0]} is not there: {counted(len(found), 'box', 'boxes')} found; {known}")
    able = [index for index, box in enumerate(found) if not classes or box.class_index in classes]
    chosen = [number - 1 for number in dict.fromkeys(numbers)] or able[:EXPLAINED]
    if not chosen:
        asked = np.full_like(scores, -1)
        asked[:, list(classes) or slice(None)] = scores[:, list(classes) or slice(None)]
        place, index = np.unravel_index(asked.argmax(), asked.shape)
        found, chosen = [*found, Box(int(place), int(index))], [len(found)]
    shown = sorted({*range(min(SHOWN, len(found))), *chosen})
    rows = [_row(index + 1, found[index], boxes, scores, class_names) for index in shown]
    return rows, [found[index] for index in chosen]


def same_boxes(
    rows: Sequence[dict], outputs: dict[str, np.ndarray], seen: np.ndarray, class_names: Sequence[str]
) -> tuple[list[dict], list[Box]]:
    """The detections of `rows` in another model: of each the place whose box overlaps most, by its score of the class.

    Args:
        rows: what `found_boxes` gave of another model.
        outputs: `boxes` (1, places, 4) and `scores` (1, places, classes).
        seen: the boxes of all places (places, 4) in the unit of `rows`, as the images of two models may differ.
        class_names: names of the classes, among them those of `rows`.

    Returns:
        Rows with the same numbers, and what is explained.
    """
    boxes, scores = outputs[BOXES][0], outputs[SCORES][0]
    found = []
    for row in rows:
        index = list(class_names).index(row["class"])
        shared = overlaps(np.asarray(row["box"], "float32"), seen)
        found.append(Box(int((shared * scores[:, index]).argmax()), index))
    numbers = [row["number"] for row in rows]
    return [_row(n, box, boxes, scores, class_names) for n, box in zip(numbers, found, strict=True)], found


def _row(number: int, box: Box, boxes: np.ndarray, scores: np.ndarray, class_names: Sequence[str]) -> dict:
    return {
        "number": number,
        "class": class_names[box.class_index],
        "index": box.class_index,
        "place": box.place,
        "score": float(scores[box.place, box.class_index]),
        "box": [round(float(side), 2) for side in boxes[box.place]],
    }
