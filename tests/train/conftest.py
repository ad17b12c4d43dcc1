"""A model that trains in a second, registered for one test at a time."""

import dataclasses
import shutil

import pytest
from helpers import make_recipe

from kzoo import registry
from kzoo.train import Recipe, train


def register_tiny(monkeypatch) -> str:
    """Registers `cifar_resnet20` at narrow width as `tiny`."""
    entry = registry.lookup("cifar_resnet20")
    config = dataclasses.replace(entry.config, depths=(1, 1), widths=(4, 8))
    monkeypatch.setitem(registry._ENTRIES, "tiny", dataclasses.replace(entry, name="tiny", config=config))
    return "tiny"


def two_epochs(model: str, directory) -> Recipe:
    """Two epochs of the model on 64 digits."""
    return make_recipe(
        name="test",
        model=model,
        dataset="digits",
        image_size=16,
        epochs=2,
        smoke=True,
        output_dir=directory / "run",
    )


@pytest.fixture
def tiny_model(monkeypatch) -> str:
    """`tiny`, registered."""
    return register_tiny(monkeypatch)


@pytest.fixture
def recipe(tiny_model, tmp_path) -> Recipe:
    """Two epochs of `tiny`."""
    return two_epochs(tiny_model, tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Recipe:
    """The recipe of a run that is done, which several tests copy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recipe = two_epochs(register_tiny(monkeypatch), tmp_path_factory.mktemp("trained"))
        train(recipe)
    return recipe


@pytest.fixture
def finished(recipe, trained) -> Recipe:
    """The recipe of a run of one's own that is done."""
    shutil.copytree(trained.run_dir, recipe.run_dir)
    return recipe
