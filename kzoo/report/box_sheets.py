"""Sheets of images with the boxes that are there, and those that a detector finds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kzoo.detection.average_precision import CROWD
from kzoo.detection.suppression import Detections
from kzoo.files import atomic_path
from kzoo.images.boxes import draw_boxes
from kzoo.report.sheets import lay_rows

Truth = tuple[np.ndarray, np.ndarray]


def draw_box_sheet(
    images: np.ndarray,
    truths: Sequence[Truth],
    found: Sequence[Detections],
    classes: Sequence[str],
    path: Path,
    titles: Sequence[str] | None = None,
) -> None:
    """The boxes that are there and those that are found side by side, as a PNG; crowds are dashed.

    Args:
        images: (n, height, width, channels) pixels of 0 to 255, RGB or grey.
        truths: of each image its boxes (boxes, 4), left, top, right and bottom in its pixels, and their classes
            (boxes,): -1 for no box, and -2 - c for a crowd of class c.
        found: of each image, boxes in its pixels.
        classes: names.
        path: of the PNG.
        titles: above each row.
    """
    rows = []
    for image, (boxes, numbers), detections in zip(images, truths, found, strict=True):
        picture = Image.fromarray(np.squeeze(np.asarray(image, "uint8")))
        real = numbers != -1
        boxes, numbers = boxes[real], numbers[real]
        crowds = numbers <= CROWD
        truth = draw_boxes(picture, boxes, np.where(crowds, CROWD - numbers, numbers), classes, dashed=crowds)
        drawn = draw_boxes(picture, detections.boxes, detections.classes, classes, detections.scores)
        rows.append([truth, drawn])
    with atomic_path(path) as partial:
        lay_rows(("truth", "prediction"), rows, titles).save(partial)


class BoxSheetWriter(keras.callbacks.Callback):
    """After each epoch, a sheet of the same validation images.

    Args:
        images: (n, height, width, channels) pixels of 0 to 255.
        truths: as of `draw_box_sheet`.
        classes: names.
        directory: of the sheets.
        detect: function from the images to what the model finds in each, in its pixels.
    """

    def __init__(
        self,
        images: np.ndarray,
        truths: Sequence[Truth],
        classes: Sequence[str],
        directory: Path,
        detect: Callable[[np.ndarray], list[Detections]],
    ):
        super().__init__()
        self.images, self.truths, self.classes = images, truths, classes
        self.directory, self.detect = directory, detect

    def on_epoch_end(self, epoch, logs=None):
        self.directory.mkdir(exist_ok=True)
        path = self.directory / f"epoch_{epoch + 1:04d}.png"
        draw_box_sheet(self.images, self.truths, self.detect(self.images), self.classes, path)
