"""Datasets of TFDS: finding and preparing them, and their images as they lie on the disk."""

from collections.abc import Set
from pathlib import Path

import numpy as np

from kzoo.data.split import Example, Fit, ImageDataset, StreamedSplit
from kzoo.errors import DatasetError, did_you_mean
from kzoo.images import Pixels, read_picture
from kzoo.needs import need_tensorflow

LOOKED_AT = 8  # images of a split, to see whether it has labels


def load_tfds(
    name: str, data_dir: str | None, size: tuple[int, int] | None, pixels: Pixels, validation_fraction: float
) -> ImageDataset:
    """A set with an image and a label.

    Args:
        name: of TFDS.
        data_dir: where TFDS keeps its sets.
        size: (height, width) of the images; None leaves them as they are, if they are of one size.
        pixels: how they are fitted to it.
        validation_fraction: share of the training images, the last ones, that is held out where the set names no
            validation.

    Raises:
        DatasetError: unknown, absent, no such set, or one whose images have no labels.
    """
    builder = prepared_builder(name, data_dir)
    import tensorflow_datasets as tfds

    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise DatasetError(
            f"{name} has {', '.join(features)}; a classification set has an image and a label; images with several "
            "labels are read from a table, with a label_separator"
        )
    shape = image_shape(builder, size, "224")
    classes = tuple(features["label"].names)

    def decode(image: bytes, label: np.ndarray, fit: Fit | None = None) -> Example:
        if not 0 <= label < len(classes):
            raise DatasetError(f"{name} has an image of the label {label}; the labels are 0 to {len(classes) - 1}")
        picture = read_picture(image, 3, f"an image of {name}")
        return {"image": fit(picture) if fit else pixels.apply(picture, shape), "label": label}

    specs = tfds_splits(builder, validation_fraction, unlabelled=_unlabelled(builder))
    arrays = {"image": (shape, "uint8"), "label": ((), "int64")}
    splits = [
        StreamedSplit(undecoded(builder, split, image="image", label="label"), count, arrays, decode)
        for split, count in specs.items()
    ]
    return ImageDataset(name, classes, shape, *splits)


def _unlabelled(builder) -> set[str]:
    """Splits whose labels are not published, which TFDS marks by -1: those of their first images tell."""

    def labels(split: str, count: int) -> list[int]:
        first = undecoded(builder, f"{split}[:{min(count, LOOKED_AT)}]", label="label")
        return [int(example["label"]) for example in first.as_numpy_iterator()]

    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    return {split for split, count in counts.items() if count and max(labels(split, count)) < 0}


def image_shape(builder, size: tuple[int, int] | None, example: str) -> tuple[int, int, int]:
    """(height, width, 3) of the images of a set.

    Raises:
        DatasetError: they differ in size and `size` does not say which.
    """
    height, width, _ = builder.info.features["image"].shape
    if size is None and (height is None or width is None):
        raise DatasetError(
            f"images of {builder.info.name} differ in size; say which to resize to, as in --image-size {example}"
        )
    return (*(size or (height, width)), 3)


def undecoded(builder, split: str, **features: str):
    """A `tf.data.Dataset` for `StreamedSplit.source`: name -> feature of TFDS, images as the bytes of their files."""
    import tensorflow_datasets as tfds

    known = builder.info.features
    wanted = {feature: known[feature] for feature in features.values()}
    images = [feature for feature, kind in wanted.items() if isinstance(kind, tfds.features.Image)]
    partial = tfds.decode.PartialDecoding(wanted, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding()))
    dataset = builder.as_dataset(split=split, shuffle_files=False, decoders=partial)
    return dataset.map(lambda example: {name: example[feature] for name, feature in features.items()})


def tfds_splits(builder, validation_fraction: float, unlabelled: Set[str] = frozenset()) -> dict[str, int]:
    """TFDS's names for what trains, validates and tests, in this order, each with its number of images.

    Args:
        builder: of TFDS.
        validation_fraction: share of the training images that is held out where nothing else validates.
        unlabelled: splits that cannot be used.

    Raises:
        DatasetError: too few splits.
    """
    counts = {split: info.num_examples for split, info in builder.info.splits.items() if split not in unlabelled}
    test = next((split for split in ("test", "validation") if split in counts), None)
    if "train" not in counts or test is None:
        without = f"; {', '.join(sorted(unlabelled))} without labels" if unlabelled else ""
        raise DatasetError(
            f"{builder.info.name} has splits {', '.join(counts)}{without}; train, and test or validation, are needed"
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
    """The TFDS builder of `name`, with its data on disk.

    Raises:
        BackendError: there is no TensorFlow.
        DatasetError: unknown, or absent.
    """
    need_tensorflow(f"reading {name!r} with TFDS")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        hint = did_you_mean(name, ["digits", *tfds.list_builders(with_community_datasets=False)])
        raise DatasetError(
            f"unknown dataset {name!r}: use 'digits', a TFDS name, or the path of an image folder{hint}"
        ) from error
    if not builder.is_prepared():
        _need_files_by_hand(builder)
        try:
            builder.download_and_prepare()
        except Exception as error:  # no network, no space, a missing package: TFDS has no type of its own
            reason = (str(error).strip().splitlines() or [""])[0]
            raise DatasetError(
                f"{name} is not in {builder.data_dir} and could not be downloaded ({type(error).__name__}: {reason}); "
                "prepare it where there is a network and pass its place with --data-dir"
            ) from error
    return builder


def _need_files_by_hand(builder) -> None:
    """Raises `DatasetError` if TFDS can make a set only of files that somebody has to fetch, and there are none."""
    if not getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None):
        return
    folder = Path(builder.data_dir).parents[1] / "downloads" / "manual"
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DatasetError(
            f"{builder.name} is not in {builder.data_dir}, and TFDS cannot fetch it: put its archives into {folder} "
            "(tensorflow.org/datasets tells which), give the place of a prepared one with --data-dir, or a folder "
            "with train/CLASS/* and val/CLASS/* with --dataset"
        )
