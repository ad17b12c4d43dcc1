"""Files of other kinds, or of a right kind under a wrong name: each is refused with what it looks like."""

import functools
import resource
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy
from helpers import assert_weights_are, slow_but, weights_of
from weights.torch_files import random_state, save, save_keras, tiny

import kzoo
from kzoo.errors import WeightsError
from kzoo.weights import match
from kzoo.weights.files import read_values


@functools.cache
def untouched():
    """One model for all refusals, as none may change it, and its weights."""
    model = tiny()
    return model, weights_of(model)


def refused(path, message):
    model, before = untouched()
    with pytest.raises(WeightsError, match=message):
        kzoo.load_weights(model, path)
    assert_weights_are(model, before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.tflite", b"\x1c\0\0\0TFL3\0\0\0\0", "unknown format; its content looks like a TFLite model; use .saf"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "has an unknown format; use .safetensors"),
        ("model.zip", b"PK\x03\x04", "unknown format; its content looks like a zip archive"),
        ("model", b"", "unknown format; the file is empty"),
        ("model.ckpt.index", b"\0\0", "unknown format"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "looks like a Git LFS pointer"),
        ("model.h5", b"<!DOCTYPE html>", "cannot be read .*looks like a web page"),
        ("model.keras", b"\x89HDF\r\n\x1a\n", "cannot be read .*looks like an HDF5 file"),
        ("model.keras", b"", "cannot be read .*the file is empty"),
    ],
)
def test_other_formats(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize(
    ("written_as", "renamed", "message"),
    [
        ("a.safetensors", "a.h5", "cannot be read .*looks like a safetensors file"),
        ("a.safetensors", "a.keras", "cannot be read .*looks like a safetensors file"),
        ("a.h5", "a.safetensors", "is no readable safetensors file .*looks like an HDF5 file"),
        ("a.weights.h5", "a.keras", "cannot be read .*looks like an HDF5 file"),
        ("a.keras", "a.safetensors", "is no readable safetensors file .*looks like a zip archive"),
    ],
)
def test_renamed(written_as, renamed, message, tmp_path):
    path = tmp_path / written_as
    save(random_state(), path) if path.suffix == ".safetensors" else save_keras(tiny(), path)
    refused(path.rename(tmp_path / renamed), message)


def test_keras_formats_under_each_other_s_name(tmp_path):
    """What is inside counts: HDF5 with weights is read whether `.weights` is in the name or not."""
    donor = tiny()
    for written_as, renamed in (("a.weights.h5", "b.h5"), ("c.h5", "d.weights.h5"), ("e.h5", "e.hdf5")):
        save_keras(donor, tmp_path / written_as)
        model = tiny(num_classes=10)
        model.set_weights([0 * weight for weight in weights_of(model)])
        kzoo.load_weights(model, (tmp_path / written_as).rename(tmp_path / renamed))
        assert_weights_are(model, weights_of(donor))


def write_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def test_hdf5_that_keras_did_not_write(tmp_path):
    refused(write_h5(tmp_path / "empty.h5"), "holds no layers as Keras writes them")
    refused(write_h5(tmp_path / "data.h5", images=np.zeros(3)), "holds no layers as Keras writes them")
    nameless = write_h5(tmp_path / "old.weights.h5", layers__dense__vars__0=np.zeros(3))
    refused(nameless, "cannot be read")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file.attrs["layer_names"] = ["dense"]
        file.create_group("dense").attrs["weight_names"] = ["dense/kernel:0"]
    refused(other, "cannot be read")  # the array is not there
    with h5py.File(other, "a") as file:
        file["dense/dense/kernel:0"] = np.zeros((2, 2))
    refused(other, r"does not fit .*nothing in it matches")


def test_zip_that_keras_did_not_write(tmp_path):
    np.savez(tmp_path / "arrays.npz", kernel=np.zeros(3))
    refused(tmp_path / "arrays.npz", "unknown format; its content looks like a zip archive")
    refused((tmp_path / "arrays.npz").rename(tmp_path / "arrays.keras"), "cannot be read .*model.weights.h5")
    with zipfile.ZipFile(tmp_path / "inner.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"no HDF5")
    refused(tmp_path / "inner.keras", "cannot be read")


def test_folders(tmp_path):
    (tmp_path / "checkpoint").write_text("model_checkpoint_path: 'ckpt-1'")
    (tmp_path / "ckpt-1.index").write_bytes(b"\0")
    refused(tmp_path, "is a folder without model.safetensors or model.safetensors.index.json; pass a file in it")
    refused(tmp_path / "ckpt-1", "no weights file at")


@pytest.mark.parametrize("value", slow_but([np.nan, 1e39], [np.nan, np.inf, -np.inf, 1e39]))
@pytest.mark.parametrize("saved_as", ["tiny.safetensors", "tiny.h5", "tiny.weights.h5"])
def test_values_that_are_no_weights(value, saved_as, tmp_path):
    path = tmp_path / saved_as
    bad = np.array([value, 0, 0, 0])
    if saved_as == "tiny.safetensors":
        save(random_state() | {"bn1.bias": bad}, path)
    else:
        save_keras(tiny(), path)
        with h5py.File(path, "a") as file:
            place = next(find_dataset(file, (4,)))
            del file[place]
            file[place] = bad
    refused(path, "holds NaN or infinite values")


def find_dataset(file, shape):
    places = []
    file.visititems(lambda place, item: places.append(place) if getattr(item, "shape", None) == shape else None)
    return (place for place in places if "optimizer" not in place)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64"])
def test_numbers_that_are_no_weights(dtype, tmp_path):
    path = tmp_path / "tiny.h5"
    save_keras(tiny(), path)
    with h5py.File(path, "a") as file:
        place = next(find_dataset(file, (4,)))
        del file[place]
        file[place] = np.zeros(4, dtype)
    refused(path, f"holds {dtype}, not floating-point weights")
    if dtype != "complex64":
        with_integers = random_state() | {"bn1.bias": np.zeros(4, dtype)}
        refused(save(with_integers, tmp_path / "tiny.safetensors"), f"bn1.bias holds {dtype}, not floating-point")


@pytest.fixture
def secret(tmp_path):
    """A file of another, whose numbers must not become weights."""
    np.full(64, 1234.5, "float32").tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.full(4, 1234.5, "float32")
    return tmp_path / "secret.bin"


@pytest.mark.parametrize("name", ["tiny.weights.h5", "tiny.h5"])
@pytest.mark.parametrize("kind", ["external", "virtual", "external link"])
def test_numbers_of_another_file_are_never_read(kind, name, secret, tmp_path):
    path = tmp_path / name
    save_keras(tiny(), path)
    with h5py.File(path, "a") as file:
        place = next(find_dataset(file, (4,)))
        del file[place]
        if kind == "external":
            file.create_dataset(place, (4,), "float32", external=[(str(secret), 0, 16)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), "float32")
            layout[...] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "x", (4,))
            file.create_virtual_dataset(place, layout)
        else:
            file[place] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "x")
    refused(path, f"cannot be read \\({place} (keeps its numbers in another file|is a virtual dataset|is a link)")


@pytest.mark.parametrize("name", ["tiny.keras", "tiny.weights.h5", "tiny.h5"])
def test_names_and_shapes_decide_before_numbers_are_read(name, tmp_path, monkeypatch):
    path = tmp_path / name
    save_keras(tiny(), path)
    read = []

    def note(source, name, array):
        read.append(name)
        return read_values(source, name, array)

    monkeypatch.setattr(match, "read_values", note)
    with pytest.raises(WeightsError, match="2 do not fit"):
        kzoo.load_weights(tiny(num_classes=3), path)
    assert read == []
    kzoo.load_weights(tiny(num_classes=3), path, head="initialise")
    assert len(read) == 30
    assert not any("head" in name for name in read)


def test_a_declared_size_is_not_allocated(tmp_path):
    path = tmp_path / "tiny.weights.h5"
    save_keras(tiny(), path)
    with h5py.File(path, "a") as file:
        other = file.create_group("layers/other/vars")
        other.attrs["name"] = "other"
        other.create_dataset("0", (2**29,), "float32", chunks=(2**20,), compression="gzip")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, r"it declares 2,147,\d+,\d+ bytes of numbers, 2,147,483,648 of them in layers/other/vars/0")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_names_that_control_a_terminal_are_refused(tmp_path):
    state = random_state() | {"x\n\x1b[2J": np.zeros(4, "float32")}
    refused(save(state, tmp_path / "tiny.safetensors"), r"holds an array called 'x\\n\\x1b\[2J', which is no name")


def test_a_file_that_may_not_be_read(monkeypatch, tmp_path):
    path = save(random_state(), tmp_path / "tiny.safetensors")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safetensors.numpy, "load_file", refuse)
    refused(path, "is no readable safetensors file .*Permission denied")


def test_half_precision_in_hdf5(tmp_path):
    """HDF5 knows no bfloat16; Keras writes its two bytes."""
    donor = tiny()
    for dtype in ("float16", "bfloat16"):
        path = tmp_path / f"{dtype}.weights.h5"
        donor.save_weights(path)
        rounded = [keep_bits(weight, dtype) for weight in weights_of(donor)]
        with h5py.File(path, "a") as file:
            for place in list(find_dataset(file, (4,))):
                array = file[place][()]
                del file[place]
                file.create_dataset(place, data=array.astype(dtype))
        model = tiny()
        kzoo.load_weights(model, path)
        for variable, exact, half in zip(model.weights, weights_of(donor), rounded, strict=True):
            np.testing.assert_array_equal(variable, half if exact.shape == (4,) else exact)


def keep_bits(array, dtype):
    return array.astype(dtype).astype("float32")
