"""How well boxes are found: COCO's numbers, curves of precision and recall, and errors by their kind.

The numbers are computed by pycocotools, the authors' own code, so that they are those that others publish; it is
BSD-licensed and needs NumPy alone.
"""

import contextlib
import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.detection.suppression import Detections, overlaps
from kzoo.errors import BackendError, InvalidValueError

CROWD = -2  # class of a crowd of class 0, below which those of the others follow
NUMBERS = (  # COCO's, in its order
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
RECALLS = np.linspace(0, 1, 101)
FOUND, TOUCHED = 0.5, 0.1  # overlaps from which on a box is found, and from which on it is at least meant
KINDS = ("missed", "duplicate", "wrong_class", "loose_box", "background")


class AveragePrecision:
    """Counts what was found in pictures against what is there.

    Args:
        classes: names.

    Raises:
        BackendError: pycocotools is not installed.

    Example:
        >>> metric = AveragePrecision(("cat", "dog"))
        >>> metric.add(found, boxes=[[10, 20, 80, 90]], classes=[1])
        >>> metric.scores()["ap50"], metric.errors(score=0.3)
        (1.0, {'missed': 0, 'duplicate': 0, 'wrong_class': 0, 'loose_box': 0, 'background': 0})
    """

    def __init__(self, classes: Sequence[str]):
        try:
            import pycocotools.cocoeval  # noqa: F401
        except ImportError as error:
            raise BackendError(
                "COCO's average precision needs pycocotools: pip install 'kzoo[detection]' or pycocotools"
            ) from error
        self.classes = tuple(classes)
        self._found: list[Detections] = []
        self._boxes: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []

    def add(self, found: Detections, boxes: Any, classes: Any) -> None:
        """Counts one picture.

        Args:
            found: in its pixels.
            boxes: (n, 4) that are there, in its pixels: left, top, right and bottom.
            classes: (n,) their numbers; -1 for no box, and -2 - c for a crowd of class c, in which what is found is
                not judged.

        Raises:
            InvalidValueError: shapes that do not go together, or a class that does not exist.
        """
        boxes, classes = np.asarray(boxes, "float64").reshape(-1, 4), np.asarray(classes, int).reshape(-1)
        known = np.concatenate([found.classes, np.where(classes <= CROWD, CROWD - classes, classes)])
        if len(boxes) != len(classes) or ((known < -1) | (known >= len(self.classes))).any():
            shown = f"{classes.tolist()[:5]} and {found.classes.tolist()[:5]} of those found"
            raise InvalidValueError(
                f"{len(boxes)} boxes of classes {shown} do not go together; classes are 0 to {len(self.classes) - 1}"
            )
        real = classes != -1
        self.__dict__.pop("_evaluation", None)
        self._found.append(found)
        self._boxes.append(boxes[real])
        self._kinds.append(classes[real])

    def __len__(self) -> int:
        return len(self._found)

    def scores(self) -> dict[str, Any]:
        """COCO's twelve numbers (`NUMBERS`), `ap_by_class`, `ap50_by_class` and `boxes_by_class`, how many are there;
        None where no box is there.

        `ap` is the mean over overlaps from .5 to .95; `ar` is recall with so many detections of a picture at most.
        Boxes below 32² pixels are small, those from 96² on large: areas of boxes, where COCO's own files have those
        of the outlines inside.
        """
        evaluation = self._evaluation
        stats = [None if value < 0 else float(value) for value in evaluation.stats]
        precision = evaluation.eval["precision"][..., 0, -1]  # (overlaps, recalls, classes), of all sizes
        return {
            **dict(zip(NUMBERS, stats, strict=True)),
            "ap_by_class": self._by_class(precision),
            "ap50_by_class": self._by_class(precision[:1]),
            "boxes_by_class": dict(zip(self.classes, self._count(), strict=True)),
        }

    def best_score(self) -> float:
        """The score from which on detections have the best F1 of all classes together, at an overlap of one half.

        The higher one of equals; 1 where nothing right was found.
        """
        scores, right = [], []
        for each in self._evaluation.evalImgs:
            if each is not None and each["aRng"] == self._evaluation.params.areaRng[0]:
                judged = ~np.asarray(each["dtIgnore"][0], bool)
                scores.append(np.asarray(each["dtScores"])[judged])
                right.append(np.asarray(each["dtMatches"][0])[judged] > 0)
        surest = np.argsort(-np.concatenate(scores or [np.zeros(0)]), kind="stable")
        ranked, hits = np.concatenate(scores or [np.zeros(0)])[surest], np.concatenate(right or [surest])[surest]
        if not hits.any():
            return 1.0
        f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + sum(self._count()))
        last = np.append(ranked[1:] != ranked[:-1], True)  # of those that are equally sure all are kept, or none
        return float(ranked[last][f1[last].argmax()])

    def curves(self) -> dict[str, np.ndarray]:
        """Precision at the 101 `RECALLS` of each class that is there, (101,), at an overlap of one half."""
        precision = self._evaluation.eval["precision"][0, :, :, 0, -1]
        return {name: values for name, values in zip(self.classes, precision.T, strict=True) if (values >= 0).all()}

    def errors(self, score: float) -> dict[str, int]:
        """How many detections of at least a score are wrong, by their kind, and how many boxes are missed, in all
        pictures; see `errors_by_picture`."""
        counts = self.errors_by_picture(score)
        return {kind: sum(each[kind] for each in counts) for kind in KINDS}

    def errors_by_picture(self, score: float) -> list[dict[str, int]]:
        """Of each picture how many detections of at least a score are wrong, by their kind, and how many boxes are
        missed.

        In each picture the surest detection comes first and takes the box of its class that it overlaps most, of those
        that are left, if by at least `FOUND`. Of one that takes none the first of these that is true is its kind:

        - `duplicate`: it overlaps a box of its class, which is taken, by at least `FOUND`;
        - `wrong_class`: it overlaps a box of another class by at least `FOUND`;
        - `loose_box`: it overlaps a box of its class by at least `TOUCHED`;
        - nothing, if half of it lies in a crowd of its class: it is not judged;
        - `background`: anything else.

        A box that is taken by none is `missed`. These are kinds as TIDE has them (arXiv:2008.08115), but that a loose
        box of a wrong class is background here, and every box that is not taken is missed.
        """
        pictures = []
        for found, boxes, kinds in zip(self._found, self._boxes, self._kinds, strict=True):
            counts = dict.fromkeys(KINDS, 0)
            taken = np.zeros(len(boxes), bool)
            sure = found.above(score)
            order = np.argsort(-sure.scores, kind="stable")
            for box, kind in zip(sure.boxes[order].astype(float), sure.classes[order].tolist(), strict=True):
                shares = overlaps(box, boxes)
                own = kinds == kind
                free = np.where(own & ~taken, shares, -1.0)
                if len(free) and free.max() >= FOUND:
                    taken[free.argmax()] = True
                    continue
                if (name := _kind(box, boxes, shares, own, kinds, kind)) is not None:
                    counts[name] += 1
            counts["missed"] = int((~taken & (kinds >= 0)).sum())
            pictures.append(counts)
        return pictures

    def _by_class(self, precision: np.ndarray) -> dict[str, float | None]:
        """Means of precisions (overlaps, recalls, classes) that are there."""
        means = {}
        for number, name in enumerate(self.classes):
            values = precision[..., number][precision[..., number] >= 0]
            means[name] = float(values.mean()) if values.size else None
        return means

    def _count(self) -> list[int]:
        """Boxes of each class that are there, without crowds."""
        kinds = np.concatenate([np.zeros(0, int), *self._kinds])
        return np.bincount(kinds[kinds >= 0], minlength=len(self.classes)).tolist()

    @functools.cached_property
    def _evaluation(self):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not self._found:
            raise InvalidValueError("no picture was added, of which something could be counted")
        truth, predicted = COCO(), COCO()
        shared = {
            "images": [{"id": number} for number in range(len(self._found))],
            "categories": [{"id": number} for number in range(len(self.classes))],
        }
        truth.dataset = {**shared, "annotations": self._truth()}
        predicted.dataset = {**shared, "annotations": self._predictions()}
        with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
            truth.createIndex()
            predicted.createIndex()
            evaluation = COCOeval(truth, predicted, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    def _truth(self) -> list[dict[str, Any]]:
        rows = (
            (number, box, kind)
            for number, (boxes, kinds) in enumerate(zip(self._boxes, self._kinds, strict=True))
            for box, kind in zip(boxes, kinds.tolist(), strict=True)
        )
        return [
            _row(index, number, box, kind if kind >= 0 else CROWD - kind) | {"iscrowd": int(kind < 0), "ignore": 0}
            for index, (number, box, kind) in enumerate(rows, start=1)
        ]

    def _predictions(self) -> list[dict[str, Any]]:
        rows = (
            (number, box, kind, score)
            for number, found in enumerate(self._found)
            for box, kind, score in zip(found.boxes, found.classes.tolist(), found.scores.tolist(), strict=True)
        )
        return [
            _row(index, number, box.astype(float), kind) | {"score": score, "iscrowd": 0}
            for index, (number, box, kind, score) in enumerate(rows, start=1)
        ]


def _row(index: int, image: int, box: np.ndarray, kind: int) -> dict[str, Any]:
    """One box as COCO has it; numbers begin at 1, as 0 stands for none in its matches."""
    left, top, right, bottom = box.tolist()
    sides = [left, top, right - left, bottom - top]
    return {"id": index, "image_id": image, "category_id": kind, "bbox": sides, "area": sides[2] * sides[3]}


def _kind(
    box: np.ndarray, boxes: np.ndarray, shares: np.ndarray, own: np.ndarray, kinds: np.ndarray, kind: int
) -> str | None:
    """What is wrong with a detection that took no box; None for one in a crowd."""
    if (shares[own] >= FOUND).any():
        return "duplicate"
    if (shares[(kinds >= 0) & ~own] >= FOUND).any():
        return "wrong_class"
    if (shares[own] >= TOUCHED).any():
        return "loose_box"
    crowds = boxes[kinds == CROWD - kind]
    sides = np.maximum(np.minimum(box[2:], crowds[:, 2:]) - np.maximum(box[:2], crowds[:, :2]), 0)
    if (sides.prod(axis=1) >= FOUND * (box[2:] - box[:2]).prod()).any():
        return None
    return "background"
