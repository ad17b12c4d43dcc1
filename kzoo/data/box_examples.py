"""Boxes as they stand in examples: padded to one number, relative to the image, with numbers for classes."""

import logging
from collections.abc import Sequence

import numpy as np

from kzoo.data.annotations import Annotated
from kzoo.data.split import Example, Specs
from kzoo.errors import DatasetError, did_you_mean
from kzoo.images import Pixels

_log = logging.getLogger("kzoo")
NOTHING, CROWD = -1, -2  # classes: of no box, and of a crowd of class 0, below which those of the others follow


def chosen_classes(
    name: str, known: Sequence[str], pictures: Sequence[Annotated], class_names: Sequence[str]
) -> tuple[str, ...]:
    """The names of the classes: those that were given, or those that have a box.

    Args:
        name: of the dataset.
        known: names that it has, in their order.
        pictures: with their boxes.
        class_names: those that were given; none for those that have a box.

    Raises:
        DatasetError: boxes of a class that was not given.
    """
    found = {each for picture in pictures for each in picture.names}
    if class_names:
        if unknown := sorted(found - set(class_names)):
            raise DatasetError(
                f"{name} has boxes of {', '.join(map(repr, unknown[:5]))}; the classes are said to be "
                f"{', '.join(class_names)}{did_you_mean(unknown[0], class_names)}"
            )
        return tuple(class_names)
    if empty := [each for each in known if each not in found]:
        _log.warning(f"{name}: no box is of {', '.join(map(repr, empty[:5]))}, which is left out of the classes")
    return tuple(each for each in known if each in found)


def box_arrays(
    pictures: Sequence[Annotated],
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[str],
    shape: tuple[int, int],
    pixels: Pixels,
    most: int | None = None,
) -> Example:
    """`boxes`, `classes` and `size` of pictures, see `kzoo.data.detection_sets`.

    Args:
        pictures: with their boxes in pixels.
        sizes: (width, height) of each.
        classes: names.
        shape: (height, width) of the images.
        pixels: how the pictures are fitted to it.
        most: boxes to pad to; default: those of the picture that has most.
    """
    most = most or max(1, *(len(picture.names) for picture in pictures))
    numbers = {name: number for number, name in enumerate(classes)}
    boxes = np.zeros((len(pictures), most, 4), "float32")
    kinds = np.full((len(pictures), most), NOTHING, "int32")
    for index, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        count = len(picture.names)
        boxes[index, :count] = pixels.apply_to_boxes(picture.boxes, size, shape)
        kinds[index, :count] = [
            CROWD - numbers[name] if crowd else numbers[name]
            for name, crowd in zip(picture.names, picture.crowd, strict=True)
        ]
    return {"boxes": boxes, "classes": kinds, "size": np.array(sizes, "int32")[:, ::-1]}


def example_specs(shape: tuple[int, int], most: int) -> Specs:
    """Shape and type of each array of an example with so many boxes at most."""
    return {
        "image": ((*shape, 3), "uint8"),
        "boxes": ((most, 4), "float32"),
        "classes": ((most,), "int32"),
        "size": ((2,), "int32"),
    }
