"""Masks move with their images: images that say where each pixel came from prove it."""

import numpy as np
import pytest
import tensorflow as tf

from kzoo.train.augment import augmentation, joint
from kzoo.train.data import VOID
from kzoo.train.elastic import RandomElastic

HEIGHT, WIDTH, BAND = 48, 64, 8
MOVING = ("flip", "flip_vertical", "translate", "rotate", "zoom", "scale", "elastic")
COLOURING = ("brightness", "contrast", "saturation", "color", "erase")


@pytest.fixture(scope="module")
def scene():
    """Pixels that hold their row and column plus 1 (0 is outside), and a mask of the blocks of 8 that they are in."""
    rows, columns = np.indices((HEIGHT, WIDTH), dtype="float32")
    image = np.stack([rows + 1, columns + 1, np.full_like(rows, 200)], axis=-1)
    mask = (rows // BAND * (WIDTH // BAND) + columns // BAND).astype("uint8")
    return np.repeat(image[None], 8, axis=0), np.repeat(mask[None], 8, axis=0)


def through_pipeline(names, images, masks, seed=0):
    """As in training: in a graph, with an unknown batch size."""
    change = joint(augmentation(names, seed))
    dataset = tf.data.Dataset.from_tensor_slices((images, masks)).batch(8).map(change)
    return next(iter(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("names", [*((name,) for name in MOVING), MOVING])
def test_masks_move_with_their_images(names, scene):
    images, masks = scene
    changed, moved = through_pipeline(names, images, masks)
    assert moved.dtype == np.uint8
    assert (moved != masks).mean() > 0.1
    assert len({mask.tobytes() for mask in moved}) > 1, "every image has its own change"
    inside = changed[..., 2] == 200  # elsewhere black from outside is mixed in
    known = inside & (moved != VOID)
    assert known.mean() > 0.4
    rows, columns = (changed[..., axis] - 1 for axis in (0, 1))
    # nearest neighbours are half a pixel off at each change; away from the borders of blocks there is no doubt
    doubt = 0.75 * len(names)
    sure = known & _away(rows, doubt) & _away(columns, doubt)
    if len(names) == 1:
        assert sure.mean() > 0.2
        expected = rows // BAND * (WIDTH // BAND) + columns // BAND
        np.testing.assert_array_equal(moved[sure], expected[sure])
    label_rows, label_columns = np.divmod(moved.astype(int), WIDTH // BAND)
    for places, labels in ((rows, label_rows), (columns, label_columns)):
        off = np.abs(places - labels * BAND - (BAND - 1) / 2)
        assert off[known].max() <= BAND / 2 + doubt


def _away(places, doubt):
    return (places % BAND > doubt) & (places % BAND < BAND - 1 - doubt)


@pytest.mark.parametrize("name", MOVING)
def test_what_comes_from_outside_is_void_and_nothing_else_is(name, scene):
    images, masks = scene
    changed, moved = through_pipeline((name,), images, masks)
    outside = (changed == 0).all(axis=-1)
    np.testing.assert_array_equal(moved[outside], VOID)
    edge = (changed[..., 2] < 200) & ~outside  # half a pixel of the border may fall either way
    assert not (moved == VOID)[~outside & ~edge].any()
    assert (moved == VOID).any() == (name not in ("flip", "flip_vertical"))


@pytest.mark.quick
def test_void_stays_void(scene):
    images, masks = scene
    void = np.full_like(masks, VOID)
    assert (through_pipeline(MOVING, images, void)[1] == VOID).all()


@pytest.mark.parametrize("name", COLOURING)
def test_colours_leave_masks_alone(name, scene):
    images, masks = scene
    changed, same = through_pipeline((name,), images, masks)
    np.testing.assert_array_equal(same, masks)
    assert (changed != images).any()


def test_changes_do_not_depend_on_each_other():
    """With one seed for all layers flips and brightness had a correlation of -0.86."""
    images = np.full((512, 4, 6, 3), 100, "float32")
    images[:, :, 3:] = 128
    changed = augmentation(("flip", "brightness"), 0)(images, training=True).numpy()
    flipped = changed[:, 0, 0, 0] > changed[:, 0, -1, 0]
    assert 0.4 < flipped.mean() < 0.6
    assert abs(np.corrcoef(flipped, changed.mean(axis=(1, 2, 3)))[0, 1]) < 0.15


def test_without_augmentation_nothing_changes(scene):
    for given, got in zip(scene, joint(None)(*scene), strict=True):
        np.testing.assert_array_equal(given, got)


def test_elastic_field_is_smooth_differs_by_image_and_has_the_papers_size():
    rows, columns = np.indices((128, 128), dtype="float32")
    images = np.repeat(np.stack([rows + 1, columns + 1], -1)[None], 64, axis=0)
    bent = RandomElastic(seed=1)(images).numpy()
    shift = (bent - images)[:, 16:-16, 16:-16]
    middle = shift[:, 46:50, 46:50].mean(axis=(1, 2))  # where one vector of the grid rules
    assert middle.std() == pytest.approx(128 * 10 / 512, rel=0.25)
    assert abs(np.corrcoef(middle.T)[0, 1]) < 0.4, "rows and columns move on their own"
    assert np.abs(np.diff(shift, axis=2)).max() < 0.6, "no folds"
    np.testing.assert_array_equal(RandomElastic(seed=1)(images, training=False), images)
