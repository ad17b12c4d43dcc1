"""Sheets: every pixel in the colour of its class, void in none of them."""

import numpy as np
from PIL import Image

from kzoo.data.split import VOID
from kzoo.images.overlay import colours
from kzoo.report.sheets import GAP, LINE, draw_sheet, paint


def test_masks_are_painted_in_the_colours_of_the_legend_and_void_in_black_and_white():
    masks = np.array([[[0, 1, VOID, VOID, VOID, VOID, VOID, VOID]]], "uint8")
    painted = paint(masks, ["cat", "dog"])
    np.testing.assert_array_equal(painted[0, 0, :2], colours(["cat", "dog"]))
    void = {tuple(pixel) for pixel in painted[0, 0, 2:].tolist()}
    assert void == {(0, 0, 0), (255, 255, 255)}
    assert not void & {tuple(colour) for colour in colours(list("abcdefghijklmnopqrstuvwxyz")).tolist()}


def test_sheet_shows_image_truth_and_prediction_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 10, 14, 3)).astype("uint8")
    masks = rng.choice([0, 1, 2, VOID], (2, 10, 14)).astype("uint8")
    predicted = rng.integers(0, 3, (2, 6, 10))  # of an unpadded network
    classes = ["a", "b", "c"]
    draw_sheet(images, masks, predicted, classes, tmp_path / "sheet.png")
    draw_sheet(images, masks, predicted, classes, tmp_path / "titled.png", ["one", "two"])
    whole = np.full(masks.shape, VOID, "uint8")
    whole[:, 2:-2, 2:-2] = predicted
    columns = (images, paint(masks, classes), paint(whole, classes))
    for name, line in (("sheet.png", 0), ("titled.png", LINE)):
        sheet = np.asarray(Image.open(tmp_path / name))
        for row in range(2):
            for column, pictures in enumerate(columns):
                top = LINE + GAP + row * (10 + GAP + line) + line
                left = column * (14 + GAP)
                np.testing.assert_array_equal(sheet[top : top + 10, left : left + 14], pictures[row])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png", "titled.png"]


def test_names_beyond_ascii_are_drawn(tmp_path):
    """A font without them would draw the same two boxes for both."""
    image, mask = np.zeros((1, 40, 8, 3), "uint8"), np.zeros((1, 40, 8), "uint8")
    drawn = []
    for name in ("шя", "яш"):
        draw_sheet(image, mask, mask, (name, "other"), tmp_path / "sheet.png")
        drawn.append(np.asarray(Image.open(tmp_path / "sheet.png")))
    assert (drawn[0] != drawn[1]).any()
