"""Pictures and boxes are changed together: boxes that are painted into pictures are found again where they went."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kzoo.data.box_changes import MOVING, UNKNOWN, BoxAugmentation
from kzoo.data.seeds import StepSeeds
from kzoo.errors import InvalidValueError
from kzoo.recipe import Augment

SIZE = 96, 128
BLACK, GREY = 0, 40  # what comes in from outside, and what is there beside boxes


def scenes(count: int, seed: int = 0):
    """Images with a bright box each, of a channel by its class, and truth that is padded to three boxes."""
    rng = np.random.default_rng(seed)
    images = np.full((count, *SIZE, 3), GREY, "float32")
    boxes, classes = np.zeros((count, 3, 4), "float32"), np.full((count, 3), -1, "int32")
    for number in range(count):
        sides = rng.integers(20, 50, 2)
        left, top = (int(rng.integers(0, limit - side + 1)) for limit, side in zip(SIZE[::-1], sides, strict=True))
        right, bottom = left + int(sides[0]), top + int(sides[1])
        kind = number % 3
        images[number, top:bottom, left:right, kind] = 255
        place = number % 3
        boxes[number, place] = left / SIZE[1], top / SIZE[0], right / SIZE[1], bottom / SIZE[0]
        classes[number, place] = kind
    return images, boxes, classes


def painted(image: np.ndarray, kind: int) -> np.ndarray | None:
    """The box of the bright pixels of a channel, in pixels."""
    bright = image[..., kind] > (255 + GREY) / 2
    if not bright.any():
        return None
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("changes", [*((name,) for name in MOVING), MOVING])
def test_painted_boxes_are_found_again(changes):
    images, boxes, classes = scenes(60)
    change = BoxAugmentation(Augment(changes, crop_area=(0.3, 0.9), translate_share=0.3))
    new, moved, kinds = (
        keras.ops.convert_to_numpy(each) for each in change(images, boxes, classes, StepSeeds(1, 2, 3))
    )
    assert (new.shape, moved.shape, kinds.shape) == (images.shape, boxes.shape, classes.shape)
    assert (np.abs(new - images).max(axis=(1, 2, 3)) > 1).sum() > 20
    lost = 0
    for number, kind in enumerate(number % 3 for number in range(60)):
        place = number % 3
        assert (np.delete(kinds[number], place) == -1).all()
        assert not np.delete(moved[number], place, axis=0).any()
        found = painted(new[number], kind)
        if kinds[number, place] == -1:
            lost += 1
            assert not moved[number, place].any()
            # a box whose middle is outside touches a border
            if found is not None:
                assert found[0] == 0 or found[1] == 0 or found[2] == SIZE[1] or found[3] == SIZE[0]
            continue
        assert kinds[number, place] == kind
        pixels = moved[number, place] * [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        assert np.abs(pixels - found).max() <= 1.01
        assert (moved[number] >= 0).all()
        assert (moved[number] <= 1).all()
    if changes in (("resized_crop",), ("flip",), ("flip_vertical",)):
        assert lost == 0
    if changes == ("resized_crop",):
        # the box is whole: cut nowhere, its colour fills as much as its window is smaller
        sides = (moved[..., 2:] - moved[..., :2]).max(axis=1) / (boxes[..., 2:] - boxes[..., :2]).max(axis=1)
        assert (sides >= 0.999).all()
        areas = 1 / sides.prod(axis=1)
        assert 0.29 < areas.min() < 0.4
        assert 0.75 < areas.max() < 0.95
    if changes == ("scale",):
        corners = new[:, [0, 0, -1, -1], [0, -1, 0, -1]].max(axis=-1)
        assert (corners == BLACK).any()
        assert (corners >= GREY).all(axis=1).any()
    if changes == ("translate",):
        assert 0 < lost < 20


def test_boxes_move_as_in_a_loop_over_windows():
    """Each box by itself, from the window that the images were cut by."""
    images, boxes, classes = scenes(20)
    change = BoxAugmentation(Augment(MOVING, crop_area=(0.2, 0.6), translate_share=0.4))
    _, moved, kinds = (keras.ops.convert_to_numpy(each) for each in change(images, boxes, classes, StepSeeds(0, 0, 9)))
    corner, sides = (keras.ops.convert_to_numpy(each) for each in change._windows(boxes, classes, StepSeeds(0, 0, 9)))
    assert (kinds == -1).sum() > (classes == -1).sum(), "some are lost"
    for number in range(20):
        for place in range(3):
            box = boxes[number, place].reshape(2, 2)
            ends = [[(end[axis] - corner[number, axis]) / sides[number, axis] for axis in (0, 1)] for end in box]
            first, last = np.min(ends, axis=0), np.max(ends, axis=0)
            middle = (first + last) / 2
            cut = np.clip(first, 0, 1), np.clip(last, 0, 1)
            large = ((cut[1] - cut[0]) * SIZE[::-1] >= 1).all()
            if classes[number, place] < 0 or (middle < 0).any() or (middle > 1).any() or not large:
                assert kinds[number, place] == -1
            else:
                assert kinds[number, place] == classes[number, place]
                np.testing.assert_allclose(moved[number, place], np.concatenate(cut), atol=1e-5)


def test_what_is_drawn_follows_from_the_seeds_alone():
    images, boxes, classes = scenes(8)
    change = BoxAugmentation(Augment(("resized_crop", "scale", "flip", "brightness"), crop_area=(0.3, 1.0)))
    results = [
        [keras.ops.convert_to_numpy(each) for each in change(images, boxes, classes, StepSeeds(5, epoch, step))]
        for epoch, step in ((1, 2), (1, 2), (2, 2), (1, 3))
    ]
    for first, again, *others in zip(*results, strict=True):
        np.testing.assert_array_equal(first, again)
        assert all((first != other).any() for other in others) or first.dtype == "int32"
    graph = tf.function(lambda step: change(images, boxes, classes, StepSeeds(5, 1, step)))
    for mine, traced in zip(results[0], graph(tf.constant(2, tf.int64)), strict=True):
        np.testing.assert_allclose(mine, traced, atol=0.02)


def test_images_without_boxes_are_cropped_too_and_crowds_move_along():
    images, boxes, classes = scenes(30)
    change = BoxAugmentation(Augment(("resized_crop", "flip"), crop_area=(0.3, 0.5)))
    empty = np.full_like(classes, -1)
    new, moved, kinds = (keras.ops.convert_to_numpy(each) for each in change(images, boxes, empty, StepSeeds(1, 1, 1)))
    assert (np.abs(new - images).max(axis=(1, 2, 3)) > 1).all()
    assert (kinds == -1).all()
    assert not moved.any()
    crowd = np.where(classes >= 0, -2 - classes, -1)
    _, moved, kinds = (keras.ops.convert_to_numpy(each) for each in change(images, boxes, crowd, StepSeeds(1, 1, 1)))
    assert set(kinds.ravel().tolist()) == {-1, -2, -3, -4}
    assert ((moved != 0).any(axis=-1) == (kinds != -1)).all()


@pytest.mark.parametrize("name", UNKNOWN)
def test_changes_that_boxes_do_not_follow_are_refused(name):
    with pytest.raises(InvalidValueError, match=f"augmentation '{name}' moves pixels, and boxes do not follow it"):
        BoxAugmentation(Augment(("flip", name)))
