"""Image folders: `train/CLASS/*`, `test/CLASS/*` and perhaps `validation/CLASS/*`."""

import logging
import os
from pathlib import Path

import numpy as np

from kzoo.data.split import Example, ImageDataset, Split, decoder, draw
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import SUFFIXES, Pixels, check_header, find_in, list_folder

_log = logging.getLogger("kzoo")


def is_pairs(folder: Path) -> bool:
    """Whether a folder is laid out as images and masks, for segmentation."""
    return any((part / "images").is_dir() and (part / "masks").is_dir() for part in (folder, folder / "train"))


def load_folder(
    root: Path, size: tuple[int, int] | None, pixels: Pixels, validation_fraction: float, seed: int
) -> ImageDataset:
    """Finds the pictures of each class and looks at the header of each; pixels are read later.

    Args:
        root: the folder.
        size: (height, width) of the images.
        pixels: how they are fitted to it.
        validation_fraction: share of the training images of each class that is held out where there is no
            `validation/`.
        seed: of that choice, and of the order of the training images.

    Raises:
        DatasetError: a folder that is laid out otherwise, a class without pictures, a file that is no picture.
    """
    if is_pairs(root):
        raise DatasetError(f"{root} holds images and masks, for models of the task segmentation; see kzoo list")
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise DatasetError(f"{root} must have folders train and test (and may have validation), with one per class")
    if size is None:
        raise DatasetError("images of a folder differ in size; say which to resize to, as in --image-size 224")
    try:
        classes = tuple(path.name for path in list_folder(root / "train") if path.is_dir())
        parts = [part for part in ("train", "validation", "test") if (root / part).is_dir()]
        found = {part: _find(root / part, classes) for part in parts}
        for paths, _ in found.values():
            for path in paths:
                check_header(path)
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error
    train = _shuffled(*found["train"], seed)  # so that any part of them mixes the classes
    if "validation" in found:
        validation = found["validation"]
    else:
        train, validation = _hold_out(*train, validation_fraction, seed)
    shape = (*size, 3)

    def decode(image: bytes, label: np.ndarray) -> Example:
        return {"image": pixels.read(os.fsdecode(image), shape), "label": label}

    splits = [_split(*part, decode, shape) for part in (train, validation, found["test"])]
    return ImageDataset(str(root), classes, shape, *splits)


Listed = tuple[list[Path], np.ndarray]  # pictures, and the number of the class of each


def _find(part: Path, classes: tuple[str, ...]) -> Listed:
    """The pictures of one part by class; a warning counts what else lies there."""
    inside = list_folder(part)
    others = [path for path in inside if not path.is_dir()]
    if unknown := [path.name for path in inside if path.is_dir() and path.name not in classes]:
        raise DatasetError(
            f"{part} has folders of classes that train lacks: {', '.join(unknown)}; train has {', '.join(classes)}"
        )
    paths, labels, empty = [], [], []
    for label, name in enumerate(classes):
        found = find_in(part / name) if (part / name).is_dir() else None
        others += found.others if found else []
        if not found or not found.pictures:
            empty.append(name)
            continue
        paths += found.pictures
        labels += [label] * len(found.pictures)
    if empty or not classes:
        raise DatasetError(
            f"{part} has no picture of {', '.join(empty) or 'any class'}; each class needs a folder with files that "
            f"end in {', '.join(SUFFIXES)}"
        )
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        _log.warning(f"left out of {part}, as no pictures: {others[0].relative_to(part)}{more}")
    return paths, np.array(labels)


def _shuffled(paths: list[Path], labels: np.ndarray, seed: int) -> Listed:
    order = np.random.default_rng(seed).permutation(len(paths))
    return [paths[index] for index in order], labels[order]


def _hold_out(paths: list[Path], labels: np.ndarray, fraction: float, seed: int) -> tuple[Listed, Listed]:
    """What is trained on, with at least one picture of each class, and of each class a share to validate on."""
    count = round(len(labels) * fraction)
    held_out = np.zeros(len(labels), bool)
    if 0 < count < len(labels):
        held_out[draw(labels, count, seed)] = True
        for label in np.unique(labels):
            if held_out[labels == label].all():
                held_out[np.argmax(labels == label)] = False
    if not held_out.any():
        raise DatasetError(
            f"validation_fraction={fraction} of {len(labels)} images leaves nothing to validate or to train on"
        )

    def part(mine: np.ndarray) -> tuple[list[Path], np.ndarray]:
        return [path for path, chosen in zip(paths, mine, strict=True) if chosen], labels[mine]

    return part(~held_out), part(held_out)


def _split(paths: list[Path], labels: np.ndarray, decode, shape: tuple[int, int, int]) -> Split:
    import tensorflow as tf

    names = np.array([os.fsencode(path) for path in paths], object)
    source = tf.data.Dataset.from_tensor_slices({"image": names, "label": labels.astype("int64")})
    return Split(source, len(paths), decoder(decode, image=(shape, "uint8"), label=((), "int64")))
