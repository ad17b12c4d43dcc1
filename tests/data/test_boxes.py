"""Random boxes: drawn as torchvision draws them, cut out as it resizes them, erased with noise."""

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kzoo.data import boxes
from kzoo.data.boxes import ATTEMPTS, RandomErase, RandomResizedCrop, random_boxes
from kzoo.data.seeds import StepSeeds

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "augment.npz")
SEEDS = 3, 1, 4


def one_box(rng, height, width, area, ratio):
    """As torchvision's RandomResizedCrop.get_params, without what it falls back on."""
    for _ in range(ATTEMPTS):
        pixels = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ratio), -math.log(ratio)))
        columns, rows = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1), rows, columns
    return None


@pytest.mark.parametrize(
    ("size", "area", "ratio"),
    [((40, 40), (0.08, 1.0), 3 / 4), ((23, 61), (0.02, 0.33), 0.3), ((10, 90), (0.5, 1.0), 3 / 4)],
)
def test_boxes_are_drawn_as_torchvision_draws_them(size, area, ratio):
    count = 4000
    *drawn, found = (array.numpy() for array in random_boxes(count, size, area, ratio, StepSeeds(*SEEDS)))
    rng = np.random.default_rng(0)
    expected = [one_box(rng, *size, area, ratio) for _ in range(count)]
    known = np.array([box for box in expected if box])
    assert abs(found.mean() - len(known) / count) <= 5 * math.sqrt(0.25 / count)
    if not len(known):
        return
    tops, lefts, rows, columns = (number[found] for number in drawn)
    assert (tops >= 0).all()
    assert (lefts >= 0).all()
    assert (tops + rows <= size[0]).all()
    assert (lefts + columns <= size[1]).all()
    for mine, theirs in zip(
        (tops, lefts, rows, columns, rows * columns), (*known.T, known[:, 2] * known[:, 3]), strict=True
    ):
        # Kolmogorov and Smirnov: 1.95 standard units are passed once in a thousand
        every = np.unique(np.concatenate([mine, theirs]))
        apart = [np.searchsorted(np.sort(each), every, side="right") / len(each) for each in (mine, theirs)]
        assert np.abs(apart[0] - apart[1]).max() < 1.95 * math.sqrt(2 / count)


def test_a_crop_is_resized_as_torchvision_resizes_it(monkeypatch):
    """Inside: at its border it takes half of a pixel from beyond, where torchvision repeats the last one."""
    box = tf.constant(GOLDENS["boxes"].T, tf.float32)
    monkeypatch.setattr(boxes, "random_boxes", lambda *given: (*box, tf.ones(len(GOLDENS["boxes"]), bool)))
    images = np.repeat(GOLDENS["picture"][None].astype("float32"), len(GOLDENS["boxes"]), axis=0)
    layer = RandomResizedCrop((0.08, 1.0))
    cropped = layer.transform_images(images, layer.get_random_transformation(images, seed=StepSeeds(*SEEDS))).numpy()
    for mine, theirs, (_, _, rows, columns) in zip(cropped, GOLDENS["crops"], GOLDENS["boxes"], strict=True):
        edge = math.ceil(27 / rows / 2), math.ceil(38 / columns / 2)
        inside = slice(edge[0], -edge[0]), slice(edge[1], -edge[1])
        assert np.abs(mine - theirs)[inside].max() <= 0.51, "it rounds"
    np.testing.assert_array_equal(cropped[1], images[1])


def test_where_no_box_fits_the_crop_is_in_the_middle():
    rows, columns = np.indices((10, 90), dtype="float32")
    images = np.repeat(np.stack([rows, columns], axis=-1)[None], 3, axis=0)
    layer = RandomResizedCrop((0.9, 1.0))
    cropped = layer.transform_images(images, layer.get_random_transformation(images, seed=StepSeeds(*SEEDS))).numpy()
    # 10 / (3/4) = 13 columns of 90, from the 38th on
    np.testing.assert_allclose(cropped[..., 0], images[..., 0], atol=1e-4)
    np.testing.assert_allclose(cropped[..., 1], 38 + (images[..., 1] + 0.5) * 13 / 90 - 0.5, atol=1e-3)


def test_half_of_the_images_get_a_box_of_uniform_noise():
    images = np.full((1000, 31, 23, 3), -1, "float32")
    layer = RandomErase(share=0.5)
    erased = layer.transform_images(images, layer.get_random_transformation(images, seed=StepSeeds(*SEEDS))).numpy()
    hit = (erased != -1).all(axis=-1)
    np.testing.assert_array_equal(hit, (erased != -1).any(axis=-1))
    some = hit.any(axis=(1, 2))
    assert 0.42 < some.mean() < 0.58, "5 standard deviations"
    for mask in hit[some]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    shares = hit[some].mean(axis=(1, 2))
    assert 0.015 < shares.min() < 0.04
    assert 0.3 < shares.max() < 0.345
    noise = erased[hit]
    assert (noise.min(), noise.max()) == (pytest.approx(0, abs=0.1), pytest.approx(255, abs=0.1))
    assert np.histogram(noise, bins=10, range=(0, 255))[0] / noise.size == pytest.approx(0.1, abs=0.005)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.02, "each channel by itself"
