"""HDF5 files from anywhere: what is looked at before a number of one is read, and what is never followed."""

import contextlib
import io
import math
from collections.abc import Iterator

import h5py
import numpy as np

from kzoo.apart import open_apart
from kzoo.errors import InvalidValueError
from kzoo.escape import printable
from kzoo.reading import largest_content

# filters of every HDF5 library; others are plugins, which are code
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
    h5py.h5z.FILTER_SCALEOFFSET,
}
_NUMBERS = "fiubc"  # kinds of NumPy's types; a bfloat16 is two bytes without a type, "V2"
LARGEST_ATTRIBUTE_BYTES = 2**20
UNPACKING = 4  # times what a file may hold: memory for the numbers, their chunk and its copies while it is unpacked


@contextlib.contextmanager
def open_numbers(content: bytes) -> Iterator[tuple[h5py.File, dict[str, h5py.Dataset]]]:
    """Opens a file; yields it and every dataset of it by its path, none of them read.

    Only a file that is whole in itself is taken: with numbers alone, each in its place once, no larger than its bytes
    allow, and without links. It is opened apart first, as HDF5 can go round in circles on a damaged one; numbers in
    chunks are read apart too, as what is packed in one may be larger than the chunk.

    Args:
        content: of the file.

    Raises:
        InvalidValueError: the file is not of that kind; the error names the dataset or link.
    """
    memory_bytes = UNPACKING * largest_content(len(content))
    open_apart("hdf5", content, memory_bytes=memory_bytes)
    with h5py.File(io.BytesIO(content)) as file:
        found = dict(_walk(file))
        for path, dataset in found.items():
            _refuse_foreign(path, dataset)
        declared = sum(size_bytes(dataset) for dataset in found.values())
        if declared > largest_content(len(content)):
            largest = max(found, key=lambda path: size_bytes(found[path]))
            raise InvalidValueError(
                f"it declares {declared:,} bytes of numbers, {size_bytes(found[largest]):,} of them in {largest}, and "
                f"has {len(content):,} bytes; at most {largest_content(len(content)):,} would be read"
            )
        if chunked := [path for path, dataset in found.items() if dataset.chunks]:
            open_apart("numbers", content, paths=chunked, memory_bytes=memory_bytes)
        yield file, found


def size_bytes(dataset: h5py.Dataset) -> int:
    """Size that a dataset declares; where it lies in chunks, each of them counts whole, as it is unpacked whole."""
    chunks = dataset.chunks or (1,) * dataset.ndim
    numbers = (-(-size // chunk) * chunk for size, chunk in zip(dataset.shape, chunks, strict=True))
    return math.prod(numbers) * dataset.dtype.itemsize


def attribute(item: h5py.Group | h5py.Dataset, name: str) -> list[str]:
    """The names in an attribute, which holds one or a list of them.

    Raises:
        InvalidValueError: there is none, it is too large, or it is no text.
    """
    if name not in item.attrs:
        raise InvalidValueError(f"{item.name} has no attribute {name!r}")
    held = item.attrs.get_id(name)
    if math.prod(held.shape) * held.dtype.itemsize > LARGEST_ATTRIBUTE_BYTES:
        raise InvalidValueError(f"the attribute {name!r} of {item.name} is too large")
    values = [value.decode() if isinstance(value, bytes) else value for value in np.ravel(item.attrs[name]).tolist()]
    if not all(isinstance(value, str) and printable(value) == value for value in values):
        raise InvalidValueError(f"the attribute {name!r} of {item.name} is no text of one line")
    return values


def _walk(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets in the order of their paths; links are not followed."""
    seen, waiting = {_place(file)}, [("", file)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, h5py.Dataset):
            yield path, item
            continue
        if not isinstance(item, h5py.Group):
            raise InvalidValueError(f"{path} is no group and no dataset")
        inside = []
        for name in item:
            below = printable(f"{path}/{name}").lstrip("/")
            if printable(name) != name:
                raise InvalidValueError(f"{below} is no name")
            if not isinstance(item.get(name, getlink=True), h5py.HardLink):
                raise InvalidValueError(f"{below} is a link to another place, which is not followed")
            inside.append((below, item[name]))
            if (place := _place(inside[-1][1])) in seen:
                raise InvalidValueError(f"{below} is another name of something in the file; each has one alone")
            seen.add(place)
        waiting += reversed(inside)


def _place(item: h5py.HLObject) -> int:
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
