"""`--json`: standard output is one JSON value, whatever else the command has to say."""

import json

import keras
import pytest
from helpers import pixels
from PIL import Image

import kzoo
from kzoo.check import CHECKS
from kzoo.cli import main
from kzoo.data.datasets import load_dataset
from kzoo.surgery import fold_batch_norm


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    kzoo.build("cifar_resnet20", depths=(1, 1, 1), widths=(4, 8, 8)).save(folder / "model.keras")
    Image.fromarray(pixels(1, 32, 32, 3)[0].astype("uint8")).save(folder / "picture.png")
    return folder


@pytest.fixture
def ask(capsys):
    def run(*args):
        capsys.readouterr()
        main([*map(str, args), "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def test_info(ask):
    found = ask("info", "resnet18")
    assert (found["output"]["task"], found["output"]["values"]) == ("classification", "softmax")
    assert found["trainable_parameters"] == kzoo.describe("resnet18").trainable_parameters
    assert found["weights"]["a1_in1k"]["licence"] == "Apache-2.0"
    assert list(found["taps"]) == ["p1", "p2", "p3", "p4", "p5"]
    with_attention = ask("info", "resnet18", "--attention", "se")
    assert (with_attention["weights"], with_attention["starts_from"]) == ({}, "resnet18")


def test_evaluate(model, ask):
    found = ask("evaluate", model / "model.keras", "--dataset", "digits")
    images, labels = load_dataset("digits").test.arrays().values()
    expected = keras.saving.load_model(model / "model.keras").predict(images.astype("float32"), verbose=0)
    assert found["scores"]["accuracy"] == pytest.approx((expected.argmax(1) == labels).mean())
    assert (found["images"], found["split"]) == (len(labels), "test")


def test_predict(model, ask):
    (found,) = ask("predict", model / "model.keras", model / "picture.png", "--top", "3")
    assert len(found["predictions"]) == 3
    assert found["image"] == str(model / "picture.png")


def test_export(model, ask, tmp_path):
    found = ask("export", model / "model.keras", tmp_path, "--precision", "float32", "float16")
    assert [report["precision"] for report in found] == ["float32", "float16"]
    folded = fold_batch_norm(keras.saving.load_model(model / "model.keras"))
    assert {report["macs"] for report in found} == {kzoo.graph.count_macs(folded)}


def test_check(add, ask, monkeypatch):
    add("small")
    for name in set(CHECKS) - {"builds"}:
        monkeypatch.setitem(CHECKS, name, lambda narrow: "")
    found = ask("check", "small")
    assert found["small"]["failed"] is False
    assert found["small"]["outcomes"]["builds"]["passed"] is True


def test_bench(add, ask, monkeypatch):
    monkeypatch.setattr("kzoo.bench.subjects.SIDE", 64)
    monkeypatch.setattr("kzoo.bench.turns.REST_S", 0)
    add("small")
    found = ask("bench", "small", "--precisions", "float32", "--threads", "1", "--rounds", "2", "--no-keras")
    assert found["models"][0]["name"] == "small"
    assert found["plan"]["rounds"] == 2


@pytest.mark.usefixtures("hasty")
def test_train(ask, tmp_path, capsys):
    options = ["--smoke", "--export", "--image-size", "16", "--output-dir", tmp_path / "runs"]
    found = ask("train", "quickstart", "--model", "simple_cnn", *options)
    (directory,) = (path.parent for path in tmp_path.rglob("report.json"))
    assert found == json.loads((directory / "report.json").read_text())
