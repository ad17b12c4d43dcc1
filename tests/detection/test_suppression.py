"""What is kept of a detector's outputs: torchvision's detections, and a loop's."""

from dataclasses import replace

import numpy as np
import pytest
from detection.loops import box_overlap
from detection.torchvisions import GOLDENS, places_of
from goldens.scenes import batches, outputs

from kzoo.detection.coding import decode_deltas, decode_distances
from kzoo.detection.suppression import FCOS, RETINANET, Detections, Suppression, detect
from kzoo.errors import InvalidValueError


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def finished(detector: str, number: int, batch) -> dict[str, np.ndarray]:
    """What a model gives: relative boxes and scores of the first two images of a batch."""
    places = places_of(detector, batch.size)
    raw = {key: value[:2] for key, value in outputs(detector, number, 4, places.count).items()}
    if detector == "fcos":
        boxes = decode_distances(raw["offsets"], places.centres, places.strides)
        scores = np.sqrt(sigmoid(raw["logits"]) * sigmoid(raw["centerness"]))
    else:
        boxes, scores = decode_deltas(raw["offsets"], places.anchors), sigmoid(raw["logits"])
    scale = np.float32([*batch.size[::-1], *batch.size[::-1]])
    return {"boxes": np.clip(np.asarray(boxes) / scale, 0, 1), "scores": scores}


@pytest.mark.parametrize("detector", ["fcos", "retinanet"])
@pytest.mark.parametrize("limits", [0, 1, 2])
def test_detections_are_torchvisions(detector, limits):
    score, candidates, most_overlap, most = GOLDENS[f"{detector}_limits_{limits}"].tolist()
    rule = Suppression(score, int(candidates), most_overlap, int(most))
    if limits == 0:
        assert rule == {"fcos": FCOS, "retinanet": RETINANET}[detector]
    found = []
    for number, batch in zip(range(2), batches(), strict=False):
        sized = replace(rule, level_sizes=[level.count for level in places_of(detector, batch.size).levels])
        found += detect(finished(detector, number, batch), [batch.size] * 2, sized)
    golden = {key: GOLDENS[f"{detector}_{key}_{limits}"] for key in ("count", "boxes", "scores", "classes")}
    assert [len(each) for each in found] == golden["count"].tolist()
    np.testing.assert_array_equal(np.concatenate([each.classes for each in found]), golden["classes"])
    np.testing.assert_allclose(np.concatenate([each.scores for each in found]), golden["scores"], atol=1e-6)
    np.testing.assert_allclose(np.concatenate([each.boxes for each in found]), golden["boxes"], atol=1e-4)


def keep_loop(boxes, scores, rule: Suppression, sizes) -> list[tuple]:
    """(score, class, place) of what is kept."""
    candidates, start = [], 0
    for size in sizes:
        level = [
            (float(scores[place, index]), index, place)
            for place in range(start, start + size)
            for index in range(scores.shape[1])
            if scores[place, index] > rule.score
        ]
        candidates += sorted(level, key=lambda one: -one[0])[: rule.candidates]
        start += size
    kept: list[tuple] = []
    for one in sorted(candidates, key=lambda one: -one[0]):
        rivals = (other for other in kept if other[1] == one[1])
        if all(box_overlap(boxes[one[2]], boxes[other[2]]) <= rule.overlap for other in rivals):
            kept.append(one)
    return kept[: rule.most]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_is_what_a_loop_keeps(seed):
    rng = np.random.default_rng(seed)
    sizes, rule = (30, 20, 5), Suppression(score=0.3, candidates=25, overlap=0.4, most=20)
    corners = rng.uniform(0, 20, (55, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 20, (55, 2))], axis=1).astype("float32")
    scores = rng.choice(np.float32(np.linspace(0, 1, 400)), (55, 3), replace=False)
    found = replace(rule, level_sizes=sizes)(boxes, scores)
    expected = keep_loop(boxes, scores, rule, sizes)
    assert len(expected) == len(found) == 20 or seed
    np.testing.assert_array_equal(found.scores, np.float32([score for score, _, _ in expected]))
    np.testing.assert_array_equal(found.classes, [index for _, index, _ in expected])
    np.testing.assert_array_equal(found.boxes, [boxes[place] for _, _, place in expected])
    np.testing.assert_array_equal(found.places, [place for _, _, place in expected])
    few = found.above(float(found.scores[3]))
    assert few.places.tolist() == found.places[:4].tolist()


def test_classes_do_not_suppress_each_other_and_boxes_without_area_do_not_either():
    boxes = np.float32([[0, 0, 8, 8], [0, 0, 8, 8], [3, 3, 3, 3], [3, 3, 3, 3]])
    scores = np.float32([[0.9, 0.7], [0.8, 0.1], [0.5, 0], [0.4, 0]])
    found = Suppression(0.2, 10, 0.5, 10)(boxes, scores)
    assert found.scores.tolist() == np.float32([0.9, 0.7, 0.5, 0.4]).tolist()
    assert found.classes.tolist() == [0, 1, 0, 0]
    assert len(found.above(0.5)) == 3


def test_nothing_is_found_where_nothing_is_sure():
    found = FCOS(np.zeros((6, 4)), np.full((6, 3), 0.2))
    assert (found.boxes.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))
    assert found.classes.dtype == "int32"


def test_boxes_are_in_pixels_of_each_picture():
    outputs = {"boxes": np.full((2, 1, 4), [0, 0.25, 0.5, 1]), "scores": np.ones((2, 1, 1))}
    found = detect(outputs, [(480, 640), (100, 50)], FCOS)
    assert [each.boxes.tolist() for each in found] == [[[0, 120, 320, 480]], [[0, 25, 25, 100]]]
    assert all(isinstance(each, Detections) for each in found)


def test_bad_limits_are_one_line():
    with pytest.raises(InvalidValueError, match=r"overlap=1\.5 is not accepted; it goes from 0 to 1"):
        Suppression(0.1, 10, 1.5, 10)
    with pytest.raises(InvalidValueError, match="most=0 is not accepted"):
        Suppression(0.1, 10, 0.5, 0)
    with pytest.raises(InvalidValueError, match="do not go together"):
        replace(FCOS, level_sizes=(3, 2))(np.zeros((6, 4)), np.zeros((6, 3)))
