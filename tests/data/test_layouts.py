"""Folders as people have them: with and without splits, odd names, links, the same picture twice."""

import logging
import os
import re
import shutil
import threading
import time

import numpy as np
import pytest
from images.pictures import picture
from PIL import Image

from kzoo.data import batches, checking
from kzoo.data.datasets import load_dataset
from kzoo.data.split import StreamedSplit
from kzoo.errors import DatasetError, InvalidValueError


def write(root, *names, kind="PNG"):
    """A small picture of its own for each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(root / name)).save(root / name, format=kind)


def numbered(*folders, count=10):
    return [f"{folder}/{index}.png" for folder in folders for index in range(count)]


def load(root, **options):
    return load_dataset(str(root), **(dict(image_size=8) | options))


def paths(split) -> set[str]:
    return {path for path, _ in split.files}


def warnings(caplog, root, **options):
    with caplog.at_level(logging.WARNING, "kzoo"):
        data = load(root, **options)
    return data, [message.replace(str(root), "DATA") for message in caplog.messages]


def refused(root, **options) -> str:
    with pytest.raises((DatasetError, InvalidValueError)) as error:
        load(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(root), "DATA")


def test_a_folder_of_classes_alone_is_divided_with_the_same_test_whatever_the_seed(tmp_path, caplog):
    write(tmp_path, *numbered("cat", count=30), *numbered("dog", count=10))
    found = [warnings(caplog, tmp_path, test_fraction=0.2, validation_fraction=0.25, seed=seed) for seed in (0, 1)]
    for data, told in found:
        assert told == []
        for split, expected in ((data.train, [18, 6]), (data.validation, [6, 2]), (data.test, [6, 2])):
            assert np.bincount(split.arrays()["label"]).tolist() == expected
            assert [label for _, label in split.files] == [data.classes[n] for n in split.arrays()["label"]]
        assert paths(data.train) | paths(data.validation) | paths(data.test) == set(
            numbered("cat", count=30) + numbered("dog", count=10)
        )
    (one, _), (other, _) = found
    assert paths(one.test) == paths(other.test)
    assert paths(one.validation) != paths(other.validation)
    again = load(tmp_path, validation_fraction=0.25, seed=1)
    assert (again.train.files, again.validation.files) == (other.train.files, other.validation.files)


def test_all_holds_every_file_once_and_has_test_tells_who_divided(tmp_path):
    write(tmp_path / "alone", *numbered("cat", "dog"))
    write(tmp_path / "split", *numbered("train/cat", "train/dog", "test/cat", "test/dog"))
    for name, has_test in (("alone", False), ("split", True)):
        data = load(tmp_path / name)
        assert data.has_test == has_test
        found = data.all.arrays()
        assert sorted(path for path, _ in data.all.files) == sorted(
            path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*.png")
        )
        assert [label for _, label in data.all.files] == [data.classes[number] for number in found["label"]]
        np.testing.assert_array_equal(found["image"][-data.test.size :], data.test.arrays()["image"])
    assert not load(tmp_path / "split" / "train").has_test
    shutil.rmtree(tmp_path / "split" / "test")
    assert not load(tmp_path / "split").has_test, "it is held out of train"


def test_files_say_which_pixels_are_where(tmp_path):
    write(tmp_path, *numbered("cat", "dog"))
    data = load(tmp_path, image_size=(7, 9))
    for split in (data.train, data.validation, data.test, data.train.take(5), data.test.take(1)):
        images = split.arrays()["image"]
        assert len(images) == len(split.files) == split.size
        for image, (path, _) in zip(images, split.files, strict=True):
            np.testing.assert_array_equal(image, picture(tmp_path / path))


@pytest.mark.parametrize(
    ("parts", "sizes", "told"),
    [
        (("train", "val", "test"), (20, 20, 20), []),
        (("train", "valid", "test"), (20, 20, 20), []),
        (("Train", "Validation", "TEST"), (20, 20, 20), []),
        (("Training", "Testing"), (18, 2, 20), []),
        (
            ("train",),
            (14, 2, 4),
            [
                "DATA has no test images: test_fraction=0.2 of train is held out for the test, the same whatever the "
                "seed"
            ],
        ),
        (
            ("train", "val"),
            (18, 2, 20),
            [
                "DATA has no test images: those of validation are the test, and validation_fraction=0.1 of train is "
                "held out to choose the epoch"
            ],
        ),
    ],
)
def test_any_sensible_subset_of_splits_is_taken_and_what_is_done_is_said(parts, sizes, told, tmp_path, caplog):
    write(tmp_path, *numbered(*(f"{part}/{name}" for part in parts for name in ("cat", "dog"))))
    data, found = warnings(caplog, tmp_path)
    assert data.classes == ("cat", "dog")
    assert (data.train.size, data.validation.size, data.test.size) == sizes
    assert found == told
    if len(parts) > 1:
        assert paths(data.test) == {path for path in paths(data.test) if path.startswith(parts[-1])}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"^DATA has no picture of any class; each class needs a folder in it with PNG, JPEG, .* files$"),
        (["a.png"], r"DATA has no picture of any class, but 1 that lie directly in it \(such as a\.png\)"),
        (["cat/a.png"], "DATA has pictures of one class, 'cat'; a classifier tells two or more apart"),
        (["cat/a.png", "dog/a.png"], r"test_fraction=0\.2 of 2 images leaves nothing to hold out"),
        (numbered("test/cat", "val/dog"), r"DATA has test and val, and no train; it must have train/CLASS/\*, or CLA"),
        (
            numbered("train/cat", "train/dog", "val/cat", "validation/cat"),
            "DATA has val and validation, which are one split",
        ),
        (numbered("train/cat", "test/cat"), "DATA has pictures of one class, 'cat'"),
        (numbered("pets/cat", "pets/dog"), "DATA has one folder, pets, which would be the only class; give that one"),
        (numbered("pets/train/a", "pets/test/a"), "DATA has one folder, pets, which would be the only class"),
        (numbered("cat", "  "), "a class is called '  '; give it a name that can be seen"),
    ],
)
def test_folders_that_are_no_dataset_are_one_line(names, message, tmp_path):
    write(tmp_path, *names)
    assert re.search(message, refused(tmp_path))


def test_a_table_that_lies_in_the_folder_is_named(tmp_path):
    write(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert refused(tmp_path).endswith("; or give DATA/labels.csv as the dataset, if it says the class of each picture")


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, *numbered("bus", "train", "test"))
    assert load(tmp_path).classes == ("bus", "test", "train")


def test_names_of_any_kind_are_kept(tmp_path, caplog):
    """Spaces, other letters, marks of Markdown, CSV and HTML, two lines; one class by both spellings of an accent."""
    classes = [" space", "a|b", "a,b", 'a"b', "two\nlines", "<b>", "Кошка", "猫", "café", "-rf", "[red]"]
    for part in ("train", "test"):
        for name in classes:
            spelled = "cafe\u0301" if (name, part) == ("café", "test") else name
            write(tmp_path / part / spelled, *(f"{i} {name.strip()}\t.PNG".replace("\n", "_") for i in range(3)))
    data, told = warnings(caplog, tmp_path)
    assert sorted(data.classes) == sorted(classes)
    assert told == ["DATA: no validation image is of " + told[0].split(" is of ")[1]]
    assert data.test.arrays()["image"].shape == (33, 8, 8, 3)
    assert np.bincount(data.test.arrays()["label"]).tolist() == [3] * 11


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text(tmp_path):
    write(tmp_path, *numbered("cat", "dog"))
    strange = os.fsencode(tmp_path / "cat") + b"/\xff.png"
    os.rename(tmp_path / "cat/3.png", strange)
    data = load(tmp_path)
    everything = [data.train, data.validation, data.test]
    assert "cat/\\xff.png" in set.union(*map(paths, everything))
    assert sum(len(split.arrays()["label"]) for split in everything) == 20
    os.rename(tmp_path / "dog", os.fsencode(tmp_path) + b"/\xfe")
    assert "the class \\xfe is called by bytes that are no UTF-8" in refused(tmp_path)


def test_pictures_are_known_by_what_is_in_them(tmp_path, caplog):
    """Whatever their names end in, or not at all; a file that is called a picture and is none is an error."""
    write(tmp_path, *numbered("cat", "dog"))
    write(tmp_path, "cat/none", "cat/a.dat", "cat/b.HEIC", kind="JPEG")
    write(tmp_path, "dog/c.JPE", "dog/d.JFIF", kind="JPEG")
    write(tmp_path, "dog/e.Tif", kind="TIFF")
    write(tmp_path, "dog/f.png", kind="WEBP")
    (tmp_path / "cat/README").write_text("about cats")
    (tmp_path / "cat/empty").touch()
    data, told = warnings(caplog, tmp_path)
    assert data.train.size + data.validation.size + data.test.size == 27
    assert told == ["passed over in DATA: 2 that are no pictures (such as cat/README)"]
    (tmp_path / "cat/5.png").write_text("no picture")
    (tmp_path / "dog/3.png").write_bytes(b"")
    message = refused(tmp_path)
    assert message.startswith("DATA/cat/5.png cannot be read as an image")
    assert message.endswith(", nor can 1 more files; repair or remove what is no picture")


def test_what_is_not_of_a_class_and_what_lies_deeper_is_said(tmp_path, caplog):
    write(tmp_path, *numbered("train/cat", "train/dog", "test/cat", "test/dog"))
    write(tmp_path, "a.png", "train/b.png", "docs/c.png", "train/cat/night/snow/d.png", "train/cat/night/e.png")
    (tmp_path / "train/.DS_Store").touch()
    data, told = warnings(caplog, tmp_path)
    assert data.train.size + data.validation.size == 22
    assert told == [
        "passed over in DATA: 1 that are hidden or left by systems (such as train/.DS_Store), 3 in no folder of a "
        "class (such as a.png)",
        "DATA: 2 pictures are in folders inside a class's, and of that class, such as train/cat/night/e.png",
    ]


def test_links_are_followed_once(tmp_path, caplog):
    write(tmp_path / "elsewhere", *numbered("dogs"), "one.png")
    root = tmp_path / "data"
    write(root, *numbered("cat"))
    (root / "dog").symlink_to(tmp_path / "elsewhere/dogs")
    (root / "cat/linked.png").symlink_to(tmp_path / "elsewhere/one.png")
    (root / "cat/up").symlink_to(root)
    (root / "cat/nowhere.png").symlink_to(tmp_path / "absent.png")
    data, told = warnings(caplog, root, validation_fraction=0.25)
    assert data.classes == ("cat", "dog")
    assert data.train.size + data.validation.size + data.test.size == 21
    assert told == ["passed over in DATA: 1 that are no pictures (such as cat/nowhere.png)"]


def test_the_same_picture_in_two_splits_is_one_warning(tmp_path, caplog):
    write(tmp_path, *numbered("train/cat", "train/dog", "test/cat", "test/dog"))
    for number in (3, 4):
        shutil.copy(tmp_path / f"train/cat/{number}.png", tmp_path / f"test/cat/copy{number}.png")
    _, told = warnings(caplog, tmp_path)
    assert told == [
        "DATA: the same picture is in two splits, as test/cat/copy3.png and train/cat/3.png (2 pairs in all); remove "
        "one of each"
    ]


def test_copies_are_held_out_together_and_copies_in_two_classes_are_told(tmp_path, caplog):
    write(tmp_path, *numbered("cat", "dog"))
    for number in range(10):
        shutil.copy(tmp_path / f"cat/{number}.png", tmp_path / f"cat/copy{number}.png")
    data, told = warnings(caplog, tmp_path, test_fraction=0.3, validation_fraction=0.3)
    assert told == []
    for split in (data.train, data.validation, data.test):
        for number in range(10):
            assert (f"cat/{number}.png" in paths(split)) == (f"cat/copy{number}.png" in paths(split))
    shutil.copy(tmp_path / "cat/0.png", tmp_path / "dog/x.png")
    caplog.clear()
    assert warnings(caplog, tmp_path, validation_fraction=0.3)[1] == [
        "DATA: the same picture is in two classes, as cat/0.png and dog/x.png; remove one of each"
    ]


def test_only_files_of_one_size_are_opened_to_be_compared(tmp_path, monkeypatch):
    contents = {"a": b"1", "b": b"22", "c": b"33", "d": b"22", "e": b"x" * 5000 + b"1", "f": b"x" * 5000 + b"2"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    read = {"_head": [], "_digest": []}
    for name, files in read.items():
        look = getattr(checking, name)
        monkeypatch.setattr(
            checking, name, lambda path, look=look, files=files: (files.append(path.name), look(path))[1]
        )
    assert checking.first_copies([tmp_path / name for name in contents]).tolist() == [0, 1, 2, 1, 4, 5]
    assert sorted(read["_head"]) == ["b", "c", "d", "e", "f"]
    assert sorted(read["_digest"]) == ["b", "d", "e", "f"]


def test_files_of_a_slow_drive_are_looked_at_in_threads(tmp_path, monkeypatch):
    """In their order, whichever answers first."""
    names = [tmp_path / str(number) for number in range(200)]
    working: set[int] = set()

    def look(path):
        working.add(threading.get_ident())
        time.sleep(0.002 * (int(path.name) % 3 + 1))
        return path.name

    assert checking._each(look, names) == [path.name for path in names]
    assert len(working) > 8
    working.clear()
    monkeypatch.setattr(checking, "SLOW_SECONDS", 1)
    assert checking._each(look, names[:70]) == [path.name for path in names[:70]]
    assert len(working) == 1


def test_the_shuffle_of_a_stream_is_bounded_by_bytes(monkeypatch):
    """What TFDS gives is encoded pictures, of any size; files are read in any order."""
    import tensorflow as tf

    encoded = tf.data.Dataset.from_tensors({"image": b"x" * 992, "label": np.int64(0)}).repeat(100)
    assert batches._buffer(StreamedSplit(encoded, 100_000, {})) == 50_000
    monkeypatch.setattr(batches, "SHUFFLE_BYTES", 30_000)
    assert batches._buffer(StreamedSplit(encoded, 100_000, {})) == 30
    monkeypatch.setattr(batches, "SHUFFLE_BYTES", 300)
    assert batches._buffer(StreamedSplit(encoded, 100_000, {})) == 1
