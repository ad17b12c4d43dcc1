"""Segmentation datasets by name: folders of images and masks, and TFDS sets with a segmentation mask.

Whatever numbers the files use, the masks that leave here hold 0, 1, ... for the classes and `VOID` for pixels that
belong to none.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo.class_names import read_labels
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import FORMATS, SUFFIXES, read_picture
from kzoo.train.data import DIGITS, VOID, ImageDataset, Split, is_pairs, prepared_builder, tfds_splits
from kzoo.train.labels import UNKNOWN, Labels, declare

MASK_SUFFIXES = (".png", ".bmp")
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


def load_pairs(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: tuple[int, int] | None = None,
    class_names: Sequence[str] = (),
    mask_values: Sequence[int] = (),
    void: Sequence[int] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> ImageDataset:
    """Loads images with a mask each, and checks every mask before it returns.

    Args:
        name: a folder, by path or by its name in `data_dir`, or a TFDS set with a `segmentation_mask`. A folder holds
            `images/` and `masks/`, whose files pair by their names without the suffix, either in `train/`,
            `test/` and perhaps `validation/` or `val/`, or once for everything.
        data_dir: where named folders and TFDS sets are; default: `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        image_size: (height, width) to resize to, masks by nearest neighbour.
        class_names: of the classes; default: the lines of `classes.txt` in the folder.
        mask_values: value in the mask files of each class; default: 0, 1, ...
        void: values of pixels that belong to no class.
        validation_fraction: share of the training images that is held out where the set names no validation.
        test_fraction: share of a folder without splits that is held out for the test, whatever the seed.
        seed: of what is held out for validation.

    Raises:
        DatasetError: no such set, or one that is not whole; the message names the file.
        InvalidValueError: classes and values that do not go together.

    Example:
        >>> data = load_pairs("camvid", void=(11,))
        >>> data.train.size, data.image_shape, len(data.classes)
        (367, (176, 240, 3), 11)
    """
    root = find_folder(name, data_dir)
    declared = dict(class_names=class_names, values=mask_values, void=void)
    if root is None:
        if name == DIGITS:
            raise DatasetError(
                f"{DIGITS} have no masks; segmentation needs a folder of images and masks, or a TFDS set"
            )
        if not name or name.startswith(("/", ".", "~")):
            raise DatasetError(f"no folder at {name!r}")
        return _load_tfds(name, data_dir, image_size, validation_fraction, **declared)
    return _load_folder(root, image_size, validation_fraction, test_fraction, seed, **declared)


def find_folder(name: str, data_dir: str | None) -> Path | None:
    """The folder of images and masks called `name`: itself a path, or in `data_dir`; None if there is none."""
    if name and Path(name).is_dir():
        return Path(name)
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = Path(place).expanduser() / name
    return folder if name and is_pairs(folder) else None


def _load_folder(root, image_size, validation_fraction, test_fraction, seed, class_names, values, void):
    if not is_pairs(root):
        raise DatasetError(
            f"{root} is no segmentation set: it must have images/ and masks/, or train/images, train/masks, "
            "test/images and test/masks (and may have validation/ or val/)"
        )
    listed = root / "classes.txt"
    from_file = not class_names and listed.is_file()
    if from_file and not (class_names := read_labels(listed)):
        raise DatasetError(f"{listed} is empty; it must name the classes, one a line")
    try:
        labels = declare(class_names, values, void, f"{root} has no classes.txt and")
    except InvalidValueError as error:
        raise InvalidValueError(f"{listed}: {error}" if from_file else str(error)) from error
    parts = _split_folder(root, validation_fraction, test_fraction, seed)
    shape = _check(parts, labels, image_size)
    splits = [_folder_split(part, labels, shape) for part in parts]
    return ImageDataset(root.name, labels.classes, (*shape, 3), *splits)


Pair = tuple[Path, Path]


def _split_folder(root: Path, validation_fraction: float, test_fraction: float, seed: int) -> list[list[Pair]]:
    """Pairs for training, validation and test."""
    if (root / "train").is_dir():
        validation = next((root / part for part in ("validation", "val") if (root / part).is_dir()), None)
        if not (root / "test").is_dir():
            raise DatasetError(f"{root} has train/ and no test/; add one, or put everything in {root / 'images'}")
        train, test = find_pairs(root / "train"), find_pairs(root / "test")
        if validation is not None:
            return [train, find_pairs(validation), test]
    else:
        train, test = _hold_out(find_pairs(root), test_fraction, 0, "test_fraction")
    train, validation = _hold_out(train, validation_fraction, seed, "validation_fraction")
    return [train, validation, test]


def _hold_out(pairs: list[Pair], fraction: float, seed: int, option: str) -> tuple[list[Pair], list[Pair]]:
    count = round(len(pairs) * fraction)
    if not 0 < count < len(pairs):
        raise DatasetError(f"{option}={fraction} of {len(pairs)} images leaves one part without any")
    chosen = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
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
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix.lower() not in suffixes:
            raise DatasetError(f"{path} is no {', '.join(suffixes)} file; convert or remove it")
        if path.stem in found:
            raise DatasetError(f"{found[path.stem]} and {path} have the same name; remove one")
        found[path.stem] = path
    if not found:
        raise DatasetError(f"{folder} is empty")
    return found


def read_pair(pair: Pair, labels: Labels, shape: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Image (height, width, 3) and mask (height, width) of classes, uint8, resized to `shape`.

    Raises:
        DatasetError: naming the file that is at fault.
    """
    try:
        image = read_picture(pair[0], 3)
    except InvalidValueError as error:
        raise DatasetError(f"{error}; repair or remove it") from error
    mask = _open_mask(pair[1])
    if mask.mode not in MASK_MODES:
        raise DatasetError(
            f"{pair[1]} has colours ({mask.mode}); a mask has one channel with the number of the class of each pixel: "
            "translate its colours to numbers and save it as a grey PNG"
        )
    if image.size != mask.size:
        raise DatasetError(
            f"{pair[1]} is {mask.height}×{mask.width} and its image {pair[0].name} is {image.height}×{image.width}; "
            "they must be of one size"
        )
    values = np.asarray(mask)
    if values.max() <= 255:
        found = labels.table[values.astype("uint8")]
    unknown = np.unique(values[values > 255] if values.max() > 255 else values[found == UNKNOWN])
    if len(unknown):
        raise DatasetError(f"{pair[1]} {labels.complaint(unknown.tolist())}")
    if shape is not None and shape != found.shape:
        image = image.resize(shape[::-1], Image.Resampling.BILINEAR)
        found = np.asarray(Image.fromarray(found).resize(shape[::-1], Image.Resampling.NEAREST))
    return np.asarray(image), found


def _open_mask(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as file:
            file.load()
            return file
    except Exception as error:  # each format has its own errors for broken files
        raise DatasetError(f"{path} cannot be read as a mask ({error}); repair or remove it") from error


def _check(parts: list[list[Pair]], labels: Labels, image_size: tuple[int, int] | None) -> tuple[int, int]:
    """Reads every file once; returns the (height, width) of all."""
    pairs = [pair for part in parts for pair in part]

    def check(pair: Pair) -> tuple[tuple[int, int], bool]:
        mask = read_pair(pair, labels, image_size)[1]
        return mask.shape, bool((mask != VOID).any())

    with ThreadPoolExecutor() as pool:
        sizes, labelled = zip(*pool.map(check, pairs), strict=True)
    labelled = dict(zip(pairs, labelled, strict=True))
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


def _folder_split(pairs: list[Pair], labels: Labels, shape: tuple[int, int]) -> Split:
    import tensorflow as tf

    def read(index):
        return read_pair(pairs[index], labels, shape)

    def load(index):
        image, mask = tf.numpy_function(read, [index], (tf.uint8, tf.uint8))
        return tf.ensure_shape(image, (*shape, 3)), tf.ensure_shape(mask, shape)

    return Split(tf.data.Dataset.range(len(pairs)).map(load, num_parallel_calls=tf.data.AUTOTUNE), len(pairs))


def _load_tfds(name, data_dir, image_size, validation_fraction, class_names, values, void) -> ImageDataset:
    import tensorflow as tf

    builder = prepared_builder(name, data_dir)
    features = builder.info.features
    if not {"image", "segmentation_mask"} <= set(features):
        raise DatasetError(
            f"{name} has {', '.join(features)}; a segmentation set has an image and a segmentation_mask"
        )
    labels = declare(class_names, values, void, f"TFDS {name}")
    height, width, _ = features["image"].shape
    if image_size is None and (height is None or width is None):
        raise DatasetError(f"images of {name} differ in size; say which to resize to, as in --image-size 160 160")
    shape = image_size or (height, width)
    table = tf.constant(labels.table)

    def to_pair(example):
        image, mask = example["image"], example["segmentation_mask"]
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        if tuple(image.shape[:2]) != tuple(shape):
            image = tf.image.resize(tf.cast(image, tf.float32), shape, antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
            mask = tf.image.resize(mask, shape, "nearest")
        mask = tf.gather(table, tf.cast(mask[..., 0], tf.int32))
        return tf.ensure_shape(image, (*shape, 3)), tf.ensure_shape(mask, shape)

    specs = tfds_splits(builder, validation_fraction)
    _check_tfds(builder, specs, labels)
    splits = [
        Split(builder.as_dataset(split=split, shuffle_files=False).map(to_pair, tf.data.AUTOTUNE), count)
        for split, count in specs.items()
    ]
    return ImageDataset(name, labels.classes, (*shape, 3), *splits)


def _check_tfds(builder, specs: dict[str, int], labels: Labels) -> None:
    """Reads every mask once, and no image."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def count(total, example):
        values = tf.cast(tf.reshape(example["segmentation_mask"], [-1]), tf.int32)
        return total + tf.math.bincount(values, minlength=256, maxlength=256, dtype=tf.int64)

    only_masks = tfds.decode.PartialDecoding({"segmentation_mask": builder.info.features["segmentation_mask"]})
    for split in specs:
        dataset = builder.as_dataset(split=split, shuffle_files=False, decoders=only_masks)
        counts = dataset.reduce(tf.zeros(256, tf.int64), count).numpy()
        unknown = np.flatnonzero((counts > 0) & (labels.table == UNKNOWN))
        if len(unknown):
            raise DatasetError(f"{builder.info.name}, {split}, {labels.complaint(unknown.tolist())}")
        if not counts[labels.table < UNKNOWN].any():
            raise DatasetError(_all_void(f"{builder.info.name}, {split}", labels))
