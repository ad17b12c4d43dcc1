"""The gallery of the attention layers: complete, and its figures rest on right numbers."""

import re
import runpy
import sys

import pytest
from helpers import randomise

import kzoo
from kzoo import layers
from kzoo.errors import WeightsError
from kzoo.recipe import recipe_dir

STUDIES = recipe_dir() / "studies"
LAYERS = {getattr(entry.layer, "func", entry.layer).__name__ for entry in layers.ATTENTION.values()} | {
    name for name in layers.__all__ if re.search(".Attention|Attention.|Position", name)
}


@pytest.fixture
def gallery(monkeypatch):
    """The module, whose folder is no package."""
    monkeypatch.syspath_prepend(STUDIES)
    import attention_gallery

    return attention_gallery


@pytest.mark.slow
def test_every_attention_layer_is_on_the_page(gallery, tmp_path):
    randomise(kzoo.build("cifar_resnet20_cbam")).save(tmp_path / "model.keras")
    numbers = gallery.main(gallery.Options(tmp_path / "out", tmp_path / "model.keras", steps=2))

    page = (tmp_path / "out" / "README.md").read_text()
    assert {name for name in LAYERS if f"\n## {name}\n" not in page} == set()
    assert "{" not in page  # every number is filled in
    pictures = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.png")}
    assert set(pictures) == {f"{name}.png" for name in numbers}
    assert all(f"]({name})" in page for name in pictures)
    assert all(4_000 < size < 300_000 for size in pictures.values())

    sums = {name: figure["sum"] for name, figure in numbers.items() if "sum" in figure}
    assert len(sums) == 6
    assert sums == pytest.approx(dict.fromkeys(sums, 1), abs=1e-5)
    assert numbers["neighborhood_attention"]["fewest"] == numbers["neighborhood_attention"]["seen"] == 49
    assert numbers["stand_alone_attention"]["corner"] == numbers["window_attention"]["corner"] == 16
    assert numbers["sinusoidal_encoding"]["own"] == pytest.approx(32)  # sin² + cos² of 32 pairs
    assert numbers["cbam"]["difference"] < 1e-5


@pytest.mark.quick
def test_missing_model_is_told_before_any_work(gallery, tmp_path):
    with pytest.raises(WeightsError, match=r"no trained model .*absent.keras; `python recipes/cifar10"):
        gallery.main(gallery.Options(tmp_path / "out", tmp_path / "absent.keras"))
    assert list(tmp_path.iterdir()) == []


def test_mistakes_on_the_command_line_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["attention_gallery.py", "--model", str(tmp_path / "absent.keras")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(STUDIES / "attention_gallery.py"), run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("kzoo: there is no trained model")
