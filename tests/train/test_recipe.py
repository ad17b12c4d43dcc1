"""Recipes: every one in the tree loads, mistakes are refused before work starts."""

import ast
import dataclasses
import json

import pytest

from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.registry import lookup
from kzoo.train import Recipe
from kzoo.train.recipe import list_recipes, load_recipe, recipe_dir

GOOD = dict(name="x", model="resnet18", dataset="digits")


def test_recipes_exist():
    assert {"quickstart", "fashion_mnist_resnet20", "cifar10_resnet20", "cifar10_resnet20_cbam"} <= set(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_is_named_after_its_file_and_documents_its_command(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    lookup(recipe.model)
    json.dumps(recipe.to_json())
    docstring = ast.get_docstring(ast.parse((recipe_dir() / f"{name}.py").read_text()))
    assert f"python recipes/{name}.py" in docstring


def test_unknown_recipe_suggests():
    with pytest.raises(UnknownNameError, match="did you mean 'quickstart'"):
        load_recipe("quickstar")


def test_recipe_file_by_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from kzoo.train import Recipe\nRECIPE = Recipe(name='m', model='resnet18', dataset='digits')\n")
    assert load_recipe(str(path)).name == "m"
    path.write_text("x = 1\n")
    with pytest.raises(InvalidValueError, match="must define RECIPE"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("weight_decay", float("inf")),
        ("validation_fraction", 1.0),
        ("label_smoothing", 1.0),
        ("image_size", 0),
        ("seed", -1),
        ("augmentation", ("flop",)),
        ("export", ("int9",)),
    ],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(InvalidValueError, match=field):
        Recipe(**GOOD, **{field: value})


def test_smoke_runs_leave_the_real_run_alone():
    recipe = Recipe(**GOOD)
    assert dataclasses.replace(recipe, smoke=True).run_dir != recipe.run_dir
