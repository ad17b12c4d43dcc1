"""A run writes down which file was in which split, and goes on with the same files in the same splits alone."""

import csv
import shutil

import pytest
from helpers import make_recipe
from images.pictures import picture, saved

from kzoo.data.datasets import load_dataset
from kzoo.errors import OutputError, explain
from kzoo.train import loop, train
from kzoo.train.splits import check_splits, write_splits

ODD = ["a/two\nlines.png", 'a/comma, "quote".png', "b/猫 |.png"]


def load(root, **options):
    return load_dataset(str(root), image_size=8, **options)


@pytest.fixture
def root(tmp_path):
    """20 pictures of each of two classes, some with odd names."""
    for name in (*(f"{name}/{number}.png" for name in "ab" for number in range(19)), *ODD):
        saved(tmp_path / "data" / name, picture(tmp_path / name))
    return tmp_path / "data"


def test_splits_are_written_with_every_file_once(root, tmp_path):
    data = load(root)
    write_splits(data, tmp_path)
    with (tmp_path / "splits.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    for row in rows:
        assert row["label"] == row["path"][0]
        split = getattr(data, row["split"])
        assert (row["path"], row["label"]) in split.files
    check_splits(data, tmp_path)


def test_datasets_without_files_write_none(tmp_path):
    data = load_dataset("digits", image_size=8)
    write_splits(data, tmp_path)
    check_splits(data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_with_its_own_files_alone(root, tmp_path):
    write_splits(load(root), tmp_path)

    def told(**options) -> str:
        with pytest.raises(OutputError, match="holds a run on other files") as error:
            check_splits(load(root, **options), tmp_path)
        assert "--no-resume" in str(error.value)
        return explain(error.value).split("other files: ")[1].split(";")[0]

    moved = told(seed=1)
    assert moved.endswith(")")
    assert "moved to another split (such as " in moved
    assert "added" not in moved
    saved(root / "b/new.png", picture(root / "b/new.png"))
    assert told().startswith("1 added (such as b/new.png)")
    (root / "b/new.png").unlink()
    check_splits(load(root), tmp_path)
    (root / ODD[0]).unlink()
    assert told().startswith("1 removed (such as a/two lines.png)")


def test_a_picture_of_another_class_is_told(root, tmp_path):
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png")) if path.name not in ODD[0]]

    def table(first):
        rows = [
            [name, first if not number else name[0], ("train", "test", "val")[number % 3]]
            for number, name in enumerate(names)
        ]
        with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["path", "label", "split"], *rows])
        return load_dataset(str(root / "labels.csv"), image_size=8)

    write_splits(table("a"), tmp_path)
    check_splits(table("a"), tmp_path)
    with pytest.raises(OutputError, match=rf"other files: 1 with another label \(such as {names[0]}\)"):
        check_splits(table("b"), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"path,label\na,b\n",
        b"path,label,split\na,b\n",
        b'path,label,split\n"a,b,train',
        b"\xff\xfe",
        bytes(range(256)),
    ],
)
def test_a_damaged_list_is_one_line(content, root, tmp_path):
    (tmp_path / "splits.csv").write_bytes(content)
    with pytest.raises(OutputError, match=r"splits\.csv.*; put it back, or start again with --no-resume") as error:
        check_splits(load(root), tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_writes_its_splits_and_refuses_others(root, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    recipe = make_recipe(
        name="test",
        model=tiny_model,
        dataset=str(root),
        image_size=16,
        epochs=1,
        batch_size=8,
        output_dir=tmp_path / "run",
    )
    train(recipe)
    with (tmp_path / "run/splits.csv").open(newline="", encoding="utf-8") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"train", "validation", "test"}
    shutil.move(root / "a/3.png", root / "a/x.png")
    with pytest.raises(
        OutputError, match=r"holds a run on other files: 1 added \(such as a/x\.png\), 1 removed \(such as a/3"
    ):
        train(recipe.replace(epochs=2))
    shutil.move(root / "a/x.png", root / "a/3.png")
    (tmp_path / "run/splits.csv").unlink()  # of a run before there were such lists
    train(recipe.replace(epochs=2))
    assert (tmp_path / "run/splits.csv").exists()
