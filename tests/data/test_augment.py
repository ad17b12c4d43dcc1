"""Masks move with their images: images that say where each pixel came from prove it."""

import numpy as np
import pytest
import tensorflow as tf

from kzoo.data.augment import Augmentation, random_crop
from kzoo.data.elastic import RandomElastic
from kzoo.data.seeds import StepSeeds
from kzoo.data.split import VOID
from kzoo.recipe import Augment
from kzoo.recipe.parts import AUGMENTATIONS

HEIGHT, WIDTH, BAND = 48, 64, 8
MOVING = ("resized_crop", "flip", "flip_vertical", "translate", "rotate", "zoom", "scale", "elastic")
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
    augment = Augmentation(Augment(names))
    dataset = tf.data.Dataset.from_tensor_slices((images, masks)).batch(8)
    changed = dataset.map(lambda images, masks: augment.with_masks(images, masks, StepSeeds(seed, 0, 0)))
    return next(iter(changed.as_numpy_iterator()))


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
    assert (moved == VOID).any() == (name not in ("resized_crop", "flip", "flip_vertical"))


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
    changed = Augmentation(Augment(("flip", "brightness")))(images, StepSeeds(0, 0, 0)).numpy()
    flipped = changed[:, 0, 0, 0] > changed[:, 0, -1, 0]
    assert 0.4 < flipped.mean() < 0.6
    assert abs(np.corrcoef(flipped, changed.mean(axis=(1, 2, 3)))[0, 1]) < 0.15


def test_pixels_are_moved_then_coloured_then_erased_whatever_the_order_of_the_names(scene):
    one, other = (
        Augmentation(Augment(names))(scene[0], StepSeeds(0, 0, 0)).numpy()
        for names in (
            ("erase", "trivial", "contrast", "flip", "zoom"),
            ("flip", "trivial", "zoom", "contrast", "erase"),
        )
    )
    np.testing.assert_array_equal(one, other)
    swapped = Augmentation(Augment(("zoom", "flip", "trivial", "contrast", "erase")))(scene[0], StepSeeds(0, 0, 0))
    assert (swapped.numpy() != one).any(), "of one kind they come as they are named"


def test_without_augmentation_nothing_changes(scene):
    for given, got in zip(scene, through_pipeline((), *scene), strict=True):
        np.testing.assert_array_equal(given, got)


def test_elastic_field_is_smooth_differs_by_image_and_has_the_papers_size():
    rows, columns = np.indices((128, 128), dtype="float32")
    images = np.repeat(np.stack([rows + 1, columns + 1], -1)[None], 64, axis=0)
    layer = RandomElastic()
    bent = layer.transform_images(images, layer.get_random_transformation(images, seed=StepSeeds(1, 0, 0))).numpy()
    shift = (bent - images)[:, 16:-16, 16:-16]
    middle = shift[:, 46:50, 46:50].mean(axis=(1, 2))  # where one vector of the grid rules
    assert middle.std() == pytest.approx(128 * 10 / 512, rel=0.25)
    assert abs(np.corrcoef(middle.T)[0, 1]) < 0.4, "rows and columns move on their own"
    assert np.abs(np.diff(shift, axis=2)).max() < 0.6, "no folds"


def test_crops_are_parts_at_places_of_their_own_with_the_same_part_of_the_mask(scene):
    images, masks = (np.repeat(array[:1], 400, axis=0) for array in scene)
    parts, cut = (array.numpy() for array in random_crop(images, masks, (40, 50), StepSeeds(0, 0, 0)))
    tops, lefts = (parts[:, 0, 0, axis].astype(int) - 1 for axis in (0, 1))
    for part, mask, top, left in zip(parts, cut, tops, lefts, strict=True):
        np.testing.assert_array_equal(part, images[0, top : top + 40, left : left + 50])
        np.testing.assert_array_equal(mask, masks[0, top : top + 40, left : left + 50])
    # uniform: 400 draws of 9 and of 15 places, each within 5 standard deviations of its share
    for places, count in ((tops, HEIGHT - 40 + 1), (lefts, WIDTH - 50 + 1)):
        share = 1 / count
        drawn = np.bincount(places, minlength=count)
        assert len(drawn) == count
        assert np.abs(drawn / 400 - share).max() < 5 * np.sqrt(share * (1 - share) / 400)
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "alternating_flip"])
def test_changes_follow_from_seed_epoch_and_step(name, scene):
    """Equal for equal ones whatever else is computed at the same time, and others for another of any of the three."""
    augment = Augmentation(Augment((name,)))
    images = tf.constant(scene[0])
    wanted = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)] * 4
    dataset = tf.data.Dataset.from_tensor_slices(np.array(wanted))
    changed = dataset.map(lambda key: augment(images, StepSeeds(key[0], key[1], key[2])), num_parallel_calls=8)
    results = [array.tobytes() for array in changed.as_numpy_iterator()]
    assert len(set(results[:4])) == 4
    assert results == results[:4] * 4


def test_an_alternating_flip_shows_each_image_both_ways_in_two_epochs():
    images = np.random.default_rng(0).integers(0, 256, (400, 6, 8, 3)).astype("float32")

    def mirrored(seed, epoch, order=slice(None)):
        changed = Augmentation(Augment(("translate", "alternating_flip"), translate_share=0.01))(
            images[order], StepSeeds(seed, epoch, 3)
        )
        same, other = (changed == images[order]).numpy(), (changed == images[order][:, :, ::-1]).numpy()
        assert (same.all(axis=(1, 2, 3)) ^ other.all(axis=(1, 2, 3))).all()
        return other.all(axis=(1, 2, 3))

    first = mirrored(0, 0)
    assert 0.38 < first.mean() < 0.62, "5 standard deviations of 400 images"
    np.testing.assert_array_equal(mirrored(0, 1), ~first)
    np.testing.assert_array_equal(mirrored(0, 2), first)
    np.testing.assert_array_equal(mirrored(0, 4, order=slice(None, None, -1)), first[::-1])
    assert 0.38 < (mirrored(1, 0) != first).mean() < 0.62, "another seed begins with others"
