"""A model that trains in a second, registered for one test at a time."""

import dataclasses

import pytest

from kzoo import registry
from kzoo.train import Recipe


@pytest.fixture
def tiny_model(monkeypatch) -> str:
    """Registers `cifar_resnet20` at narrow width as `tiny`."""
    entry = registry.lookup("cifar_resnet20")
    config = dataclasses.replace(entry.config, depths=(1, 1), widths=(4, 8))
    monkeypatch.setitem(registry._ENTRIES, "tiny", dataclasses.replace(entry, name="tiny", config=config))
    return "tiny"


@pytest.fixture
def recipe(tiny_model, tmp_path) -> Recipe:
    """Two epochs of `tiny` on 64 digits."""
    return Recipe(
        name="test",
        model=tiny_model,
        dataset="digits",
        image_size=16,
        epochs=2,
        smoke=True,
        output_dir=tmp_path / "run",
    )
