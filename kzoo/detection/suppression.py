"""From what a detector says at all its places to the boxes that it found: the best of each heap, in NumPy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from kzoo.errors import InvalidValueError

MOST_PLACES = 10_000_000  # of a level, of a card: an image of 20,000×20,000 pixels has 6,250,000 at stride 8


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= int(value) <= MOST_PLACES


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, the surest first.

    Attributes:
        boxes: float32 (n, 4): left, top, right and bottom, in pixels of the picture.
        scores: float32 (n,), from 0 to 1.
        classes: int32 (n,), numbers of the classes.
        places: int32 (n,), numbers of the places that found them; None where nobody knows.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Those that are at least so sure."""
        kept = self.scores >= score
        places = None if self.places is None else self.places[kept]
        return Detections(self.boxes[kept], self.scores[kept], self.classes[kept], places)


@dataclass(frozen=True)
class Suppression:
    """What is kept of scores and boxes: torchvision's rules in torchvision's order.

    A place may find several classes. Of the candidates, a place with a class each, of every level those above the
    score are taken, the best ones; of all levels together, from the best on, each that overlaps no better one of its
    class too much; of those again the best.

    Attributes:
        score: that a candidate must be above.
        candidates: most of a level.
        overlap: intersection over union, above which the worse one of two boxes of a class goes.
        most: detections of a picture.
        level_sizes: places of each level, one behind the other; None: all are one level.

    Raises:
        InvalidValueError: a share that is none, or a number below 1.

    Example:
        >>> found = replace(RETINANET, level_sizes=(1200, 300, 75))(boxes, scores)
        >>> found.boxes[0], found.scores[0], found.classes[0]
    """

    score: float
    candidates: int
    overlap: float
    most: int
    level_sizes: tuple[int, ...] | None = None

    def __post_init__(self):
        for name in ("score", "overlap"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise InvalidValueError(f"{name}={value!r} is not accepted; it goes from 0 to 1")
        for name in ("candidates", "most"):
            if not _is_count(getattr(self, name)):
                raise InvalidValueError(f"{name}={getattr(self, name)!r} is not accepted; it is a number from 1 on")
        sizes = self.level_sizes
        if sizes is not None:
            if not isinstance(sizes, list | tuple) or not sizes or not all(map(_is_count, sizes)):
                raise InvalidValueError(f"level_sizes={sizes!r:.60} is not accepted; it has a number for each level")
            object.__setattr__(self, "level_sizes", tuple(map(int, sizes)))

    def check_places(self, count: int, what: str) -> None:
        """Raises `InvalidValueError` if the levels are not those of the places of a model or file, `what`."""
        if self.level_sizes is not None and sum(self.level_sizes) != count:
            places = f"level_sizes={list(self.level_sizes)!r:.60} are {sum(self.level_sizes)} places"
            raise InvalidValueError(f"{places}, and {what} has {count}")

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return asdict(self) | {"level_sizes": None if self.level_sizes is None else [*self.level_sizes]}

    @classmethod
    def from_json(cls, value: object) -> "Suppression":
        """Reads what `to_json` gives, whoever wrote it.

        Raises:
            InvalidValueError: a field that lacks, is unknown or cannot be.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(value, dict) or value.keys() != set(names):
            raise InvalidValueError(f"a suppression must be an object with {', '.join(names)}, not {value!r:.100}")
        return cls(**value)

    def __call__(self, boxes: np.ndarray, scores: np.ndarray) -> Detections:
        """The detections of one picture.

        Args:
            boxes: (places, 4), of any unit, which those that are found keep.
            scores: (places, classes).
        """
        boxes, scores = np.asarray(boxes, "float32"), np.asarray(scores, "float32")
        sizes = [len(scores)] if self.level_sizes is None else list(self.level_sizes)
        if sum(sizes) != len(scores) or len(boxes) != len(scores):
            raise InvalidValueError(
                f"{len(boxes)} boxes, {len(scores)} scores and levels of {sizes} do not go together"
            )
        starts = np.cumsum([0, *sizes[:-1]])
        levels = [self._best(scores[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
        places = np.concatenate([start + level[0] for start, level in zip(starts, levels, strict=True)])
        classes = np.concatenate([level[1] for level in levels])
        kept = self._keep(boxes[places], scores[places, classes], classes)
        places, classes = places[kept], classes[kept]
        return Detections(boxes[places], scores[places, classes], classes.astype("int32"), places.astype("int32"))

    def _best(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places and classes of a level's candidates, the best first."""
        places, classes = np.nonzero(scores > self.score)
        order = np.argsort(-scores[places, classes], kind="stable")[: self.candidates]
        return places[order], classes[order]

    def _keep(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Numbers of the candidates that are kept, the best first."""
        rest = np.argsort(-scores, kind="stable")
        kept: list[int] = []
        while len(rest) and len(kept) < self.most:
            best, rest = rest[0], rest[1:]
            kept.append(best)
            worse = (classes[rest] == classes[best]) & (overlaps(boxes[best], boxes[rest]) > self.overlap)
            rest = rest[~worse]
        return np.array(kept, int)


FCOS = Suppression(score=0.2, candidates=1000, overlap=0.6, most=100)  # torchvision's, as is the next one
RETINANET = Suppression(score=0.05, candidates=1000, overlap=0.5, most=300)
RULES = {"fcos": FCOS, "retinanet": RETINANET}  # of each kind of places


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (n,) of a box (4,) with others (n, 4), in NumPy; 0 where none has an area."""
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    shared = sides[:, 0] * sides[:, 1]
    own = (box[2] - box[0]) * (box[3] - box[1])
    both = own + (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) - shared
    return np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)


def detect(
    outputs: dict[str, np.ndarray],
    sizes: Sequence[tuple[int, int]],
    suppression: Suppression,
) -> list[Detections]:
    """What a detector's outputs find in pictures.

    Args:
        outputs: `boxes` (n, places, 4), relative to the image that the model saw, which shows the whole picture, and
            `scores` (n, places, classes).
        sizes: height and width of each picture in pixels.
        suppression: what is kept.

    Returns:
        Of each picture what was found, with boxes in its pixels.

    Example:
        >>> found = detect(model.predict(images), [(480, 640)] * len(images), FCOS)
    """
    pictures = zip(outputs["boxes"], outputs["scores"], sizes, strict=True)
    return [
        suppression(boxes * np.array([width, height, width, height], "float32"), scores)
        for boxes, scores, (height, width) in pictures
    ]
