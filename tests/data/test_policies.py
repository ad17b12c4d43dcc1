"""TrivialAugment and RandAugment against torchvision: each operation, its ranges, and how they are drawn."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kzoo.data.operations import GEOMETRY, OPERATIONS, apply
from kzoo.data.policies import rand_augment, trivial_augment
from kzoo.data.seeds import StepSeeds

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "augment.npz")
THEIRS = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Identity", "Brightness"),
    *("Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)


def test_each_operation_does_to_each_image_what_torchvision_does():
    """All of them in one batch; torchvision cuts the digits after the point, so that a grey level is between."""
    assert len(OPERATIONS) == len(THEIRS)
    kinds = np.concatenate([np.full(len(GOLDENS[name]), index) for index, name in enumerate(THEIRS)])
    magnitudes = np.concatenate([GOLDENS[f"{name}_magnitudes"] for name in THEIRS])
    expected = np.concatenate([GOLDENS[name] for name in THEIRS])
    images = np.repeat(GOLDENS["picture"][None].astype("float32"), len(kinds), axis=0)
    changed = apply(tf.constant(images), tf.constant(kinds, tf.int32), tf.constant(magnitudes)).numpy()
    apart = np.abs(changed - expected).max(axis=(1, 2, 3))
    assert (apart <= 1.001).all(), [(OPERATIONS[kind], each) for kind, each in zip(kinds, apart, strict=True)]
    same = np.isin(
        kinds, [OPERATIONS.index(name) for name in ("identity", "posterize", "solarize", "equalize", *GEOMETRY)]
    )
    np.testing.assert_array_equal(changed[same], expected[same])


def test_a_channel_of_one_value_stays():
    images = np.full((2, 5, 7, 3), 100, "float32")
    images[..., 1] = np.arange(35).reshape(5, 7)
    kinds = tf.constant([OPERATIONS.index("autocontrast"), OPERATIONS.index("equalize")])
    changed = apply(tf.constant(images), kinds, tf.zeros(2)).numpy()
    np.testing.assert_array_equal(changed[..., (0, 2)], 100)
    np.testing.assert_allclose(changed[0, ..., 1], images[0, ..., 1] * 255 / 34, rtol=1e-5)


@pytest.mark.parametrize(("name", "policy"), [("trivial", trivial_augment()), ("rand", rand_augment(2, 9))])
def test_magnitudes_are_torchvisions(name, policy):
    np.testing.assert_allclose(policy.magnitudes(*GOLDENS["picture"].shape[:2]), theirs(name), rtol=1e-5, atol=1e-4)


def theirs(name):
    """Their magnitudes, of translations without the digits after the point, which they leave out later."""
    table = GOLDENS[name].copy()
    table[2:4] = np.trunc(table[2:4] + 1e-4)  # torch's 16 is 15.999999
    return table


def draws(policy, count=7000):
    images = tf.zeros((count, 27, 38, 3))
    return [
        (kinds.numpy(), sizes.numpy())
        for kinds, sizes in policy.get_random_transformation(images, seed=StepSeeds(3, 1, 4))
    ]


@pytest.mark.parametrize(
    ("name", "policy", "levels"),
    [
        ("trivial", trivial_augment(), range(31)),
        ("rand", rand_augment(2, 9), [9]),
        ("rand", rand_augment(3, 30), [30]),
    ],
)
def test_every_image_draws_operation_strength_and_sign_for_itself(name, policy, levels):
    found = draws(policy)
    assert len(found) == policy.number
    for kinds, sizes in found:
        share = 1 / len(OPERATIONS)
        counts = np.bincount(kinds, minlength=len(OPERATIONS)) / len(kinds)
        assert np.abs(counts - share).max() < 5 * np.sqrt(share / len(kinds))
        for kind, signed in enumerate(GOLDENS[f"{name}_signed"]):
            drawn = sizes[kinds == kind]
            expected = theirs(name)[kind][list(levels)]
            np.testing.assert_allclose(np.unique(np.abs(drawn)), np.unique(expected), rtol=1e-5, atol=1e-4)
            if signed and len(levels) == 1:
                assert 0.38 < (drawn > 0).mean() < 0.62, "5 standard deviations of 500 draws"
            elif not signed:
                assert (drawn >= 0).all()
    if policy.number > 1:
        assert abs(np.corrcoef(found[0][0], found[1][0])[0, 1]) < 0.06


def test_masks_move_as_their_images_do_and_keep_their_values_under_colours():
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.integers(1, 255, (1, 27, 38, 1)), len(OPERATIONS), axis=0).astype("float32")
    policy, kinds = trivial_augment(), np.arange(len(OPERATIONS))
    change = [(tf.constant(kinds, tf.int32), tf.constant(policy.magnitudes(27, 38)[kinds, 17]))]
    moved = policy.transform_segmentation_masks(tf.constant(masks), change).numpy()
    images = policy.transform_images(tf.constant(np.repeat(masks, 3, axis=-1)), change).numpy()
    for kind, name in enumerate(OPERATIONS):
        expected = images[kind, ..., :1] if name in GEOMETRY else masks[kind]
        np.testing.assert_array_equal(moved[kind], expected)
        assert (moved[kind] != masks[kind]).any() == (name in GEOMETRY)
