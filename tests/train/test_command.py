"""The command that a card names leads to the recipe that it tells of."""

import shlex

import pytest

from kzoo.console import parse
from kzoo.recipe import load_recipe
from kzoo.train import Recipe
from kzoo.train.command import command_of


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("quickstart", {}),
        ("quickstart", dict(seed=3, smoke=True)),
        ("quickstart", dict(augmentation=("flip", "erase"), image_size=(24, 20), learning_rate=1e-5, export=())),
        ("quickstart", dict(optimizer="adamw", label_smoothing=0.1, weights="a b.keras", jit_compile="true")),
        ("camvid_fpn", dict(crop_size=None, class_weights=None, void=(1, 2), class_names=("a b", "c"))),
    ],
)
def test_the_command_of_a_named_recipe_makes_it_again(base, changes):
    recipe = load_recipe(base).replace(**changes)
    _, _, name, *flags = shlex.split(command_of(recipe))
    again = parse(Recipe, flags, "kzoo train", default=load_recipe(name))
    assert again == recipe


def test_places_are_no_part_of_the_command(tmp_path):
    recipe = load_recipe("quickstart").replace(output_dir=tmp_path, resume=False, data_dir="/private")
    assert command_of(recipe) == "kzoo train quickstart"


def test_a_recipe_that_kzoo_does_not_have_has_no_command():
    recipe = load_recipe("quickstart")
    assert command_of(recipe.replace(name="mine")) is None
    assert command_of(recipe.replace(model_options=dict(depths=(1, 1)))) is None
