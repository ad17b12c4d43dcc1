"""Boxes over a picture: lines where the boxes are, in the colours of the classes, and names that can be read."""

import numpy as np
import pytest
from PIL import Image

from kzoo.images import boxes as drawing
from kzoo.images.boxes import draw_boxes
from kzoo.images.overlay import INK, PAPER, colours, text_size

GREY = (90, 90, 90)
NAMES = ("cat", "dog", "cow")


def draw(size, boxes, classes, names=NAMES, **options) -> np.ndarray:
    picture = Image.new("RGB", size, GREY)
    return np.asarray(draw_boxes(picture, np.array(boxes), np.array(classes, int), names, **options))


def is_(pixels, colour) -> np.ndarray:
    return (pixels == np.array(colour)).all(axis=-1)


def outline(shape, left, top, right, bottom, thickness) -> np.ndarray:
    """A loop over all pixels: those inside the box and less than a thickness from its edge."""
    found = np.zeros(shape, bool)
    for y in range(top, bottom):
        for x in range(left, right):
            found[y, x] = min(x - left, y - top, right - 1 - x, bottom - 1 - y) < thickness
    return found


def test_lines_lie_inside_the_box_in_the_colour_of_its_class():
    drawn = draw((640, 480), [[100, 200, 180, 260], [300, 50, 420, 400]], [1, 2])
    for index, box in ((1, (100, 200, 180, 260)), (2, (300, 50, 420, 400))):
        expected = outline(drawn.shape[:2], *box, 2)
        part = slice(box[1], None), slice(box[0], None)  # below and right of the name, which is above the box
        if index == 1:
            part = slice(box[1], None), slice(0, 300)
        np.testing.assert_array_equal(is_(drawn, colours(NAMES)[index])[part], expected[part])
    assert is_(drawn, GREY)[300, 50]


@pytest.mark.parametrize(("size", "factor"), [((64, 48), 10), ((5000, 500), 4096 / 5000)])
def test_a_small_picture_is_enlarged_and_a_huge_one_reduced_with_their_boxes(size, factor):
    width, height = size
    box = np.array([width / 4, height / 2, width / 2, height * 0.9])
    drawn = draw(size, [box], [0])
    assert drawn.shape[:2] == (round(height * factor), round(width * factor))
    left, top, right, bottom = np.rint(box * factor).astype(int).tolist()
    places = np.argwhere(is_(drawn, colours(NAMES)[0])[top:])  # below the name
    assert places.min(axis=0).tolist() == [0, left]
    assert places.max(axis=0).tolist() == [bottom - 1 - top, right - 1]


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((640, 480), [0, 0, 640, 480]),
        ((640, 480), [600, 470, 640, 480]),
        ((640, 480), [-50, -50, 5, 5]),
        ((640, 480), [700, 500, 900, 900]),
        ((1, 1), [0, 0, 1, 1]),
        ((1000, 2), [990, 0, 1000, 2]),
        ((2, 1000), [0, 990, 2, 1000]),
    ],
)
def test_a_name_is_whole_and_inside_wherever_the_box_is(monkeypatch, size, box):
    placed = []
    real = drawing._draw_label
    monkeypatch.setattr(
        drawing,
        "_draw_label",
        lambda draw, place, text, *more: (placed.append((place, text)), real(draw, place, text, *more)),
    )
    drawn = draw(size, [box], [0], ("a name that is longer than what is shown",), scores=np.array([0.874]))
    [((left, top, right, bottom), text)] = placed
    assert text == "a name that is longer t… 0.87"
    assert 0 <= left < right < drawn.shape[1]
    assert 0 <= top < bottom < drawn.shape[0]
    label = drawn[top : bottom + 1, left : right + 1]
    letters = ~is_(label, colours(["a"])[0])
    height = text_size(max(size[1], drawn.shape[0]) if size == (1, 1) else size[1])
    assert letters.sum() > 10 * height
    assert not letters[:, [0, -1]].any(), "letters touch the borders"
    assert letters.any(axis=1).sum() >= 0.7 * height


def test_names_give_way_to_one_another_the_first_one_first():
    """Two boxes at one place: one name is above, the other one inside."""
    drawn = draw((640, 480), [[100, 100, 300, 300], [100, 100, 302, 302]], [0, 1])
    first, second = (is_(drawn, colours(NAMES)[index]) for index in (0, 1))
    height = text_size(480) + 2 * (text_size(480) // 4)
    assert first[100 - height : 100, 100:130].sum() > 200
    assert not second[:99].any()
    assert second[102 : 100 + height, 102:130].sum() > 200


def test_dashes_and_gaps_are_of_one_length():
    drawn = draw((640, 480), [[100, 200, 500, 400], [20, 450, 60, 470]], [0, 1], dashed=np.array([True, False]))
    line = is_(drawn, colours(NAMES)[0])[399, 100:500]
    expected = [column // 10 % 2 == 0 for column in range(400)]
    np.testing.assert_array_equal(line, expected)
    assert is_(drawn, colours(NAMES)[1])[469, 20:60].all()


def test_letters_are_dark_on_bright_colours_and_bright_on_dark_ones():
    names = [str(number) for number in range(20)]
    for index, colour in enumerate(colours(names).tolist()):
        drawn = draw((640, 480), [[100, 100, 300, 300]], [index], names)
        part = drawn[70:100, 100:130]
        ink = INK if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] >= 140 else PAPER
        assert is_(part, ink).any(), (names[index], colour)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_and_no_box(mode):
    picture = Image.new(mode, (640, 480))
    none = draw_boxes(picture, np.zeros((0, 4)), np.zeros(0, int), NAMES, np.zeros(0))
    np.testing.assert_array_equal(np.asarray(none), np.asarray(picture.convert("RGB")))
