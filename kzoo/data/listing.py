"""Pictures by class, from wherever they were listed: checked before any work, divided, and read when asked for."""

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kzoo.data.checking import check_headers, first_copies
from kzoo.data.division import Division, hold_out, join
from kzoo.data.split import Example, File, Fit, ImageDataset, IndexedSplit
from kzoo.errors import DatasetError
from kzoo.images import Pixels, read_picture

_log = logging.getLogger("kzoo")
PARTS = ("train", "validation", "test")
TABLES = (".csv", ".tsv", ".parquet")  # endings of files that list pictures
SPLIT_NAMES = {  # what people call splits, in small letters
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclasses.dataclass(frozen=True)
class Listing:
    """Pictures with their classes.

    Attributes:
        name: of the dataset.
        root: folder that paths are relative to.
        paths: of the pictures, with `/` between folders.
        labels: names of the classes of each: one, or with a separator any number.
        splits: `"train"`, `"validation"` or `"test"` of each; None where nothing is divided yet.
        classes: in their order.
        separator: what stands between the classes of a picture that may have several; None for one class each.
    """

    name: str
    root: Path
    paths: Sequence[str]
    labels: Sequence[tuple[str, ...]]
    splits: Sequence[str] | None
    classes: tuple[str, ...]
    separator: str | None = None

    @property
    def files(self) -> list[Path]:
        """The pictures."""
        return [self.root / path for path in self.paths]


def load_listing(
    listing: Listing, size: tuple[int, int] | None, pixels: Pixels, division: Division | None
) -> ImageDataset:
    """Looks at the header of each picture and divides them; pixels are read later.

    Of pictures that are not divided some are held out for the test. With training and validation images
    alone, those of validation are the test, as with TFDS sets that have no other, and what validates is held out of
    training.

    Args:
        listing: of the pictures.
        size: (height, width) of the images.
        pixels: how they are fitted to it.
        division: shares, keys and seed; training images are in an order by the seed, which mixes the classes. None
            divides nothing: all are training images, of one class too.

    Raises:
        DatasetError: no size, less than two classes, names that cannot be written, a class that training lacks, a
            file that is no picture, or parts that would be empty.
    """
    check_names(listing)
    if division is not None:
        check_parts(listing)
        _check_count(listing)
    if size is None:
        raise DatasetError("images of a folder differ in size; say which to resize to, as in --image-size 224")
    check_headers(listing.files)
    has = has_classes(listing)
    labels = has.argmax(axis=1).astype("int64") if listing.separator is None else has.astype("uint8")
    if listing.separator and (always := np.flatnonzero(has.all(axis=0)).tolist()):
        _log.warning(f"{listing.name}: every image is of {_named([listing.classes[number] for number in always])}")
    parts = {"train": np.arange(len(labels))} if division is None else divide(listing, labels, division)
    shape = (*size, 3)

    def decode(image: bytes, label: np.ndarray, fit: Fit | None = None) -> Example:
        picture = read_picture(os.fsdecode(image), 3)
        return {"image": fit(picture) if fit else pixels.apply(picture, shape), "label": label}

    specs = {"image": (shape, "uint8"), "label": (labels.shape[1:], labels.dtype.name)}
    written = [(listing.separator or "").join(names) for names in listing.labels]
    splits = []
    for mine in parts.values():
        paths = [listing.paths[index] for index in mine.tolist()]
        names = np.array([os.fsencode(listing.root / path) for path in paths], object)
        files = tuple(File(writable(path), written[index]) for path, index in zip(paths, mine.tolist(), strict=True))
        elements = {"image": names, "label": labels[mine]}
        splits.append(IndexedSplit(elements, specs, decode, files))
    if division is None:
        return ImageDataset.undivided(listing.name, listing.classes, shape, *splits)
    has_test = bool({*(listing.splits or ())} - {"train"})
    return ImageDataset(listing.name, listing.classes, shape, *splits, has_test=has_test)


def writable(name: str) -> str:
    """A name with codes in place of bytes that are no text, which files may be called by."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def path_inside(path: str, root: Path, place: str) -> str:
    """A path that a table or a description gives a picture, without `.` and `..`, with `/` between folders.

    A dataset may be anybody's, and what it names is opened, shown and copied into pages.

    Args:
        path: from the folder of the dataset, or from the root of the disk into it.
        root: the folder of the dataset.
        place: what begins the error.

    Raises:
        DatasetError: it leaves the folder.

    >>> path_inside("./cats/../dogs/a.png", Path("pets"), "labels.csv, line 2")
    'dogs/a.png'
    """
    whole = Path(os.path.normpath(path))
    normal = Path(os.path.relpath(whole, root.absolute())) if whole.is_absolute() else whole
    if normal.parts[:1] == ("..",):
        raise DatasetError(
            f"{place}: the path {path[:200]!r} leaves the dataset's folder; give paths from this folder, with all "
            "pictures in it"
        )
    return normal.as_posix()


def check_names(listing: Listing) -> None:
    """Raises `DatasetError` for a class whose name cannot be written or seen."""
    for name in listing.classes:
        if writable(name) != name:
            raise DatasetError(f"{listing.name}: the class {writable(name)} is called by bytes that are no UTF-8")
        if not name.strip():
            raise DatasetError(f"{listing.name}: a class is called {name!r}; give it a name that can be seen")


def check_parts(listing: Listing) -> None:
    """Raises `DatasetError` if a dataset that is divided has nothing to train on, or trains some class on nothing."""
    given = set(listing.splits or ["train"])
    if "train" not in given:
        raise DatasetError(f"{listing.name} has {' and '.join(sorted(given))} images and none to train on")
    for part in PARTS[1:]:
        if unknown := sorted(_classes_of(listing, part) - _classes_of(listing, "train")):
            raise DatasetError(
                f"{listing.name}: {part} has pictures of classes that train lacks: {', '.join(unknown)}; train has "
                f"{', '.join(sorted(_classes_of(listing, 'train')))}"
            )


def _check_count(listing: Listing) -> None:
    if len(listing.classes) < 2:
        which = f"one class, {listing.classes[0]!r}" if listing.classes else "no class"
        instead = (
            "name the other pictures' class too, without label_separator"
            if listing.separator
            else ("kzoo evaluate --split all judges one class too")
        )
        raise DatasetError(f"{listing.name} has pictures of {which}; a classifier tells two or more apart: {instead}")


def _classes_of(listing: Listing, part: str) -> set[str]:
    """The names of the classes in a part that the dataset itself has."""
    if listing.splits is None:
        return set()
    pairs = zip(listing.labels, listing.splits, strict=True)
    return {name for names, split in pairs if split == part for name in names}


def has_classes(listing: Listing) -> np.ndarray:
    """Whether each picture has each class, bool (n, classes)."""
    numbers = {name: number for number, name in enumerate(listing.classes)}
    pairs = [(index, numbers[name]) for index, names in enumerate(listing.labels) for name in names]
    found = np.zeros((len(listing.labels), len(listing.classes)), bool)
    found[tuple(np.array(pairs, int).reshape(-1, 2).T)] = True
    return found


def divide(listing: Listing, labels: np.ndarray, division: Division) -> dict[str, np.ndarray]:
    """The numbers of the pictures in each of `PARTS`; a warning tells of classes that one lacks, and of copies.

    Args:
        listing: of the pictures.
        labels: numbers of their classes (n,), or 0 and 1 of several (n, classes).
        division: shares, keys and seed.

    Raises:
        DatasetError: keys that are not found, or a part that would be empty.
    """
    keys = division.keys(listing.paths)
    copies = first_copies(listing.files)
    groups = copies if keys is None else join(copies, keys)
    splits = _given(listing, division)
    everything = np.arange(len(labels))
    if splits is None:
        tested = hold_out(labels, groups, listing.paths, division.test_fraction, 0, "test_fraction")
        parts = {"train": everything[~tested], "test": everything[tested]}
    else:
        parts = {part: everything[splits == part] for part in PARTS if part in splits}
        division.check(*([listing.paths[index] for index in mine] for mine in parts.values()))
    train = parts["train"][np.random.default_rng(division.seed).permutation(len(parts["train"]))]
    if "validation" in parts:
        parts["train"] = train
    else:
        share = division.validation_fraction
        names = [listing.paths[index] for index in train]
        held_out = hold_out(labels[train], groups[train], names, share, division.seed, "validation_fraction")
        parts |= {"train": train[~held_out], "validation": train[held_out]}
    _warn_of_copies(listing, copies, labels, parts)
    parts = {part: parts[part] for part in PARTS}
    has = has_classes(listing)
    for part in PARTS[1:]:
        numbers = np.flatnonzero(~has[parts[part]].any(axis=0)).tolist()
        if absent := [listing.classes[number] for number in numbers]:
            _log.warning(f"{listing.name}: no {part} image is of {_named(absent)}")
    return parts


def _given(listing: Listing, division: Division) -> np.ndarray | None:
    """The split of each picture, with one to test on; None where that is to be held out."""
    if listing.splits is None:
        return None
    given = set(listing.splits)
    if given == {"train"}:
        _log.warning(
            f"{listing.name} has no test images: test_fraction={division.test_fraction} of train is held out for "
            "the test, the same whatever the seed"
        )
        return None
    splits = np.array(listing.splits)
    if "test" not in given:
        _log.warning(
            f"{listing.name} has no test images: those of validation are the test, and "
            f"validation_fraction={division.validation_fraction} of train is held out to choose the epoch"
        )
        splits[splits == "validation"] = "test"
    return splits


def _warn_of_copies(listing: Listing, copies: np.ndarray, labels: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    """Tells of the same picture in two splits or in two classes."""
    places = np.empty(len(labels), int)
    for number, part in enumerate(PARTS):
        places[parts[part]] = number
    kinds = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    for what, values in (("splits", places), ("classes" if labels.ndim == 1 else "rows with other labels", kinds)):
        pairs = list(_differing(copies, values))
        if pairs:
            first, second = (listing.paths[index] for index in pairs[0])
            more = f" ({len(pairs)} pairs in all)" if len(pairs) > 1 else ""
            _log.warning(
                f"{listing.name}: the same picture is in two {what}, as {first} and {second}{more}; remove one of each"
            )


def _differing(copies: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, int]]:
    for index in np.flatnonzero(values[copies] != values):
        yield int(copies[index]), int(index)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
