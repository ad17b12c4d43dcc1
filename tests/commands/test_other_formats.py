"""`kzoo export --onnx` and `--savedmodel`: their files, tables and mistakes."""

import importlib.util
import json

import pytest
from helpers import fails, pixels, randomise
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge.onnx_file import PACKAGES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two classes, and pictures for it."""
    directory = tmp_path_factory.mktemp("model")
    model = kzoo.build("cifar_resnet20", input_shape=(16, 16, 3), depths=(1, 1), widths=(4, 8), num_classes=2)
    randomise(model).save(directory / "model.keras")
    for split in ("train", "test"):
        for label in ("x", "y"):
            (directory / "images" / split / label).mkdir(parents=True)
            for i, image in enumerate(pixels(3, 16, 16, 3, seed=ord(label) + len(split))):
                Image.fromarray(image.astype("uint8")).save(directory / "images" / split / label / f"{i}.png")
    return directory


@pytest.mark.parametrize(("flag", "name"), [("--onnx", "out.onnx"), ("--savedmodel", "out")])
def test_a_file_its_card_and_its_report(folder, flag, name, tmp_path, capsys):
    if flag == "--onnx" and not all(map(importlib.util.find_spec, PACKAGES)):
        pytest.skip('not installed: pip install -e ".[onnx]"')
    data = ["--dataset", str(folder / "images"), "--evaluate", "6", "--report"]
    main(["export", str(folder / "model.keras"), str(tmp_path / name), flag, *data])
    told = capsys.readouterr().out
    title = "ONNX" if flag == "--onnx" else "SavedModel"
    (row,) = (line for line in told.splitlines() if line.startswith(f"{title}\t"))
    report = json.loads((tmp_path / "out_report.json").read_text())
    cells = row.split("\t")
    assert cells[1:3] == [f"{report['size_bytes'] / 1e6:.2f} MB", "any"]
    assert cells[-1] == f"{report['scores']['accuracy']['file']:.4f}"
    assert "compared with Keras on 5 images by " in told  # one is held out for validation
    files = {name, f"{name}.json", "out_report.json", "out_report.md"}
    assert {path.name for path in tmp_path.iterdir()} == files
    main(["export", str(folder / "model.keras"), str(tmp_path / name), flag, "--batch-size", "4", "--json"])
    assert json.loads(capsys.readouterr().out)[0]["input_shape"] == [4, 16, 16, 3]


@pytest.mark.parametrize(
    ("output", "arguments", "message"),
    [
        ("out.onnx", (), "is an ONNX file; say --onnx"),
        ("out.tflite", ("--onnx",), "must end in .onnx"),
        ("out", ("--onnx", "--savedmodel"), "are two formats; give one of them"),
        (
            "out",
            ("--savedmodel", "--precision", "int8"),
            "--precision is of LiteRT files; --savedmodel writes",
        ),
        ("out.onnx", ("--onnx", "--threads", "1"), "--threads is of LiteRT files"),
        ("images", ("--savedmodel",), "is there and no SavedModel"),
    ],
)
def test_mistakes(folder, output, arguments, message, capsys):
    before = sorted(folder.iterdir())
    assert message in fails(capsys, "export", str(folder / "model.keras"), str(folder / output), *arguments)
    assert sorted(folder.iterdir()) == before


def test_lacking_packages_are_one_line(folder, monkeypatch, tmp_path, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in PACKAGES[1:] else find(name))
    told = fails(capsys, "export", str(folder / "model.keras"), str(tmp_path / "out.onnx"), "--onnx")
    assert told.startswith("kzoo: exporting to ONNX needs ")
    assert 'onnx, onnxruntime, not installed here; pip install -e ".[onnx]"' in told
