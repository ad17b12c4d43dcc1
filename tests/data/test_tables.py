"""Tables of pictures: what is in each split is what the rows say, and what is wrong with a row is one line."""

import sys

import numpy as np
import pytest
from images.pictures import picture
from PIL import Image

from kzoo.data.datasets import load_dataset
from kzoo.errors import DatasetError

PATHS = [f"{name}{number}.png" for name in "ab" for number in range(10)]
PLAIN = "path,label\n" + "".join(f"{path},{path[0]}\n" for path in PATHS)


@pytest.fixture
def folder(tmp_path):
    """Pictures a0 to a9 and b0 to b9, and some in a folder with a space."""
    for name in (*PATHS, "my pictures/ä.jpg", "my pictures/c"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(path)).save(path, format="PNG")
    return tmp_path


def load(folder, content, name="labels.csv", **options):
    path = folder / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    return load_dataset(str(path), **(dict(image_size=(7, 9)) | options))


def rows(data) -> set[tuple[str, str, str]]:
    """(path, label, split) of each picture."""
    found = set()
    for part in ("train", "validation", "test"):
        split = getattr(data, part)
        labels = split.arrays()["label"]
        assert [data.classes[label] for label in labels] == [label for _, label in split.files]
        found |= {(path, label, part) for path, label in split.files}
    return found


def test_the_rows_say_class_and_split(folder):
    given = {
        ("a0.png", "cat", "train"),
        ("a1.png", "dog", "train"),
        ("a2.png", "cat", "validation"),
        ("a3.png", "dog", "test"),
        ("my pictures/ä.jpg", "cat", "test"),
        ("my pictures/c", "dog", "validation"),
    }
    spelled = {"validation": "Valid", "test": "TEST", "train": "train"}
    lines = [f"{path},{label},{spelled[split]}" for path, label, split in sorted(given)]
    data = load(folder, "\n".join(["path,label,split", *lines]))
    assert rows(data) == given
    for split in (data.train, data.validation, data.test):
        for image, (path, _) in zip(split.arrays()["image"], split.files, strict=True):
            np.testing.assert_array_equal(image, picture(folder / path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", PLAIN),
        ("labels.CSV", "\ufeff" + PLAIN.replace("\n", "\r\n")),
        ("labels.csv", PLAIN.replace(",", ";")),
        ("labels.csv", PLAIN.replace(",", " , ").replace("path", "Path").replace("\n", "\n\n")),
        ("labels.csv", "id,label,path,split\n" + "".join(f"{path},{path[0]},./{path},\n" for path in PATHS)),
        ("labels.tsv", PLAIN.replace(",", "\t")),
        ("labels.csv", PLAIN.replace("a0.png,a", '"a0.png","a"')),
    ],
    ids=["plain", "of Windows", "semicolons", "spaces", "more columns", "TSV", "quotes"],
)
def test_every_spelling_of_a_table_is_divided_alike(name, content, folder):
    expected = rows(load(folder, PLAIN, "expected.csv"))
    assert len(expected) == 20
    assert rows(load(folder, content, name)) == expected


def test_labels_that_are_numbers_are_classes_in_the_order_of_numbers(folder):
    labels = ["10", "9", "-1", "2"]
    lines = [f"{path},{labels[number % 4]}\n" for number, path in enumerate(PATHS)]
    assert load(folder, "path,label\n" + "".join(lines)).classes == ("-1", "2", "9", "10")
    assert load(folder, "path,label\n" + "".join(lines).replace(",-1", ",x")).classes == ("10", "2", "9", "x")
    with pytest.raises(DatasetError, match=r"the labels '2' and '2\.0' are one number; write them alike"):
        load(folder, "path,label\n" + "".join(lines).replace(",2", ",2.0", 1))


def test_names_of_classes_of_any_kind_are_kept(folder):
    content = PLAIN.replace(",a\n", ',"猫/a|b\n<i>"\n')
    assert load(folder, content).classes == ("b", "猫/a|b\n<i>")


def row(place, cells):
    """The table with another line in place of one of its own, counted from one."""
    lines = PLAIN.splitlines()
    lines[place - 1] = cells
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "labels.csv is empty; it must have a header, then a row for each picture"),
        ("\n \n", "labels.csv is empty"),
        ("path,label\n", "labels.csv has no rows under its header"),
        (b"path,label\n\xff.png,a\n", "cannot read .*labels.csv: byte 11 is not UTF-8"),
        (PLAIN.encode("utf-16"), "labels.csv: byte 0 is not UTF-8"),
        (row(1, "file,class"), "must have a header with one column path, .*; its first line is 'file', 'class'"),
        (row(1, "a0.png,a"), "its first line is 'a0.png', 'a'"),
        (row(1, "path,label,path"), "must have a header with one column path"),
        (row(3, "a1.png,a,b"), "line 3: 3 cells, and the header has 2"),
        (row(3, "a1.png"), "line 3: 1 cells, and the header has 2"),
        (row(4, "a2.png, "), "line 4: no label; each row must have one"),
        (row(4, ",a"), "line 4: no path; each row must have one"),
        (row(5, "a2.png,a"), "line 5: a2.png is there twice, first in line 4; remove one"),
        (row(5, "./a2.png,b"), "line 5: a2.png is there twice, first in line 4"),
        (row(6, "absent.png,a"), r"line 6: absent.png is no file in .*; paths go from the table's folder"),
        (row(6, "my pictures,a"), "line 6: my pictures is no file"),
        (row(6, "x.png,a") + "\ny.png,b", r"line 6: x.png is no file in .*, nor are 1 more"),
        (row(6, "a\0.png,a"), "is no file"),
        (row(6, '"a4.png,a'), "labels.csv: unexpected end of data"),
        (row(6, "a4.png," + "x" * 200_000), "field larger than field limit"),
        (row(6, "labels.csv,a"), r"labels\.csv cannot be read as an image"),
        ("path,label\n" + "".join(f"a{n}.png,a\n" for n in range(9)), "pictures of one class, 'a'"),
        ("path,label\na0.png,a\nb0.png,b\n", r"test_fraction=0\.2 of 2 images leaves nothing to hold out"),
        ("path,label,split\na0.png,a,train\nb0.png,b,", "line 3: no split; each row must have one"),
        ("path,label,split\na0.png,a,dev\nb0.png,b,test", "line 2: split 'dev' is not accepted; use one of train,"),
        ("path,label,split\na0.png,a,val\nb0.png,b,test", "has test and validation images and none to train on"),
        (
            "path,label,split\na0.png,a,train\na1.png,b,train\na2.png,c,test",
            "labels.csv: test has pictures of classes that train lacks: c; train has a, b",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(content, message, folder):
    with pytest.raises(DatasetError, match=message) as error:
        load(folder, content)
    assert "\n" not in str(error.value)


def test_a_table_needs_a_size_too(folder):
    with pytest.raises(DatasetError, match="say which to resize to"):
        load(folder, PLAIN, image_size=None)


def test_parquet_says_what_csv_says(folder):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = [path[0] for path in PATHS]
    numbers = [10 if label == "a" else 9 for label in labels]

    def written(**columns):
        parquet.write_table(pa.table(columns), folder / "labels.parquet")
        return load(folder, None, "labels.parquet")

    assert rows(written(path=PATHS, label=labels, size=numbers)) == rows(load(folder, PLAIN))
    assert written(Path=PATHS, label=numbers).classes == ("9", "10")
    for missing in (None, float("nan")):
        with pytest.raises(DatasetError, match="row 3: no label"):
            written(path=PATHS, label=[*numbers[:2], missing, *numbers[3:]])
    with pytest.raises(DatasetError, match="must have a header with one column path"):
        written(image=[b"x"], label=[3])
    plain = folder / "plain.parquet"
    parquet.write_table(pa.table(dict(path=PATHS, label=labels)), plain, compression="none")
    no_text = plain.read_bytes().replace(b"a3.png", b"\xff3.png")
    for content in (b"", b"PAR1", plain.read_bytes()[:-9], no_text):
        with pytest.raises(DatasetError, match=r"labels\.parquet cannot be read as Parquet \(") as error:
            load(folder, content, "labels.parquet")
        assert "\n" not in str(error.value)


def test_parquet_without_pyarrow_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DatasetError, match="needs pyarrow: pip install pyarrow, or save the table as CSV"):
        load(folder, b"PAR1", "labels.parquet")


@pytest.mark.parametrize("path", ["../a0.png", "b/../../a0.png", "..", "/etc/hostname", "a/b/../../../x.png"])
def test_a_path_that_leaves_the_folder_is_refused(path, folder):
    """Whoever made the table would choose which files are opened, shown and copied."""
    (folder / "inner" / "b").mkdir(parents=True)
    with pytest.raises(
        DatasetError, match=r"labels\.csv, line 2: the path .* leaves the dataset's folder; give"
    ) as error:
        load(folder / "inner", f"path,label\n{path},a\n")
    assert repr(path) in str(error.value)
    inside = PLAIN.replace("a0.png", "my pictures/../a0.png")
    assert rows(load(folder, inside)) == rows(load(folder, PLAIN, "expected.csv"))
