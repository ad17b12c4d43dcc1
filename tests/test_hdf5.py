"""HDF5 files: nothing is read that is outside of the file or merely declared, and none is a trap for the process."""

import io
import resource
import time
import zlib

import h5py
import numpy as np
import pytest

from kzoo.errors import InvalidValueError
from kzoo.hdf5 import attribute, open_numbers


def made(fill, **options) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


@pytest.fixture
def secret(tmp_path):
    """A file of another, in two formats."""
    (tmp_path / "secret").write_bytes(b"SECRET!!" * 64)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.frombuffer(b"SECRET!!" * 64, "float32")
    return tmp_path / "secret"


FOREIGN = {
    "external": (
        lambda file, secret: file.create_dataset("a/b", (16,), "float32", external=[(str(secret), 0, 64)]),
        "a/b keeps its numbers in another file, which is not opened",
    ),
    "external with a second part": (
        lambda file, secret: file.create_dataset(
            "a/b", (32,), "float32", external=[(str(secret), 0, 64), (str(secret), 64, 64)]
        ),
        "a/b keeps its numbers in another file",
    ),
    "virtual": (
        lambda file, secret: file.create_virtual_dataset("a/b", virtual(f"{secret}.h5")),
        "a/b is a virtual dataset",
    ),
    "virtual of the file itself": (
        lambda file, secret: file.create_virtual_dataset("a/b", virtual(".")),
        "a/b is a virtual dataset",
    ),
    "external link": (
        lambda file, secret: file.update_link("a/b", h5py.ExternalLink(f"{secret}.h5", "x")),
        "a/b is a link to another place, which is not followed",
    ),
    "external link to a group": (
        lambda file, secret: file.update_link("a", h5py.ExternalLink(f"{secret}.h5", "/")),
        "a is a link to another place",
    ),
    "soft link": (lambda file, secret: file.update_link("a/b", h5py.SoftLink("/x")), "a/b is a link to another place"),
    "second name": (lambda file, secret: file.update_link("y", file["x"]), "y is another name of something"),
    "circle": (lambda file, secret: file.update_link("a/b", file["/"]), "a/b is another name of something"),
    "text": (lambda file, secret: file.create_dataset("a/b", data=["one", "two"]), "a/b holds object, no numbers"),
    "references": (
        lambda file, secret: file.create_dataset("a/b", data=np.array([file.ref], h5py.ref_dtype)),
        "a/b holds object, no numbers",
    ),
    "fields": (
        lambda file, secret: file.create_dataset("a/b", (2,), [("red", "f4"), ("blue", "f4")]),
        "a/b holds .*, no numbers",
    ),
    "name of two lines": (lambda file, secret: file.update_link("a/b\n\x1b[2J", 1.0), r"a/b\\n\\x1b\[2J is no name"),
    "nothing": (lambda file, secret: file.create_dataset("a/b", data=h5py.Empty("f4")), "a/b is empty"),
    "type": (lambda file, secret: file.update_link("a/b", np.dtype("float32")), "a/b is no group and no dataset"),
    "declared size": (
        lambda file, secret: file.create_dataset("a/b", (2**29,), "float32", chunks=(2**20,), compression="gzip"),
        "it declares 2,147,483,.* bytes of numbers, 2,147,483,648 of them in a/b, and has .* bytes; at most 67,",
    ),
    "declared size of a chunk": (
        lambda file, secret: file.create_dataset(
            "a/b", (10,), "float32", maxshape=(None,), chunks=(4 * 10**8,), compression="gzip"
        ),
        "it declares 1,600,000,.* bytes of numbers, 1,600,000,000 of them in a/b, and has .* bytes; at most 67,",
    ),
    "declared size of chunks that are mostly outside": (
        lambda file, secret: file.create_dataset(
            "a/b", (4000, 1), "float32", maxshape=(None, None), chunks=(1, 10**4), compression="gzip"
        ),
        "it declares 160,000,.* bytes of numbers",
    ),
    "declared size in many": (
        lambda file, secret: [file.create_dataset(f"a/{i}", (2**18,), "float32") for i in range(80)],
        "it declares 83,886,.* bytes of numbers",
    ),
}


def virtual(source: str) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((16,), "float32")
    layout[...] = h5py.VirtualSource(source, "x", (16,))
    return layout


class Filling:
    """A file in which anything may be put at a path."""

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __getitem__(self, name):
        return self._file[name]

    def update_link(self, name, value):
        self._file[name] = value


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_in_the_file_is_refused_by_name(case, secret):
    fill, message = FOREIGN[case]

    def both(file):
        file["x"] = np.ones(16, "float32")
        fill(Filling(file), secret)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidValueError, match=message) as caught, open_numbers(made(both)):
        pass
    assert "SECRET" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_chunk_that_unpacks_to_more_than_it_declares_is_refused():
    """What is packed says by itself how much it is, and HDF5 unpacks it to the end."""
    packer, zeros, checksum = zlib.compressobj(wbits=-15), bytes(10**6), 1
    part = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(300):
        checksum = zlib.adler32(zeros, checksum)
    packed = b"\x78\x9c" + part * 300 + packer.flush() + checksum.to_bytes(4, "big")

    def fill(file):
        dataset = file.create_dataset("a/b", (10**4,), "float32", chunks=(10**4,), compression="gzip")
        dataset.id.write_direct_chunk((0,), packed)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        pytest.raises(InvalidValueError, match="a/b is damaged, or unpacks to more than it declares") as caught,
        open_numbers(made(fill)) as (_, found),
    ):
        found["a/b"][()]
    assert len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_plugin_is_not_asked_to_unpack(monkeypatch):
    content = made(lambda file: file.create_dataset("a", data=np.ones(64), chunks=(8,), compression="gzip"))
    filters = content.replace(b"deflate\0", b"unknown\0")
    assert filters != content
    place = filters.index(b"unknown\0") - 8
    assert filters[place] == h5py.h5z.FILTER_DEFLATE
    changed = filters[:place] + (32001).to_bytes(2, "little") + filters[place + 2 :]
    with pytest.raises(InvalidValueError, match="a is packed by the filter 32001"), open_numbers(changed):
        pass


def test_numbers_of_every_honest_kind_are_found():
    def fill(file):
        file["b/y"] = np.arange(3, dtype="int8")
        file["a"] = np.ones((2, 2))
        file["b/x"] = np.zeros(4, "V2")  # a bfloat16
        file.create_dataset("z", data=np.ones(2**16), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("w", data=np.ones(64), chunks=(8,), compression="lzf")
        file.create_dataset("v", (0, 3), maxshape=(None, 3))
        file.create_dataset("u", data=np.ones((3, 5)), maxshape=(None, None), chunks=(4, 4), scaleoffset=2)

    for options in ({}, {"libver": "latest"}):
        with open_numbers(made(fill, **options)) as (_, found):
            assert list(found) == ["a", "b/x", "b/y", "u", "v", "w", "z"]
            assert found["z"][()].sum() == 2**16
            assert found["u"][()].sum() == 15


def test_attributes_are_text_of_some_size():
    def fill(file):
        file.attrs["one"] = "conv"
        file.attrs["list"] = np.array([b"a", b"b"])
        file.attrs["number"] = 3
        file.attrs["escape"] = "conv\x1b[2J\n"
        file.create_group("g", track_order=True).attrs.create("large", np.zeros(2**18), dtype="float64")

    with open_numbers(made(fill, libver="latest")) as (file, _):
        assert attribute(file, "one") == ["conv"]
        assert attribute(file, "list") == ["a", "b"]
        for item, name, message in (
            (file, "number", "is no text of one line"),
            (file, "escape", "is no text of one line"),
            (file, "absent", "has no attribute 'absent'"),
            (file["g"], "large", "'large' of /g is too large"),
        ):
            with pytest.raises(InvalidValueError, match=message):
                attribute(item, name)


def test_a_file_that_sends_the_library_in_circles_is_given_up():
    """HDF5 walks a heap of texts by their sizes, for ever if one is zero."""

    def fill(file):
        file["x"] = [1.0]
        file["x"].attrs["name"] = "conv"

    content = bytearray(made(fill))
    size = content.index(b"GCOL") + 24
    content[size : size + 8] = bytes(8)
    start = time.process_time()
    with pytest.raises(InvalidValueError, match="damaged: opening it takes too long"), open_numbers(bytes(content)):
        pass
    assert time.process_time() - start < 2  # of this process


@pytest.mark.parametrize("length", [2**29, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_text_of_a_declared_length_is_not_allocated(length):
    """HDF5 takes memory for a text as it is told to, before it looks for the text."""

    def fill(file):
        file["x"] = [1.0]
        file["x"].attrs["name"] = "conv"

    content = bytearray(made(fill))
    place = content.index(content.index(b"GCOL").to_bytes(8, "little")) - 4  # where the attribute points to its text
    assert content[place : place + 4] == (4).to_bytes(4, "little")
    content[place : place + 4] = length.to_bytes(4, "little")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidValueError, match="damaged"), open_numbers(bytes(content)) as (file, _):
        attribute(file["x"], "name")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
