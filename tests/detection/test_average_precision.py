"""COCO's numbers against a loop written from its rules, and errors by their kind in scenes that are drawn by hand."""

import sys

import numpy as np
import pytest
from detection.loops import box_overlap

from kzoo.detection.average_precision import KINDS, NUMBERS, RECALLS, AveragePrecision
from kzoo.detection.suppression import Detections
from kzoo.errors import BackendError, InvalidValueError


def found(*rows) -> Detections:
    """Detections of (box, class, score)."""
    boxes, classes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(classes))


def random_scene(rng, classes: int):
    """Boxes, classes, and detections of which some are near them."""
    count = int(rng.integers(0, 7))
    corners = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + np.exp(rng.uniform(np.log(10), np.log(200), (count, 2)))], axis=1)
    kinds = rng.integers(0, classes, count)
    rows = []
    for box, kind in zip(boxes, kinds, strict=True):
        for _ in range(rng.integers(0, 3)):
            side = np.tile(box[2:] - box[:2], 2)
            rows.append((box + rng.normal(0, 0.1, 4) * side, kind if rng.random() < 0.8 else rng.integers(classes)))
    rows += [(np.concatenate([corner, corner + 40]), rng.integers(classes)) for corner in rng.uniform(0, 200, (2, 2))]
    return boxes, kinds, found(*((box, kind, float(rng.random())) for box, kind in rows))


def average_precision(scenes, kind: int, overlap: float) -> np.ndarray | None:
    """Precision at 101 recalls of a class, one detection at a time."""
    pairs, free = [], {}
    for number, (boxes, kinds, each) in enumerate(scenes):
        pairs += [(score, number, box) for box, one, score in rows_of(each) if one == kind]
        free[number] = [box for box, one in zip(boxes, kinds, strict=True) if one == kind]
    total = sum(map(len, free.values()))
    if not total:
        return None
    points, right = [], 0
    for rank, (_, number, box) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), start=1):
        shares = [box_overlap(box, other) for other in free[number]]
        if shares and max(shares) >= overlap:
            free[number].pop(shares.index(max(shares)))
            right += 1
        points.append((right / total, right / rank))
    return np.array([max((precision for recall, precision in points if recall >= at), default=0.0) for at in RECALLS])


def rows_of(each: Detections):
    return zip(each.boxes.astype(float).tolist(), each.classes.tolist(), each.scores.tolist(), strict=True)


def test_numbers_are_those_of_a_loop():
    rng = np.random.default_rng(4)
    scenes = [random_scene(rng, 3) for _ in range(25)]
    metric = AveragePrecision(("a", "b", "c", "never"))
    for boxes, kinds, each in scenes:
        padded = np.concatenate([boxes, np.zeros((2, 4))]), np.concatenate([kinds, [-1, -1]])
        metric.add(each, *padded)
    scores = metric.scores()
    assert len(metric) == 25
    by_class = {}
    for kind, name in enumerate("abc"):
        curves = [average_precision(scenes, kind, overlap) for overlap in np.arange(50, 100, 5) / 100]
        by_class[name] = np.mean(curves)
        np.testing.assert_allclose(scores["ap_by_class"][name], by_class[name], atol=1e-9)
        np.testing.assert_allclose(scores["ap50_by_class"][name], np.mean(curves[0]), atol=1e-9)
        np.testing.assert_allclose(metric.curves()[name], curves[0], atol=1e-9)
    np.testing.assert_allclose(scores["ap"], np.mean([*by_class.values()]), atol=1e-9)
    assert set(scores) == {*NUMBERS, "ap_by_class", "ap50_by_class", "boxes_by_class"}
    there = np.concatenate([kinds for _, kinds, _ in scenes])
    assert scores["boxes_by_class"] == {name: int((there == kind).sum()) for kind, name in enumerate("abc")} | {
        "never": 0
    }
    assert scores["ap_by_class"]["never"] is None
    assert list(metric.curves()) == ["a", "b", "c"]
    assert 0.1 < scores["ap"] < scores["ap50"] < 1
    assert all(0 <= scores[name] <= 1 for name in NUMBERS)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_score_is_that_of_a_loop_over_all(seed):
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, 3) for _ in range(12)]
    metric = AveragePrecision(("a", "b", "c"))
    for boxes, kinds, each in scenes:
        metric.add(each, boxes, kinds)
    boxes, best = sum(len(kinds) for _, kinds, _ in scenes), {}
    for score in sorted({float(score) for _, _, each in scenes for score in each.scores}):
        right = boxes - metric.errors(score)["missed"]
        best[score] = 2 * right / (boxes + sum(len(each.above(score)) for _, _, each in scenes))
    chosen = metric.best_score()
    assert best[chosen] == pytest.approx(max(best.values()), abs=1e-9)
    assert chosen == max(score for score, f1 in best.items() if f1 > max(best.values()) - 1e-9)
    assert 0 < max(best.values()) < 1


def test_perfect_detections_have_ones_and_no_errors():
    metric = AveragePrecision(("a", "b"))
    boxes = [[0, 0, 20, 20], [30, 0, 90, 60], [100, 0, 300, 200]]
    metric.add(found((boxes[0], 0, 0.9), (boxes[1], 1, 0.8), (boxes[2], 1, 0.7)), boxes, [0, 1, 1])
    metric.add(found(), [], [])
    scores = metric.scores()
    assert {name: round(scores[name], 9) for name in NUMBERS if name != "ar1"} == dict.fromkeys(
        (name for name in NUMBERS if name != "ar1"), 1.0
    )
    assert scores["ar1"] == 0.75, "one of two of the second class"
    assert metric.errors(score=0.1) == dict.fromkeys(KINDS, 0)


def test_without_boxes_or_detections():
    metric = AveragePrecision(("a",))
    metric.add(found(([0, 0, 9, 9], 0, 0.5)), np.zeros((3, 4)), [-1, -1, -1])
    assert metric.scores()["ap"] is None
    assert metric.curves() == {}
    metric.add(found(), [[0, 0, 9, 9]], [0])
    assert metric.scores()["ap"] == 0
    assert metric.errors(0.1) == {**dict.fromkeys(KINDS, 0), "missed": 1, "background": 1}


BOX = [0, 0, 100, 100]


@pytest.mark.parametrize(
    ("rows", "kinds", "expected"),
    [
        ([(BOX, 0, 0.9)], [0], {}),
        ([], [0], {"missed": 1}),
        ([(BOX, 0, 0.9), ([0, 0, 100, 90], 0, 0.8)], [0], {"duplicate": 1}),
        ([(BOX, 1, 0.9)], [0], {"wrong_class": 1, "missed": 1}),
        ([([0, 0, 100, 30], 0, 0.9)], [0], {"loose_box": 1, "missed": 1}),
        ([([0, 0, 100, 30], 1, 0.9)], [0], {"background": 1, "missed": 1}),
        ([([0, 0, 100, 9], 0, 0.9)], [0], {"background": 1, "missed": 1}),
        ([([200, 0, 300, 100], 0, 0.9)], [0], {"background": 1, "missed": 1}),
        ([([0, 0, 30, 30], 0, 0.9)], [-2], {}),
        ([([0, 0, 30, 30], 1, 0.9)], [-2], {"background": 1}),
        ([(BOX, 0, 0.2)], [0], {"missed": 1}),
    ],
)
def test_errors_have_their_kinds(rows, kinds, expected):
    metric = AveragePrecision(("a", "b"))
    metric.add(found(*rows), [BOX], kinds)
    assert metric.errors(score=0.3) == {**dict.fromkeys(KINDS, 0), **expected}


def test_the_surest_takes_the_box_in_whatever_order_they_come():
    metric = AveragePrecision(("a",))
    between = [0, 20, 100, 120]  # overlaps both boxes by two thirds
    metric.add(found((between, 0, 0.4), (BOX, 0, 0.9)), [BOX, [0, 40, 100, 140]], [0, 0])
    assert metric.errors(score=0.3) == dict.fromkeys(KINDS, 0)


def test_a_crowd_is_neither_missed_nor_are_detections_in_it_wrong():
    metric = AveragePrecision(("a",))
    metric.add(found((BOX, 0, 0.9), ([200, 0, 240, 40], 0, 0.95)), [BOX, [190, 0, 300, 100]], [0, -2])
    assert metric.scores()["ap"] == pytest.approx(1)
    assert metric.errors(score=0.3) == dict.fromkeys(KINDS, 0)


def test_bad_input_is_one_line(monkeypatch):
    metric = AveragePrecision(("a",))
    with pytest.raises(InvalidValueError, match="no picture was added"):
        metric.scores()
    for classes in ([1], [-3], [0, 0]):
        with pytest.raises(InvalidValueError, match="do not go together; classes are 0 to 0"):
            metric.add(found(), [BOX], classes)
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(BackendError, match=r"needs pycocotools: pip install 'kzoo\[detection\]'"):
        AveragePrecision(("a",))
