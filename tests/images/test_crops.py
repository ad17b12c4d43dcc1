"""Random parts of pictures: boxes as torchvision draws them, cut out and resized as Pillow does."""

import math

import numpy as np
import pytest
from PIL import Image

from kzoo.images import RandomCrop

GOLD = np.random.default_rng(0).integers(0, 256, (60, 90, 3), "uint8")


def one_box(rng, width, height, area):
    """As torchvision's RandomResizedCrop.get_params, in its order of sides."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        columns, rows = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
            return left, top, left + columns, top + rows
    return None


@pytest.mark.parametrize(("size", "area"), [((90, 60), (0.08, 1.0)), ((40, 41), (0.3, 0.5))])
def test_boxes_are_drawn_as_torchvision_draws_them(size, area):
    count = 4000
    crop = RandomCrop(area, (8, 8, 3))
    mine = np.array([crop.box(size, draw) for draw in range(count)])
    rng = np.random.default_rng(1)
    theirs = np.array([box for box in (one_box(rng, *size, area) for _ in range(count)) if box])
    assert (mine[:, :2] >= 0).all()
    assert (mine[:, 2:] <= size).all()
    for number in range(4):
        # Kolmogorov and Smirnov: 1.95 standard units are passed once in a thousand
        every = np.unique([*mine[:, number], *theirs[:, number]])
        apart = [np.searchsorted(np.sort(each[:, number]), every, side="right") / len(each) for each in (mine, theirs)]
        assert np.abs(apart[0] - apart[1]).max() < 1.95 * math.sqrt(2 / count) + 0.02, "some fell back to the middle"


@pytest.mark.parametrize(("interpolation", "method"), [("bilinear", 2), ("bicubic", 3)])
def test_a_part_is_resized_once_and_follows_from_its_number(interpolation, method):
    crop = RandomCrop((0.08, 0.5), (7, 11, 3), interpolation)
    picture = Image.fromarray(GOLD)
    for draw in (0, 5, 2**62 - 1):
        left, top, right, bottom = crop.box((90, 60), draw)
        expected = Image.fromarray(GOLD[top:bottom, left:right]).resize((11, 7), method)
        np.testing.assert_array_equal(crop(picture, draw), np.asarray(expected))
    assert crop.box((90, 60), 1) != crop.box((90, 60), 2)


def test_where_no_box_fits_the_part_is_in_the_middle():
    crop = RandomCrop((0.9, 1.0), (8, 8, 3))
    assert crop.box((90, 12), 0) == (37, 0, 53, 12)
    assert crop.box((12, 90), 0) == (0, 37, 12, 53)


def test_grey_and_coloured_pictures_have_the_channels_that_are_asked_for():
    grey = Image.fromarray(GOLD[..., 0])
    assert RandomCrop((0.5, 1.0), (4, 6, 3))(grey, 0).shape == (4, 6, 3)
    assert RandomCrop((0.5, 1.0), (4, 6, 1))(Image.fromarray(GOLD), 0).shape == (4, 6, 1)
