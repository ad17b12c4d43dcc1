"""Where a detector predicts, against a loop over levels, rows, columns and anchors."""

import math

import numpy as np
import pytest

from kzoo.errors import InvalidValueError
from kzoo.places import Places


def retinanet_by_hand(image, levels):
    """Anchors one by one: torchvision's whole sizes and rounded halves."""
    padded = [math.ceil(size / 32) * 32 for size in image]
    boxes = []
    for level in levels:
        rows, columns = (math.ceil(size / 2**level) for size in padded)
        for row in range(rows):
            for column in range(columns):
                y, x = row * (padded[0] // rows), column * (padded[1] // columns)
                for ratio in (0.5, 1, 2):
                    for size in (int(2**level * 4 * 2 ** (octave / 3)) for octave in range(3)):
                        half = [np.round(size * ratio**sign / 2) for sign in (-0.5, 0.5)]
                        boxes.append([x - half[0], y - half[1], x + half[0], y + half[1]])
    return np.array(boxes)


@pytest.mark.parametrize("image", [(96, 160), (75, 101), (400, 33)])
@pytest.mark.parametrize("levels", [(3, 4, 5), (3, 4, 5, 6, 7)])
def test_anchors_by_hand(image, levels):
    places = Places.of(image, "retinanet", levels)
    np.testing.assert_allclose(places.anchors, retinanet_by_hand(image, levels), atol=1e-4)
    assert places.count == len(places.anchors) == len(places.strides) == len(places.level_of) == len(places.centres)


def test_points_stand_in_rows_from_the_corner():
    places = Places.of((40, 70), "fcos", (3, 5))  # padded to 64×96
    assert [level.grid for level in places.levels] == [(8, 12), (2, 3)]
    assert places.padded == (64, 96)
    expected = [[8 * x, 8 * y] for y in range(8) for x in range(12)] + [
        [32 * x, 32 * y] for y in (0, 1) for x in range(3)
    ]
    np.testing.assert_array_equal(places.centres, expected)
    np.testing.assert_array_equal(places.anchors[:, 2] - places.anchors[:, 0], places.strides)
    assert list(places.level_of) == [0] * 96 + [1] * 6
    assert list(places.scale) == [70, 40, 70, 40]


def test_coarse_grids_have_torchvisions_spacing():
    assert [level.spacing for level in Places.of((800, 1088), "fcos", (5, 6, 7)).levels] == [
        (32, 32),
        (61, 64),
        (114, 120),
    ]


def test_ratios_and_scales_are_options():
    assert Places.of((32, 32), "retinanet", (5,), scales=(1,), ratios=(1,)).anchors.tolist() == [[-64, -64, 64, 64]]


@pytest.mark.parametrize(
    ("image", "kind", "levels", "message"),
    [
        ((None, 64), "fcos", (3,), "image="),
        ((64, 64), "ssd", (3,), "use one of 'fcos', 'retinanet'"),
        ((64, 64), "fcos", (), "levels="),
        ((64, 64), "fcos", (5, 4), "finest first"),
    ],
)
def test_refuses(image, kind, levels, message):
    with pytest.raises(InvalidValueError, match=message):
        Places.of(image, kind, levels)
