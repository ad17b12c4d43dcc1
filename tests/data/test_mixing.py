"""Mixed images and mixed targets have the same shares: images filled with their target prove it."""

import numpy as np
import pytest
import tensorflow as tf

from kzoo.data.mixing import Mixing, _beta
from kzoo.data.seeds import StepSeeds

KINDS = {
    "mixup": dict(mixup=0.4, cutmix=None),
    "cutmix": dict(mixup=None, cutmix=1.0),
    "both": dict(mixup=0.4, cutmix=1.0),
}


def mixed(kind, number=9, steps=(0,)):
    """(images, targets) of steps; each pixel holds the target of the image that it is from."""
    targets = np.eye(number, dtype="float32")
    images = np.broadcast_to(targets[:, None, None], (number, 13, 11, number))
    mix = Mixing(**KINDS[kind])
    found = [mix(tf.constant(images), tf.constant(targets), StepSeeds(0, 0, step)) for step in steps]
    return [(images.numpy(), targets.numpy()) for images, targets in found]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2, 9])
def test_targets_are_the_shares_of_the_pixels(kind, number):
    images, targets = mixed(kind, number)[0]
    assert (images.dtype, targets.dtype) == ("float32", "float32")
    np.testing.assert_allclose(images.mean(axis=(1, 2)), targets, atol=1e-5)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    if number > 2:
        kept = targets.diagonal()
        assert len(np.unique(kept.round(4))) > number / 3, "each image has a share of its own"
        np.testing.assert_allclose(np.roll(targets, -1, axis=0).diagonal(), 1 - np.roll(kept, -1), atol=1e-5)


def test_mixup_blends_whole_images():
    images, targets = mixed("mixup")[0]
    np.testing.assert_allclose(images, np.broadcast_to(targets[:, None, None], images.shape), atol=1e-5)


def test_cutmix_pastes_a_box_at_the_place_it_has():
    images, _ = mixed("cutmix", 64)[0]
    assert set(np.unique(images)) == {0, 1}
    for number, image in enumerate(images):
        pasted = image[..., number] == 0
        rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
        if len(rows):
            assert pasted.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_boxes_of_cutmix_have_the_papers_sizes():
    """Sides are the image's times the root of the share, around any place, cut at the border."""
    mix = Mixing(**KINDS["cutmix"])
    shares = mix(tf.zeros((1500, 20, 32, 1)), tf.eye(1500), StepSeeds(0, 0, 0))[1].numpy().diagonal()
    rng = np.random.default_rng(0)
    sides = np.sqrt(1 - rng.beta(1.0, 1.0, 40_000))[:, None]
    middle = rng.uniform(size=(40_000, 2))
    lengths = np.clip(middle + sides / 2, 0, 1) - np.clip(middle - sides / 2, 0, 1)
    assert shares.mean() == pytest.approx(1 - lengths.prod(axis=1).mean(), abs=0.03)
    assert shares.std() == pytest.approx(lengths.prod(axis=1).std(), abs=0.03)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution_and_are_numbers_for_any_alpha(alpha):
    shares = _beta(20_000, alpha, StepSeeds(0, 0, 1)).numpy()
    assert np.isfinite(shares).all()
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_with_both_each_batch_draws_one():
    found = [len(np.unique(images)) > 2 for images, _ in mixed("both", 8, range(24))]
    assert 5 < sum(found) < 19


@pytest.mark.parametrize("kind", KINDS)
def test_mixing_follows_from_the_step(kind):
    first, again, other = (targets for _, targets in mixed(kind, steps=(1, 1, 2)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
