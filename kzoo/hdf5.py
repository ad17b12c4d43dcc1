"""HDF5 files from anywhere: what is looked at before a number of one is read, and what is never followed."""

import math
from collections.abc import Iterator

import h5py
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.reading import largest_content

# filters of every HDF5 library; others are plugins, which are code
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
    h5py.h5z.FILTER_SCALEOFFSET,
}
_NUMBERS = "fiub"  # kinds of NumPy's types; a bfloat16 is two bytes without a type, "V2"
LARGEST_ATTRIBUTE_BYTES = 2**20


def numbers(file: h5py.File, file_bytes: int) -> dict[str, h5py.Dataset]:
    """Every dataset of a file by its path, none of them read.

    Only a file that is whole in itself is taken: with numbers alone, each in its place once, and no larger than its
    bytes allow.

    Args:
        file: open for reading.
        file_bytes: size of the file.

    Raises:
        InvalidValueError: the file is not of that kind; the error names the dataset or link.
    """
    found = dict(_walk(file))
    for path, dataset in found.items():
        _refuse_foreign(path, dataset)
    declared = sum(size_bytes(dataset) for dataset in found.values())
    if declared > largest_content(file_bytes):
        largest = max(found, key=lambda path: size_bytes(found[path]))
        raise InvalidValueError(
            f"it declares {declared:,} bytes of numbers, {size_bytes(found[largest]):,} of them in {largest}, and has "
            f"{file_bytes:,} bytes; at most {largest_content(file_bytes):,} would be read"
        )
    return found


def size_bytes(dataset: h5py.Dataset) -> int:
    """Size that a dataset declares."""
    return math.prod(dataset.shape or ()) * dataset.dtype.itemsize


def attribute(item: h5py.Group | h5py.Dataset, name: str) -> np.ndarray | str | bytes:
    """Value of an attribute, which is text or a list of it.

    Raises:
        InvalidValueError: there is none, or it is too large.
    """
    if name not in item.attrs:
        raise InvalidValueError(f"{item.name} has no attribute {name!r}")
    held = item.attrs.get_id(name)
    if math.prod(held.shape) * held.dtype.itemsize > LARGEST_ATTRIBUTE_BYTES:
        raise InvalidValueError(f"the attribute {name!r} of {item.name} is too large")
    return item.attrs[name]


def _walk(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    seen, waiting = {_place(file)}, [("", file)]
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            path = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InvalidValueError(f"{path} is a link to another place, which is not followed")
            item = group[name]
            if _place(item) in seen:
                raise InvalidValueError(f"{path} is another name of something in the file; each has one alone")
            seen.add(_place(item))
            if isinstance(item, h5py.Group):
                waiting.append((f"{path}/", item))
            elif isinstance(item, h5py.Dataset):
                yield path, item
            else:
                raise InvalidValueError(f"{path} is no group and no dataset")


def _place(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _refuse_foreign(path: str, dataset: h5py.Dataset) -> None:
    if dataset.external:
        raise InvalidValueError(f"{path} keeps its numbers in another file, which is not opened")
    if dataset.is_virtual:
        raise InvalidValueError(f"{path} is a virtual dataset, made of others, which are not opened")
    if dataset.dtype.kind not in _NUMBERS and dataset.dtype != "V2":
        raise InvalidValueError(f"{path} holds {dataset.dtype}, no numbers")
    if dataset.shape is None:
        raise InvalidValueError(f"{path} is empty")
    properties = dataset.id.get_create_plist()
    filters = (properties.get_filter(index)[0] for index in range(properties.get_nfilters()))
    if unknown := [number for number in filters if number not in _FILTERS]:
        raise InvalidValueError(f"{path} is packed by the filter {unknown[0]}, which is not used")
