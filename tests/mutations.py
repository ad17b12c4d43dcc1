"""Damage to small files, from a seed: bits and blocks of any file, values of JSON, parts of zip and HDF5 files."""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

SECRET = 1234.5678  # fills the file that no other file may reach
ODD_NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
ODD_TEXTS = ("", "a", "\x1b[31m", "../../secret", "\ud800", "\x00", "x" * 10_000, "<img src=x>", "float32", "2")
ODD_VALUES = (
    *ODD_TEXTS,
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        5,
        1e-4,
        0.5,
        -0.0,
        1e308,
        2**31,
        2**63,
        10**30,
        10**5000,
        float("nan"),
        float("inf"),
    ),
    *([], {}, [[]], [None], [1, 2, 3], ["a", "b"], {"a": 1}, {"class_name": "Lambda", "config": {}}),
)


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four pieces of damage."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not content:
            break
        place = int(rng.integers(len(content)))
        length = int(rng.integers(1, 1 + min(64, len(content) - place)))
        other = int(rng.integers(len(content)))
        kind = rng.integers(9)
        if kind == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[place] = int(rng.choice((0, 1, 127, 128, 255)))
        elif kind == 2:
            content[place : place + length] = rng.bytes(length)
        elif kind == 3:
            content[place : place + length] = bytes([int(rng.choice((0, 255)))]) * length
        elif kind == 4:
            del content[place:]
        elif kind == 5:
            del content[place : place + length]
        elif kind == 6:
            content[other:other] = content[place : place + length]
        elif kind == 7:
            block = content[other : other + length]
            content[place : place + len(block)] = block
        else:  # a field of four or eight bytes
            size = int(rng.choice((4, 8)))
            place -= place % size
            content[place : place + size] = int(rng.choice(ODD_NUMBERS)).to_bytes(size, "little")
    return bytes(content)


def damage_json(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of another kind, a name gone, twice or new, deep nesting; or damage to the bytes."""
    if rng.random() < 0.25:
        return damage_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        holder, key = _place(value, rng)
        kind = rng.integers(10)
        if kind < 7:
            holder[key] = copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
        elif kind == 7:
            holder.pop(key)
        elif kind == 8 and isinstance(holder, dict):
            holder[ODD_TEXTS[rng.integers(len(ODD_TEXTS))]] = holder.pop(key)
        else:
            number = holder[key] if isinstance(holder[key], (int, float)) and abs(holder[key]) < 1e300 else 1
            holder[key] = number * int(rng.choice((-1, 2, 10, 1000, 10**6)))
        if not value:
            break
    text = _dump(value)
    if rng.random() < 0.03:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    if rng.random() < 0.03:
        depth = int(rng.choice((50, 500, 100_000)))
        text = text.replace("null", "[" * depth + "]" * depth, 1)
    return text.encode("utf-8", errors="surrogatepass")


def _dump(value: object) -> str:
    """JSON, with what JSON does not have; Python writes no number as long as one here."""
    text = json.dumps(value, default=str) if 10**5000 not in _flat(value) else json.dumps(_short(value))
    return text.replace('"<huge>"', "1" + "0" * 5000)


def _flat(value: object) -> list:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if not inside else [each for part in inside for each in _flat(part)]


def _short(value: object) -> object:
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return "<huge>" if isinstance(value, int) and value == 10**5000 else value


def _place(value: dict | list, rng: np.random.Generator) -> tuple[dict | list, object]:
    """Somewhere inside a value of JSON, and the name or index there."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[rng.integers(len(keys))]
        if not isinstance(value[key], (dict, list)) or not value[key] or rng.random() < 0.15:
            return value, key
        value = value[key]


def damage_hdf5(content: bytes, rng: np.random.Generator, secret: Path) -> bytes:
    """A dataset that is another kind of thing; or damage to the bytes."""
    if rng.random() < 0.75:
        return damage_bytes(content, rng)
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        datasets = []
        file.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        name = datasets[rng.integers(len(datasets))]
        shape, size = file[name].shape, file[name].nbytes
        other = datasets[rng.integers(len(datasets))]
        if rng.random() < 0.8:
            del file[name]
        else:
            name = f"{name}_more"
        kind = rng.integers(11)
        if kind == 0:
            file.create_dataset(name, shape, "float32", external=[(str(secret), 0, size)])
        elif kind == 1:
            layout = h5py.VirtualLayout(shape, "float32")
            layout[...] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "x", shape)
            file.create_virtual_dataset(name, layout)
        elif kind == 2:
            file[name] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "x")
        elif kind == 3:
            file[name] = h5py.SoftLink(f"/{other}")
        elif kind == 4 and other in file:
            file[name] = file[other]
        elif kind == 5:
            file.create_dataset(name, (2**20, 2**9), "float32", chunks=(2**10, 2**9), compression="gzip")
        elif kind == 6:
            file.create_dataset(name, data=["text"] * 3)
        elif kind == 7:
            file[name] = file["/"]
        elif kind == 8:
            file.create_dataset(name, shape, rng.choice(("int64", "float64", "float16", "complex64", "bool")))
        elif kind == 9:
            file.create_dataset(name, (*shape, 2), "float32")
        else:
            file.create_group(name)
    return buffer.getvalue()


def damage_keras(content: bytes, rng: np.random.Generator, secret: Path) -> bytes:
    """Damage to the parts of a `.keras` file, packed anew; or to its bytes."""
    if rng.random() < 0.2:
        return damage_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    kind = rng.random()
    if kind < 0.6:
        parts["config.json"] = damage_json(parts["config.json"], rng)
    elif kind < 0.9:
        parts["model.weights.h5"] = damage_hdf5(parts["model.weights.h5"], rng, secret)
    elif kind < 0.905:
        parts["model.weights.h5"] += bytes(100_000_000)
    elif kind < 0.96:
        parts.pop(list(parts)[rng.integers(len(parts))])
    else:
        parts[ODD_TEXTS[rng.integers(len(ODD_TEXTS))]] = b"more"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in parts.items():
            archive.writestr(name.encode("utf-8", "replace").decode().replace("\x00", "0") or "_", part)
    return buffer.getvalue()


Damage = Callable[[bytes, np.random.Generator], bytes]
