"""Which box each place finds: against loops written from the papers, and torchvision's matches of 200 scenes."""

import numpy as np
import pytest
import tensorflow as tf
from detection.loops import match_loop, sample_loop
from detection.torchvisions import GOLDENS, matches_of_batches, places_of
from goldens.scenes import SIZES, batches
from keras import ops

from kzoo.detection.assignment import BACKGROUND, IGNORED, match_anchors, matched, sample_centres


def on_points(boxes, classes, size, **options):
    places = places_of("fcos", size)
    arrays = places.centres, places.strides, places.level_of
    return ops.convert_to_numpy(sample_centres(boxes, classes, *arrays, **options))


def test_anchors_find_the_boxes_of_torchvision_in_200_scenes():
    with_low, strictly = (matches_of_batches(name, "retinanet") for name in ("retinanet", "strict"))
    for number, (batch, *expected) in enumerate(zip(batches(), with_low, strictly, strict=True)):
        anchors = places_of("retinanet", batch.size).anchors
        for low_quality, matches in zip((True, False), expected, strict=True):
            if low_quality or number < 10:
                found = match_anchors(batch.boxes, batch.classes, anchors, low_quality=low_quality)
                np.testing.assert_array_equal(ops.convert_to_numpy(found), matches)


def test_points_find_the_boxes_of_torchvision_in_200_scenes():
    for batch, expected in zip(batches(), matches_of_batches("fcos", "fcos"), strict=True):
        np.testing.assert_array_equal(on_points(batch.boxes, batch.classes, batch.size), expected)


@pytest.mark.parametrize("detector", ["fcos", "retinanet"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_places_are_torchvisions(detector, number):
    places = places_of(detector, SIZES[number])
    np.testing.assert_array_equal(places.anchors, GOLDENS[f"{detector}_anchors_{number}"])
    np.testing.assert_array_equal(places.level_of, GOLDENS[f"{detector}_levels_{number}"])


@pytest.mark.parametrize("low_quality", [True, False])
def test_anchors_are_matched_as_in_a_loop(low_quality):
    batch = next(batches())
    anchors = places_of("retinanet", batch.size).anchors[::3]
    options = dict(foreground=0.45, background=0.3, low_quality=low_quality)
    found = ops.convert_to_numpy(match_anchors(batch.boxes, batch.classes, anchors, **options))
    for boxes, classes, matches in zip(batch.boxes, batch.classes, found, strict=True):
        assert matches.tolist() == match_loop(boxes[classes >= 0].astype(float), anchors.astype(float), **options)
    assert {BACKGROUND, IGNORED} < set(found.ravel().tolist())


def test_points_are_matched_as_in_a_loop():
    batch = next(batches())
    places = places_of("fcos", batch.size)
    found = on_points(batch.boxes, batch.classes, batch.size, radius=2.0)
    for boxes, classes, matches in zip(batch.boxes, batch.classes, found, strict=True):
        arrays = places.centres, places.strides, places.level_of
        assert matches.tolist() == sample_loop(boxes[classes >= 0].astype(float), *arrays, radius=2.0)


def test_what_is_no_box_is_found_by_nothing_wherever_it_stands_in_the_row():
    batch = next(batches())
    anchors = places_of("retinanet", batch.size).anchors
    none = np.full_like(batch.classes, -1)
    assert (ops.convert_to_numpy(match_anchors(batch.boxes, none, anchors)) == BACKGROUND).all()
    assert (on_points(batch.boxes, none, batch.size) == BACKGROUND).all()
    last = batch.boxes[:, ::-1], batch.classes[:, ::-1]
    for first, mirrored in (
        (match_anchors(batch.boxes, batch.classes, anchors), match_anchors(*last, anchors)),
        (on_points(batch.boxes, batch.classes, batch.size), on_points(*last, batch.size)),
    ):
        first, mirrored = (ops.convert_to_numpy(each) for each in (first, mirrored))
        np.testing.assert_array_equal(np.where(first >= 0, batch.boxes.shape[1] - 1 - first, first), mirrored)


def test_a_box_that_no_anchor_touches_is_nobodys():
    anchors = np.float32([[0, 0, 8, 8], [8, 0, 16, 8]])
    boxes = np.float32([[[40, 40, 50, 50], [1, 1, 2, 2]]])
    found = ops.convert_to_numpy(match_anchors(boxes, np.int32([[0, 1]]), anchors))
    assert found.tolist() == [[1, BACKGROUND]]


@pytest.mark.parametrize("detector", ["retinanet", "fcos"])
def test_xla_matches_alike(detector):
    batch = next(batches())
    places = places_of(detector, batch.size)

    def match(boxes, classes):
        if detector == "retinanet":
            return match_anchors(boxes, classes, places.anchors)
        return sample_centres(boxes, classes, places.centres, places.strides, places.level_of)

    compiled = tf.function(match, jit_compile=True)(batch.boxes, batch.classes)
    np.testing.assert_array_equal(compiled, ops.convert_to_numpy(match(batch.boxes, batch.classes)))


def test_matched_takes_the_first_for_none():
    values = np.arange(12, dtype="float32").reshape(2, 3, 2)
    found = ops.convert_to_numpy(matched(values, np.int32([[2, -1], [-2, 1]])))
    assert found.tolist() == [[[4, 5], [0, 1]], [[6, 7], [8, 9]]]
