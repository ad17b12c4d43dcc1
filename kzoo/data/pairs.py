"""Segmentation datasets by name: folders of images and masks, and TFDS sets with a segmentation mask.

Whatever numbers the files use, the masks that leave here hold 0, 1, ... for the classes and `VOID` for pixels that
belong to none.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kzoo.class_names import read_class_names
from kzoo.data.division import Division, draw_groups, join
from kzoo.data.folders import is_pairs
from kzoo.data.listing import writable
from kzoo.data.mask_values import Labels, declare
from kzoo.data.split import (
    VOID,
    Example,
    File,
    ImageDataset,
    IndexedSplit,
    Specs,
    StreamedSplit,
    decoder,
    readable_images,
)
from kzoo.data.tables import is_table
from kzoo.data.tfds_sets import image_shape, prepared_builder, tfds_splits, undecoded
from kzoo.errors import DatasetError, InvalidValueError, counted
from kzoo.images import STRETCHED, SUFFIXES, Pixels, list_folder, read_numbers, read_picture

DIGITS = "digits"
MASK = "segmentation_mask"  # of TFDS
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # of formats that keep numbers; GIF gives colours new ones


def load_pairs(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: tuple[int, int] | None = None,
    pixels: Pixels = STRETCHED,
    class_names: Sequence[str] = (),
    mask_values: Sequence[int] = (),
    void: Sequence[int] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    group_by: str | None = None,
    seed: int = 0,
    divided: bool = True,
) -> ImageDataset:
    """Loads images with a mask each, and checks every mask before it returns.

    Args:
        name: a folder, by path or by its name in `data_dir`, or a TFDS set with a `segmentation_mask`. A folder holds
            `images/` and `masks/`, whose files pair by their names without the suffix, either in `train/`,
            `test/` and perhaps `validation/` or `val/`, or once for everything.
        data_dir: where named folders and TFDS sets are; default: `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        image_size: (height, width) of the images.
        pixels: how they are fitted to it, and their masks in the same way by the nearest pixel; what it adds to an
            image is void. `"crop"` is refused, since it would leave pixels without a class.
        class_names: of the classes; default: the lines of `classes.txt` in the folder.
        mask_values: value in the mask files of each class; default: 0, 1, ...
        void: values of pixels that belong to no class.
        validation_fraction: share of the training images that is held out where the set names no validation.
        test_fraction: share of a folder without splits that is held out for the test, whatever the seed.
        group_by: regular expression of a key in the path of an image from the folder, see `load_dataset`.
        seed: of what is held out for validation.
        divided: False takes all pictures of a folder for training images.

    Raises:
        DatasetError: no such set, or one that is not whole; the message names the file.
        InvalidValueError: classes and values that do not go together, or `resize="crop"`.

    Example:
        >>> data = load_pairs("camvid", void=(11,))
        >>> data.train.size, data.image_shape, len(data.classes)
        (367, (176, 240, 3), 11)
    """
    pixels.check_whole(f"the mask of each image of {name}")
    root = find_folder(name, data_dir)
    declared = dict(class_names=class_names, values=mask_values, void=void)
    if root is None:
        if name == DIGITS:
            raise DatasetError(
                f"{DIGITS} have no masks; segmentation needs a folder of images and masks, or a TFDS set"
            )
        if not name or name.startswith(("/", ".", "~")):
            raise DatasetError(f"no folder at {name!r}")
        if is_table(name):
            raise DatasetError(f"{name} is for models of classes; segmentation takes a folder of images and masks")
        if group_by is not None:
            raise DatasetError(f"group_by={group_by!r} is for pictures with paths, in folders; {name} has none")
        return _load_tfds(name, data_dir, image_size, pixels, validation_fraction, **declared)
    fractions = dict(test_fraction=test_fraction, validation_fraction=validation_fraction)
    division = Division(**fractions, group_by=group_by, seed=seed) if divided else None
    return _load_folder(root, image_size, pixels, division, **declared)


def find_folder(name: str, data_dir: str | None) -> Path | None:
    """The folder of images and masks called `name`: itself a path, or in `data_dir`; None if there is none."""
    if name and Path(name).is_dir():
        return Path(name)
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = Path(place).expanduser() / name
    return folder if name and is_pairs(folder) else None


def _load_folder(root, image_size, pixels, division, class_names, values, void):
    if not is_pairs(root):
        raise DatasetError(
            f"{root} is no segmentation set: it must have images/ and masks/, or train/images, train/masks, "
            "test/images and test/masks (and may have validation/ or val/)"
        )
    listed = root / "classes.txt"
    from_file = not class_names and listed.is_file()
    if from_file and not (class_names := read_class_names(listed)):
        raise DatasetError(f"{listed} is empty; it must name the classes, one a line")
    try:
        labels = declare(class_names, values, void, f"{root} has no classes.txt and")
    except InvalidValueError as error:
        raise InvalidValueError(f"{listed}: {error}" if from_file else str(error)) from error
    parts = _split_folder(root, division)
    shape = _check(parts, labels, image_size, pixels)
    splits = [_folder_split(root, part, labels, shape, pixels) for part in parts]
    if division is None:
        return ImageDataset.undivided(root.name, labels.classes, (*shape, 3), *splits)
    return ImageDataset(root.name, labels.classes, (*shape, 3), *splits, has_test=(root / "train").is_dir())


Pair = tuple[Path, Path]


def _split_folder(root: Path, division: Division | None) -> list[list[Pair]]:
    """Pairs for training, validation and test, or without a division all as one."""
    if (root / "train").is_dir():
        validation_dir = next((root / part for part in ("validation", "val") if (root / part).is_dir()), None)
        if not (root / "test").is_dir():
            raise DatasetError(f"{root} has train/ and no test/; add one, or put everything in {root / 'images'}")
        train, test = find_pairs(root / "train"), find_pairs(root / "test")
        given = [train, find_pairs(validation_dir), test] if validation_dir else [train, test]
        if division is None:
            return [[pair for part in given for pair in part]]
        division.check(*([_place(root, image) for image, _ in part] for part in given))
        if validation_dir is not None:
            return given
    elif division is None:
        return [find_pairs(root)]
    else:
        train, test = _hold_out(root, find_pairs(root), division, division.test_fraction, 0, "test_fraction")
    share = division.validation_fraction
    train, validation = _hold_out(root, train, division, share, division.seed, "validation_fraction")
    return [train, validation, test]


def _place(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _hold_out(
    root: Path, pairs: list[Pair], division: Division, fraction: float, seed: int, option: str
) -> tuple[list[Pair], list[Pair]]:
    count = round(len(pairs) * fraction)
    names = [_place(root, image) for image, _ in pairs]
    keys = division.keys(names)
    if keys is None:
        drawn = np.random.default_rng(seed).permutation(len(pairs))[:count]
    else:
        drawn = draw_groups(np.zeros(len(pairs), int), join(keys), names, count, seed)
    if not 0 < len(drawn) < len(pairs):
        raise DatasetError(f"{option}={fraction} of {counted(len(pairs), 'image')} leaves one part without any")
    chosen = set(drawn.tolist())
    kept = [pair for index, pair in enumerate(pairs) if index not in chosen]
    return kept, [pair for index, pair in enumerate(pairs) if index in chosen]


def find_pairs(folder: Path) -> list[Pair]:
    """Images with their masks, by name without suffix, sorted."""
    images, masks = _stems(folder / "images", SUFFIXES), _stems(folder / "masks", MASK_SUFFIXES)
    for mine, theirs, what in ((images, masks, "mask"), (masks, images, "image")):
        lonely = [path for stem, path in mine.items() if stem not in theirs]
        if lonely:
            more = f" (nor have {len(lonely) - 1} more files)" if len(lonely) > 1 else ""
            raise DatasetError(f"{lonely[0]} has no {what} of the same name in {folder / (what + 's')}{more}")
    return [(image, masks[stem]) for stem, image in images.items()]


def _stems(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in list_folder(folder):
        if not path.is_file():
            continue
        if path.suffix.lower() not in suffixes:
            raise DatasetError(f"{path} is no {', '.join(suffixes)} file; convert or remove it")
        if path.stem in found:
            raise DatasetError(f"{found[path.stem]} and {path} have the same name; remove one")
        found[path.stem] = path
    if not found:
        raise DatasetError(f"{folder} is empty")
    return found


def read_pair(
    pair: tuple[Path | bytes, Path | bytes],
    labels: Labels,
    shape: tuple[int, int] | None,
    pixels: Pixels = STRETCHED,
    names: tuple[str, str] | None = None,
) -> Example:
    """Image and mask of classes, fitted to `shape`.

    Args:
        pair: files of the image and of its mask, or their contents; both are turned as their cameras say.
        labels: what the numbers in the mask mean.
        shape: (height, width); None leaves the image as it is.
        pixels: how it is fitted.
        names: what errors call the two; default: their paths.

    Raises:
        DatasetError: naming the file that is at fault.
    """
    image_name, mask_name = names or map(str, pair)
    try:
        image, mask = read_picture(pair[0], 3, image_name), read_numbers(pair[1], mask_name)
    except InvalidValueError as error:
        raise DatasetError(f"{error}; repair or remove it") from error
    found = labels.classes_of(mask, mask_name)
    if image.size != mask.size:
        raise DatasetError(
            f"{mask_name} is {mask.height}×{mask.width} and its image {Path(image_name).name} is "
            f"{image.height}×{image.width}; they must be of one size"
        )
    shape = shape or found.shape
    return {"image": pixels.apply(image, (*shape, 3)), "mask": pixels.apply_to_mask(found, shape, VOID)}


def _check(
    parts: list[list[Pair]], labels: Labels, image_size: tuple[int, int] | None, pixels: Pixels
) -> tuple[int, int]:
    """Reads every file once; returns the (height, width) of all."""
    pairs = [pair for part in parts for pair in part]

    def check(pair: Pair) -> tuple[tuple[int, int], bool]:
        mask = read_pair(pair, labels, image_size, pixels)["mask"]
        return mask.shape, bool((mask != VOID).any())

    with ThreadPoolExecutor() as pool:
        sizes, any_labelled = zip(*pool.map(check, pairs), strict=True)
    labelled = dict(zip(pairs, any_labelled, strict=True))
    for part in parts:
        if not any(labelled[pair] for pair in part):
            raise DatasetError(_all_void(f"{part[0][1].parent}, {len(part)} masks", labels))
    for pair, size in zip(pairs, sizes, strict=True):
        if size != sizes[0]:
            raise DatasetError(
                f"{pair[0]} is {size[0]}×{size[1]} and {pairs[0][0].name} is {sizes[0][0]}×{sizes[0][1]}; say which "
                "size to resize to, as in --image-size 256 256"
            )
    return sizes[0]


def _all_void(masks: str, labels: Labels) -> str:
    return f"{masks}: every pixel is void ({', '.join(map(str, labels.void))}); say with --void what is to be ignored"


def _folder_split(
    root: Path, pairs: list[Pair], labels: Labels, shape: tuple[int, int], pixels: Pixels
) -> IndexedSplit:
    def decode(image: bytes, mask: bytes) -> Example:
        return read_pair((Path(os.fsdecode(image)), Path(os.fsdecode(mask))), labels, shape, pixels)

    images, masks = (np.array([os.fsencode(path) for path in paths], object) for paths in zip(*pairs, strict=True))
    files = tuple(File(*(writable(_place(root, path)) for path in pair)) for pair in pairs)
    return IndexedSplit({"image": images, "mask": masks}, _specs(shape), decode, files)


def _specs(shape: tuple[int, int]) -> Specs:
    return {"image": ((*shape, 3), "uint8"), "mask": (shape, "uint8")}


def _load_tfds(name, data_dir, image_size, pixels, validation_fraction, class_names, values, void) -> ImageDataset:
    builder = prepared_builder(name, data_dir)
    features = builder.info.features
    if not {"image", MASK} <= set(features):
        raise DatasetError(f"{name} has {', '.join(features)}; a segmentation set has an image and a {MASK}")
    labels = declare(class_names, values, void, f"TFDS {name}")
    shape = image_shape(builder, image_size, "160 160")
    names = f"an image of {name}", f"a mask of {name}"

    def decode(image: bytes, mask: bytes) -> Example:
        return read_pair((image, mask), labels, shape[:2], pixels, names)

    specs = tfds_splits(builder, validation_fraction)
    _check_tfds(builder, specs, labels)
    splits = [
        StreamedSplit(undecoded(builder, split, image="image", mask=MASK), count, _specs(shape[:2]), decode)
        for split, count in specs.items()
    ]
    return ImageDataset(name, labels.classes, shape, *splits)


def _check_tfds(builder, specs: dict[str, int], labels: Labels) -> None:
    """Reads every mask once, and no image."""
    for split in specs:
        name = f"{builder.info.name}, {split},"

        def decode(mask: bytes, name: str = name) -> Example:
            return {"labelled": np.array((labels.classes_of(read_numbers(mask, name), name) != VOID).any())}

        masks = undecoded(builder, split, mask=MASK).map(decoder(decode, {"labelled": ((), "bool")}))
        with readable_images():
            labelled = [bool(example["labelled"]) for example in masks.as_numpy_iterator()]
        if not any(labelled):
            raise DatasetError(_all_void(f"{builder.info.name}, {split}", labels))
