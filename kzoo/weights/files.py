"""Weights files on the disk: which formats there are, and reading their arrays without running anything in them."""

import contextlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import h5py
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from kzoo.errors import InvalidValueError, WeightsError
from kzoo.escape import printable
from kzoo.hdf5 import attribute, open_numbers
from kzoo.keras_file import WEIGHTS, read_member
from kzoo.reading import parse_json, read_bytes, read_text

SAFETENSORS = ".safetensors"
SHARD_INDEX = ".safetensors.index.json"
KERAS = (".keras", ".h5", ".hdf5")
SINGLE_FILE = "model" + SAFETENSORS
INDEX_FILE = "model" + SHARD_INDEX
ACCEPTED = (
    ".safetensors, the .safetensors.index.json of shards, .weights.h5, .h5 or .keras, or a folder with "
    f"{SINGLE_FILE} or {INDEX_FILE}"
)
PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl", ".pickle")
# place in the file, bytes there -> what it is
_SIGNATURES = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"PK\x03\x04", "a zip archive, as .keras and .npz files are and what torch.save writes"),
    (0, b"\x80", "a pickle"),
    (4, b"TFL3", "a TFLite model"),
    (8, b"{", "a safetensors file"),
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands for a file that was not fetched"),
    (0, b"<", "a web page"),
)
Place = tuple[str, int]  # the path of a layer, and which of its own weights


def is_torch(path: Path) -> bool:
    """Whether the name is that of a file, or of an index of files, with torch names."""
    return path.name.endswith((SAFETENSORS, SHARD_INDEX))


def find(path: Path) -> Path:
    """The weights file that `path` is, or that is in the folder `path`.

    Raises:
        WeightsError: there is none, or it is of no format that can be read.
    """
    try:
        inside = [path / name for name in (SINGLE_FILE, INDEX_FILE) if (path / name).is_file()]
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # no permission, a name too long
        raise WeightsError(f"{path} cannot be opened ({error}); pass a path that can be read") from error
    if is_folder and not inside:
        raise WeightsError(f"{path} is a folder without {SINGLE_FILE} or {INDEX_FILE}; pass a file in it")
    if is_folder:
        return inside[0]
    if not is_file:
        raise WeightsError(f"no weights file at {path}; pass an existing path or 'hf://owner/name'")
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{path} is a pickle, which can run any code when it is opened; convert it where you trust it: "
            "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('in.pth', "
            "weights_only=True), 'out.safetensors')\""
        )
    if not (is_torch(path) or path.suffix in KERAS):
        raise WeightsError(f"{path} has an unknown format{_looks(path)}; use {ACCEPTED}")
    return path


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads every array of a safetensors file, or of the shards that an index lists.

    Raises:
        WeightsError: a file is absent or malformed, or the index and its shards disagree.
    """
    if path.name.endswith(SAFETENSORS):
        return _read_safetensors(path)
    index = read_index(path)
    arrays: dict[str, np.ndarray] = {}
    for shard in sorted(set(index.values())):
        shard_path = path.parent / shard
        if not shard_path.is_file():
            raise WeightsError(f"{path} lists {shard}, which is not beside it; fetch all {len(set(index.values()))}")
        held = _read_safetensors(shard_path)
        expected = {name for name, place in index.items() if place == shard}
        if twice := sorted(arrays.keys() & held.keys()):
            raise WeightsError(f"{shard_path} and another shard both hold {_few(twice)}; fetch the shards again")
        if different := sorted(expected ^ held.keys()):
            raise WeightsError(f"{path} and {shard} disagree about {_few(different)}; fetch the shards again")
        arrays |= held
    return arrays


def read_index(path: Path) -> dict[str, str]:
    """The shard of every array."""
    try:
        index = parse_json(read_text(path), "it")
        if not isinstance(index, dict) or "weight_map" not in index:
            raise InvalidValueError("it has no weight_map")
        index = index["weight_map"]
        if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
            raise InvalidValueError("its weight_map names no files")
    except InvalidValueError as error:
        raise WeightsError(f"{path} is no index of safetensors shards ({error}); fetch it again") from error
    for shard in index.values():
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(SAFETENSORS):
            raise WeightsError(f"{path} lists {shard!r}, which is no safetensors file beside it; nothing was read")
    return index


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{path} is no readable safetensors file ({error}{_looks(path)}); fetch it again"
        ) from error
    if odd := [name for name in arrays if printable(name) != name]:
        raise WeightsError(f"{path} holds an array called {odd[0]!r}, which is no name of a weight; fetch it again")
    return arrays


@contextlib.contextmanager
def open_keras_weights(path: Path) -> Iterator[dict[Place, h5py.Dataset]]:
    """Opens the weights that Keras wrote, by the layers' names, whichever of its formats they are in; reads none.

    A `.keras` file holds a `.weights.h5` file beside the model's description, which is not looked at: so no code
    in it can run, and layers that are defined elsewhere do no harm.

    Raises:
        WeightsError: the file is malformed, refused by `kzoo.hdf5.open_numbers`, or holds no weights.
    """
    with contextlib.ExitStack() as stack:
        try:
            if path.suffix == ".keras":
                with zipfile.ZipFile(path) as archive:
                    content = read_member(archive, WEIGHTS, path.stat().st_size)
            else:
                content = read_bytes(path)
            file, held = stack.enter_context(open_numbers(content))
            legacy = file.get("model_weights", file)  # of a whole model, or alone
            layers = _names(legacy, "layer_names")
            values = _legacy_layers(held, legacy, layers) if layers else _layers(held, file)
            if not values:
                raise ValueError("it holds no layers as Keras writes them")
        except Exception as error:  # zip, HDF5 and NumPy each raise their own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(
                f"{path} cannot be read ({reason[0]}{_looks(path)}); write or fetch it again"
            ) from error
        yield values


def _layers(held: dict[str, h5py.Dataset], file: h5py.File) -> dict[Place, h5py.Dataset]:
    """What Keras 3's `model.save_weights` writes: layers in groups named by type, their own names beside the arrays.

    Keras itself matches by type and order, and would leave a part of the file unread without a word.
    """
    values: dict[Place, h5py.Dataset] = {}
    for place, dataset in held.items():
        if not place.startswith("layers/"):
            continue  # the state of an optimizer
        # layers/TYPE_OF_LAYER/TYPE_OF_A_LAYER_IN_IT/.../vars/INDEX
        *groups, _, index = place.split("/")
        parents = ("/".join(groups[:depth]) + "/vars" for depth in range(1, len(groups) + 1))
        names = [name for parent in parents if parent in file for name in attribute(file[parent], "name")]
        _add(values, ("/".join(names), int(index)), dataset)
    return values


def _legacy_layers(held: dict[str, h5py.Dataset], group: h5py.Group, layers: list[str]) -> dict[Place, h5py.Dataset]:
    """What Keras 1 and 2 wrote, and Keras 3 still does for a model saved as `.h5`: a group for every layer."""
    values: dict[Place, h5py.Dataset] = {}
    for layer in layers:
        counts: Counter[str] = Counter()
        for name in _names(group[layer], "weight_names"):
            inner = name.rpartition("/")[0]  # attention/reduce of attention/reduce/kernel:0
            owner = inner if inner.startswith(f"{layer}/") else layer
            _add(values, (owner, counts[owner]), held[f"{group.name}/{layer}/{name}".strip("/")])
            counts[owner] += 1
    return values


def _add(values: dict[Place, h5py.Dataset], place: Place, dataset: h5py.Dataset) -> None:
    if place in values:
        raise ValueError(f"it holds weight {place[1]} of {place[0]} twice")
    values[place] = dataset


def _names(group: h5py.Group, name: str) -> list[str]:
    """A list of names; what is too long for one attribute is in several that end in 0, 1, ..."""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    return [each for part in parts for each in attribute(group, part)]


Stored: TypeAlias = np.ndarray | h5py.Dataset  # an array, perhaps still in its file


def blank(array: Stored) -> np.ndarray:
    """Zeros of an array's shape and type that take no memory, to see whether the array would fit."""
    return np.broadcast_to(np.zeros((), _dtype(array)), array.shape)


def read_values(source: Path, name: str, array: Stored) -> np.ndarray:
    """The finite floating-point numbers of an array.

    Raises:
        WeightsError: they cannot be read, or some are NaN or infinite.
    """
    try:
        values = array[()].view(_dtype(array))
    except Exception as error:  # of HDF5, for damage in the middle of the file
        raise WeightsError(f"{source}: {name} cannot be read ({error}); write or fetch it again") from error
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype("float32", copy=False)).all()
    if not finite:
        raise WeightsError(f"{source}: {name} holds NaN or infinite values")
    return values


def check_kind(source: Path, name: str, array: Stored) -> None:
    """Raises `WeightsError` unless an array holds floating-point numbers."""
    dtype = _dtype(array)
    if not (np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"):
        raise WeightsError(f"{source}: {name} holds {dtype}, not floating-point weights")


def _dtype(array: Stored) -> np.dtype:
    """HDF5 has no bfloat16 and gives two bytes back."""
    return np.dtype(ml_dtypes.bfloat16) if array.dtype == "V2" else array.dtype


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _looks(path: Path) -> str:
    """Ends a message with what the content of a file looks like, where that says something."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError:
        return ""
    if not start:
        return "; the file is empty"
    kinds = (kind for place, signature, kind in _SIGNATURES if start[place:].startswith(signature))
    kind = next(kinds, None)
    return f"; its content looks like {kind}" if kind else ""
