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
def drawn_recipe(tiny_model, tmp_path) -> Recipe:
    """Two epochs of `tiny`, whose pictures are drawn."""
    return two_epochs(tiny_model, tmp_path)


@pytest.fixture
def recipe(drawn_recipe, hasty) -> Recipe:
    """Two epochs of `tiny`, whose pictures are empty files."""
    return drawn_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Recipe:
    """The recipe of a run that is done, which several tests copy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recipe = two_epochs(register_tiny(monkeypatch), tmp_path_factory.mktemp("trained"))
        train(recipe)
    return recipe


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Recipe:
    """The recipe of a run of one epoch and one file, with a way of its own from pictures to pixels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recipe = two_epochs(register_tiny(monkeypatch), tmp_path_factory.mktemp("exported"))
        recipe = recipe.replace(epochs=1, export=("float32",), resize="pad", interpolation="bicubic")
        train(recipe)
    return recipe


@pytest.fixture
def finished(recipe, trained) -> Recipe:
    """The recipe of a run of one's own that is done."""
    shutil.copytree(trained.run_dir, recipe.run_dir)
    return recipe
