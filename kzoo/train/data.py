"""Classification datasets by name: embedded digits, TFDS sets, image folders."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.errors import DatasetError, did_you_mean

DIGITS = "digits"
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
VOID = 255  # in masks, of pixels that are neither trained on nor counted


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of one split: a `tf.data.Dataset` of (uint8 (height, width, 3), label), and their number.

    The label is an integer, or for segmentation a mask, uint8 (height, width), of classes and `VOID`.
    """

    dataset: Any
    size: int

    def take(self, count: int) -> "Split":
        """The first `count` images."""
        return Split(self.dataset.take(count), min(count, self.size))

    def arrays(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, height, width, 3) uint8 and labels (n,) in memory."""
        examples = list((self.dataset if count is None else self.dataset.take(count)).as_numpy_iterator())
        images, labels = zip(*examples, strict=True)
        return np.stack(images), np.asarray(labels)


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A dataset. `validation` is held out of the training images; `test` is apart from both."""

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Split
    validation: Split
    test: Split


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> ImageDataset:
    """Loads a classification dataset as RGB pixels of 0 to 255.

    Args:
        name: `"digits"` (1,797 handwritten digits that ship with scikit-learn, at 32×32), the name of a TFDS
            set with an image and a label, or a folder with `train/CLASS/*` and `test/CLASS/*` (and
            `validation/CLASS/*`, else it is held out of train).
        data_dir: where TFDS keeps its sets. A set that is not there is downloaded.
        image_size: (height, width) to resize to, or one number for both.
        validation_fraction: share of the training images that is held out where the set names no validation.
        seed: of that choice, for digits and folders; TFDS sets hold out their last training images.

    Raises:
        DatasetError: unknown, absent, or not a classification set.

    Example:
        >>> data = load_dataset("digits")
        >>> data.train.size, data.validation.size, data.test.size
        (1293, 144, 360)
    """
    image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if name == DIGITS:
        return _load_digits(image_size or (32, 32), validation_fraction, seed)
    if name and Path(name).is_dir():
        return _load_folder(Path(name), image_size, validation_fraction, seed)
    if not name or name.startswith(("/", ".", "~")):
        raise DatasetError(f"no folder at {name!r}")
    return _load_tfds(name, data_dir, image_size, validation_fraction)


@contextlib.contextmanager
def readable_images(name: str) -> Iterator[None]:
    """Turns a failure to decode an image while the block runs into an error that names the file."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        broken = next((path for path in sorted(Path(name).rglob("*")) if _is_broken(path)), None)
        if broken is None:
            raise
        raise DatasetError(f"{broken} is no readable image; repair or remove it") from error


def _is_broken(path: Path) -> bool:
    import tensorflow as tf

    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        tf.io.decode_image(path.read_bytes(), expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return True
    return False


def _load_digits(size: tuple[int, int], validation_fraction: float, seed: int) -> ImageDataset:
    import tensorflow as tf
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = tf.image.resize(digits.images[..., None] * (255 / 16), size)
    images = np.repeat(np.clip(np.round(images), 0, 255).astype("uint8"), 3, axis=-1)
    labels = digits.target.astype("int64")
    # the test images are always the same; only what is held out of the rest follows the seed
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    try:
        train, validation = train_test_split(
            train, test_size=validation_fraction, stratify=labels[train], random_state=seed
        )
    except ValueError as error:
        raise DatasetError(f"validation_fraction={validation_fraction} leaves a split without some digit") from error
    splits = (
        Split(tf.data.Dataset.from_tensor_slices((images[part], labels[part])), len(part))
        for part in (train, validation, test)
    )
    return ImageDataset(DIGITS, tuple("0123456789"), (*size, 3), *splits)


def _load_folder(root: Path, size: tuple[int, int] | None, validation_fraction: float, seed: int) -> ImageDataset:
    if is_pairs(root):
        raise DatasetError(f"{root} holds images and masks, for models of the task segmentation; see kzoo list")
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise DatasetError(f"{root} must have folders train and test (and may have validation), with one per class")
    if size is None:
        raise DatasetError("images of a folder differ in size; say which to resize to, as in --image-size 224")
    classes = tuple(sorted(path.name for path in (root / "train").iterdir() if path.is_dir()))

    def read(part: str, **options):
        try:
            return keras.utils.image_dataset_from_directory(
                root / part,
                class_names=list(classes),
                image_size=size,
                batch_size=None,
                verbose=False,
                **options,
            )
        except ValueError as error:
            raise DatasetError(f"{root / part}: {error}") from error

    if (root / "validation").is_dir():
        train, validation = read("train", seed=seed), read("validation", shuffle=False)  # train mixes the classes
    else:
        train, validation = read("train", validation_split=validation_fraction, subset="both", seed=seed)
    splits = [_folder_split(dataset) for dataset in (train, validation, read("test", shuffle=False))]
    return ImageDataset(str(root), classes, (*size, 3), *splits)


def is_pairs(folder: Path) -> bool:
    """Whether a folder is laid out as images and masks, for segmentation."""
    return any((part / "images").is_dir() and (part / "masks").is_dir() for part in (folder, folder / "train"))


def _folder_split(dataset) -> Split:
    import tensorflow as tf

    size = len(dataset.file_paths)

    def to_pixels(image, label):
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), tf.cast(label, tf.int64)

    return Split(dataset.map(to_pixels, num_parallel_calls=tf.data.AUTOTUNE), size)


def _load_tfds(
    name: str, data_dir: str | None, size: tuple[int, int] | None, validation_fraction: float
) -> ImageDataset:
    import tensorflow_datasets as tfds

    builder = prepared_builder(name, data_dir)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise DatasetError(f"{name} has {', '.join(features)}; a classification set has an image and a label")
    height, width, _ = features["image"].shape
    if size is None and (height is None or width is None):
        raise DatasetError(f"images of {name} differ in size; say which to resize to, as in --image-size 224")
    specs = tfds_splits(builder, validation_fraction)
    shape = size or (height, width)
    splits = [Split(_read_tfds(builder, split, shape), count) for split, count in specs.items()]
    return ImageDataset(name, tuple(features["label"].names), (*shape, 3), *splits)


def tfds_splits(builder, validation_fraction: float) -> dict[str, int]:
    """TFDS's names for what trains, validates and tests, in this order, each with its number of images."""
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    test = next((split for split in ("test", "validation") if split in counts), None)
    if "train" not in counts or test is None:
        raise DatasetError(
            f"{builder.info.name} has splits {', '.join(counts)}; train, and test or validation, are needed"
        )
    if "validation" in counts and test != "validation":
        specs = {"train": counts["train"], "validation": counts["validation"]}
    else:
        kept = counts["train"] - round(counts["train"] * validation_fraction)
        if not 0 < kept < counts["train"]:
            raise DatasetError(f"validation_fraction={validation_fraction} leaves no image to train or to validate on")
        specs = {f"train[:{kept}]": kept, f"train[{kept}:]": counts["train"] - kept}
    return specs | {test: counts[test]}


def prepared_builder(name: str, data_dir: str | None):
    """The TFDS builder of `name`, with its data on disk."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        hint = did_you_mean(name, [DIGITS, *tfds.list_builders(with_community_datasets=False)])
        raise DatasetError(
            f"unknown dataset {name!r}: use {DIGITS!r}, a TFDS name, or the path of an image folder{hint}"
        ) from error
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:  # no network, no space, a missing package: TFDS has no type of its own
            reason = (str(error).strip().splitlines() or [""])[0]
            raise DatasetError(
                f"{name} is not in {builder.data_dir} and could not be downloaded ({type(error).__name__}: {reason}); "
                "prepare it where there is a network and pass its place with --data-dir"
            ) from error
    return builder


def _read_tfds(builder, split: str, shape: tuple[int, int]):
    import tensorflow as tf

    def to_pixels(example):
        image = example["image"]
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        if tuple(image.shape[:2]) != shape:
            image = tf.image.resize(tf.cast(image, tf.float32), shape, antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        return tf.ensure_shape(image, (*shape, 3)), tf.cast(example["label"], tf.int64)

    dataset = builder.as_dataset(split=split, shuffle_files=False)
    return dataset.map(to_pixels, num_parallel_calls=tf.data.AUTOTUNE)
