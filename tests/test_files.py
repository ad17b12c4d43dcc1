"""Files are written whole or not at all."""

import os
import shutil
from collections import namedtuple

import pytest

from kzoo.errors import OutputError
from kzoo.files import LOCK, atomic_path, ensure_writable, exclusive, write_text


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_new_file_appears_whole(tmp_path):
    path = tmp_path / "model.weights.h5"
    path.write_text("old")
    with atomic_path(path) as partial:
        assert partial.parent == tmp_path
        assert partial.name.endswith(".weights.h5")  # writers that look at the suffix still know it
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["model.weights.h5"]


@pytest.mark.quick
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_keeps_the_old_file(failure, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail():
        with atomic_path(path) as partial:
            partial.write_text("ne")
            raise failure

    with pytest.raises(failure):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_failed_rename_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_what_a_kill_left_is_taken_over(tmp_path):
    path = tmp_path / "report.json"
    with atomic_path(path) as partial:
        partial.write_text("first")
    partial.write_text("left by a kill")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert names(tmp_path) == ["report.json"]


def test_a_planted_link_is_not_followed(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    with atomic_path(tmp_path / "o.tflite") as partial:
        pass
    for planted in (target, tmp_path / "nowhere"):
        partial.symlink_to(planted)
        with atomic_path(tmp_path / "o.tflite") as again:
            assert again == partial
            assert not again.is_symlink()
            again.write_text("new")
        assert (tmp_path / "o.tflite").read_text() == "new"
        assert not (tmp_path / "o.tflite").is_symlink()
    assert target.read_text() == "precious"
    assert names(tmp_path) == ["o.tflite", "precious.txt"]
    partial.mkdir()
    with pytest.raises(OutputError, match=r"the folder .*o\.partial\.tflite is in the way; remove it"):
        write_text(tmp_path / "o.tflite", "x")


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(target)
    with pytest.raises(OutputError, match="cannot lock"), exclusive(tmp_path / "run"):
        pass
    assert target.read_text() == "precious"


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "card.md", "32×32 – ≤ 1 %")
    assert (tmp_path / "card.md").read_bytes() == "32×32 – ≤ 1 %".encode()


def test_ensure_writable(tmp_path, monkeypatch):
    assert ensure_writable(tmp_path / "runs" / "first") == tmp_path / "runs" / "first"
    assert names(tmp_path / "runs" / "first") == []  # the probe is gone
    (tmp_path / "file").write_text("kept")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot write to .*file.*: .*; choose another output directory"):
            ensure_writable(directory)
    assert (tmp_path / "file").read_text() == "kept"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2e9, 1.9e9, 1e8))
    ensure_writable(tmp_path, need_bytes=100_000_000)
    with pytest.raises(OutputError, match=r"has 100\.0 MB free and 250\.0 MB are needed; free some space"):
        ensure_writable(tmp_path, need_bytes=250_000_000)
