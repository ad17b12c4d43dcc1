"""Sheets of images, what they show, and what a model makes of them."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageDraw

from kzoo.data.split import VOID
from kzoo.escape import printable
from kzoo.files import atomic_path
from kzoo.images.overlay import colours, load_font
from kzoo.losses import centre

GAP, LINE, SIZE = 6, 16, 11  # between pictures, of text, and of its letters
TOP = LINE + GAP


def paint(masks: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Masks (n, height, width) as pictures (n, height, width, 3); void is striped black and white."""
    rows, columns = np.indices(masks.shape[1:])
    stripes = np.where((rows + columns) // 3 % 2, 255, 0).astype("uint8")
    table = np.zeros((256, 3), "uint8")
    table[: len(classes)] = colours(classes)
    return np.where((masks == VOID)[..., None], stripes[None, ..., None], table[masks])


def draw_sheet(
    images: np.ndarray,
    masks: np.ndarray,
    predicted: np.ndarray,
    classes: Sequence[str],
    path: Path,
    titles: Sequence[str] | None = None,
) -> None:
    """Image, truth and prediction side by side, with a legend, as a PNG.

    Args:
        images: (n, height, width, 3) pixels of 0 to 255.
        masks: (n, height, width) classes, with void.
        predicted: (n, rows, columns) classes; what an unpadded network leaves out at the borders stays void.
        classes: names.
        path: of the PNG.
        titles: above each row.
    """
    images = np.asarray(images, "uint8")
    whole = np.full(masks.shape, VOID, "uint8")
    centre(whole, predicted)[...] = predicted
    rows = [
        [Image.fromarray(each) for each in row]
        for row in zip(images, paint(masks, classes), paint(whole, classes), strict=True)
    ]
    font, classes = load_font(SIZE), [*map(printable, classes)]
    legend = 24 + round(max(font.getlength(name) for name in (*classes, "void")))
    sheet = lay_rows(("image", "truth", "prediction"), rows, titles, legend, (len(classes) + 1) * LINE)
    draw = ImageDraw.Draw(sheet)
    swatches = paint(np.repeat(np.array([*range(len(classes)), VOID], "uint8"), 144).reshape(-1, 12, 12), classes)
    for index, name in enumerate((*classes, "void")):
        x, y = sheet.width - legend, TOP + index * LINE
        sheet.paste(Image.fromarray(swatches[index]), (x, y))
        draw.text((x + 18, y - 1), name, "black", font)
    with atomic_path(path) as partial:
        sheet.save(partial)


def lay_rows(
    headings: Sequence[str],
    rows: Sequence[Sequence[Image.Image]],
    titles: Sequence[str] | None = None,
    right: int = 0,
    least_height: int = 0,
) -> Image.Image:
    """Pictures in rows and columns below headings.

    Args:
        headings: of the columns.
        rows: pictures of each row.
        titles: above each row.
        right: pixels that stay white at the right.
        least_height: of what is below the headings.
    """
    width, height = (max(picture.size[axis] for pictures in rows for picture in pictures) for axis in (0, 1))
    row_height = height + GAP + (LINE if titles else 0)
    size = (len(headings) * (width + GAP) + right, TOP + max(len(rows) * row_height, least_height))
    sheet, font = Image.new("RGB", size, "white"), load_font(SIZE)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(headings):
        draw.text((column * (width + GAP), 2), name, "black", font)
    for index, pictures in enumerate(rows):
        y = TOP + index * row_height
        if titles:
            draw.text((0, y), titles[index], "black", font)
            y += LINE
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * (width + GAP), y))
    return sheet


class SheetWriter(keras.callbacks.Callback):
    """After each epoch, a sheet of the same validation images.

    Args:
        images: (n, height, width, 3) pixels of 0 to 255.
        masks: (n, height, width) classes, with void.
        classes: names.
        directory: of the sheets.
    """

    def __init__(self, images: np.ndarray, masks: np.ndarray, classes: Sequence[str], directory: Path):
        super().__init__()
        self.images, self.masks, self.classes = images, masks, classes
        self.directory = directory

    def on_epoch_end(self, epoch, logs=None):
        self.directory.mkdir(exist_ok=True)
        predicted = self.model.predict_on_batch(self.images.astype("float32")).argmax(axis=-1)
        draw_sheet(self.images, self.masks, predicted, self.classes, self.directory / f"epoch_{epoch + 1:04d}.png")
