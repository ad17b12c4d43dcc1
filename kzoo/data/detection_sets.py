"""Detection datasets by name: Pascal VOC's XML, COCO's JSON, YOLO's text, tables, and TFDS sets.

Whatever the files hold, an example that leaves here has `boxes`, float32 (most, 4), relative to the image, `classes`,
int32 (most,), and `size`, int32 (2,), height and width of the picture. `most` is the number of boxes of the picture
that has most of them; class -1 is no box, and -2 - c a region of class c in which detections are not judged.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kzoo.data.annotations import Annotations, picture_sizes, usable_boxes
from kzoo.data.box_examples import box_arrays, chosen_classes, example_specs
from kzoo.data.box_tables import read_box_table
from kzoo.data.coco import find_json, read_coco
from kzoo.data.division import Division
from kzoo.data.listing import PARTS, Listing, check_names, check_parts, divide, has_classes, writable
from kzoo.data.split import Example, File, ImageDataset, IndexedSplit
from kzoo.data.tables import is_table
from kzoo.data.tfds_boxes import load_tfds_boxes
from kzoo.data.voc import find_xml, read_voc
from kzoo.data.yolo import is_yolo, read_yolo
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import STRETCHED, Pixels, read_picture
from kzoo.layers.checks import pair

LAYOUTS = "Pascal VOC's XML, COCO's JSON, or YOLO's images and labels"


def load_boxes(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    pixels: Pixels = STRETCHED,
    class_names: Sequence[str] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    group_by: str | None = None,
    seed: int = 0,
    divided: bool = True,
) -> ImageDataset:
    """Loads pictures with boxes, and checks every description, every header and every box before it returns.

    Boxes that cannot be right are cut or dropped, and counted in one warning; see `usable_boxes`.

    Args:
        name: a folder with Pascal VOC's XML files, COCO's JSON files or YOLO's `images` and `labels`; a JSON file of
            COCO's; a CSV or TSV file with a row for each box; or a TFDS set whose pictures have boxes with classes.
            What lies in `train`, `val` and `test`, or is listed or called so, is divided already; see the readers.
        data_dir: where named folders and TFDS sets are; default: `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        image_size: (height, width) of the images, or one number for both; default: the pictures', if all have one.
        pixels: how they are fitted to it; `"crop"` is refused, as it would leave boxes out.
        class_names: of the classes, in their order; default: those that have a box, in the dataset's order.
        validation_fraction: share of the training pictures that is held out where the set names no validation.
        test_fraction: share of a dataset without splits that is held out for the test, whatever the seed.
        group_by: regular expression of a key in the path of a picture, see `load_dataset`.
        seed: of what is held out for validation.
        divided: False takes all pictures of one's own for training images.

    Raises:
        DatasetError: no such set, or one that is not whole; the message names the file.
        InvalidValueError: `resize="crop"`.

    Example:
        >>> data = load_boxes("bccd")
        >>> data.train.size, data.validation.size, data.test.size, data.classes
        (205, 87, 72, ('Platelets', 'RBC', 'WBC'))
    """
    if not isinstance(pixels, Pixels):
        raise InvalidValueError(f"pixels={pixels!r} must be kzoo.images.Pixels, such as Pixels('pad')")
    pixels.check_whole(f"the boxes of {name}", "may lie there")
    image_size = None if image_size is None else pair("image_size", image_size)
    path = find_boxes(name, data_dir)
    if path is None:
        if not name or name.startswith(("/", ".", "~")) or is_table(name) or name.endswith(".json"):
            raise DatasetError(f"no file or folder at {name!r}")
        if group_by is not None:
            raise DatasetError(f"group_by={group_by!r} is for pictures with paths, in folders; {name} has none")
        return load_tfds_boxes(name, data_dir, image_size, pixels, validation_fraction, class_names)
    fractions = dict(test_fraction=test_fraction, validation_fraction=validation_fraction)
    division = Division(**fractions, group_by=group_by, seed=seed) if divided else None
    return dataclasses.replace(_load(path, _read(path), image_size, pixels, division, class_names), name=name)


def find_boxes(name: str, data_dir: str | None) -> Path | None:
    """The folder, table or JSON file called `name`: itself a path, or in `data_dir`; None if there is none."""
    if name and Path(name).exists():
        return Path(name)
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = Path(place).expanduser() / name
    return folder if name and folder.is_dir() and _reader(folder) is not None else None


def _reader(root: Path):
    """What reads a folder; None where nothing in it describes boxes."""
    if files := find_xml(root):
        return lambda: read_voc(root, files)
    if is_yolo(root):
        return lambda: read_yolo(root)
    if jsons := find_json(root):
        return lambda: read_coco(root, jsons)
    return None


def _read(path: Path) -> Annotations:
    try:
        if path.is_dir():
            if (reader := _reader(path)) is None:
                raise DatasetError(f"{path} describes no boxes; it must hold {LAYOUTS}")
            return reader()
        if path.suffix.lower() == ".json":
            return read_coco(path.parent, [path])
        if path.suffix.lower() in (".csv", ".tsv"):
            return read_box_table(path)
    except InvalidValueError as error:
        raise DatasetError(str(error)) from error
    raise DatasetError(f"{path} describes no boxes; give a .csv or .json file, or a folder with {LAYOUTS}")


def _load(
    path: Path,
    read: Annotations,
    image_size: tuple[int, int] | None,
    pixels: Pixels,
    division: Division | None,
    class_names: Sequence[str],
) -> ImageDataset:
    name = str(path)
    if not any(picture.names for picture in read.pictures):
        raise DatasetError(f"{name} has {len(read.pictures)} pictures and no box in any of them")
    sizes = picture_sizes(read)
    pictures = usable_boxes(name, read.pictures, sizes)
    classes = chosen_classes(name, read.classes, pictures, class_names)
    divided = all(picture.split for picture in pictures)
    if not divided and (given := [picture for picture in pictures if picture.split]):
        lacking = next(picture for picture in pictures if not picture.split)
        raise DatasetError(f"{name}: {given[0].path} is of a split, {lacking.path} of none; put it into one")
    listing = Listing(
        name,
        read.root,
        [picture.path for picture in pictures],
        [tuple(dict.fromkeys(picture.names)) for picture in pictures],
        [picture.split or "" for picture in pictures] if divided else None,
        classes,
        ", ",
    )
    check_names(listing)
    shape = _image_shape(name, sizes, image_size)
    arrays = box_arrays(pictures, sizes, classes, shape, pixels)
    if division is None:
        parts = {"train": np.arange(len(pictures))}
    else:
        check_parts(listing)
        parts = divide(listing, has_classes(listing).astype("uint8"), division)
    for part in parts:
        if not (arrays["classes"][parts[part]] >= 0).any():
            raise DatasetError(f"{name}: no picture of {part} has a box; each of {', '.join(PARTS)} needs some")
    splits = [_split(listing, arrays, numbers, shape, pixels) for numbers in parts.values()]
    if division is None:
        return ImageDataset.undivided(name, classes, (*shape, 3), *splits)
    has_test = bool({*(listing.splits or ())} - {"train"})
    return ImageDataset(name, classes, (*shape, 3), *splits, has_test=has_test)


def _image_shape(name: str, sizes: Sequence[tuple[int, int]], image_size: tuple[int, int] | None) -> tuple[int, int]:
    if image_size is not None:
        return image_size
    if len(set(sizes)) > 1:
        raise DatasetError(f"pictures of {name} differ in size; say which to resize to, as in --image-size 480 640")
    return sizes[0][::-1]


def _split(
    listing: Listing, arrays: Example, numbers: np.ndarray, shape: tuple[int, int], pixels: Pixels
) -> IndexedSplit:
    def decode(image: bytes, boxes: np.ndarray, classes: np.ndarray, size: np.ndarray) -> Example:
        picture = read_picture(os.fsdecode(image), 3)
        return {"image": pixels.apply(picture, (*shape, 3)), "boxes": boxes, "classes": classes, "size": size}

    chosen = numbers.tolist()
    paths = np.array([os.fsencode(listing.root / listing.paths[index]) for index in chosen], object)
    files = tuple(File(writable(listing.paths[index]), ", ".join(listing.labels[index])) for index in chosen)
    elements = {"image": paths, **{name: array[numbers] for name, array in arrays.items()}}
    return IndexedSplit(elements, example_specs(shape, arrays["boxes"].shape[1]), decode, files)
