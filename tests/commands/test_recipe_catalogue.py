"""The catalogue of recipes is what they are; `python -m kzoo.commands.recipe_catalogue` makes it anew."""

import dataclasses
import json

import pytest
from helpers import fails, slow_but

import kzoo
from kzoo.cli import main
from kzoo.commands.recipe_catalogue import SAVED_MODELS, ListedRecipe, list_of, read_recipes
from kzoo.recipe import list_recipes, load_published, load_recipe

NAMES = [recipe.name for recipe in read_recipes()]


def test_every_recipe_is_in_it_with_its_settings():
    assert list_recipes() == NAMES
    for told in read_recipes():
        recipe, published = load_recipe(told.name), load_published(told.name)
        assert (told.model, told.dataset) == (recipe.model, recipe.data.dataset)
        assert (told.epochs, told.batch_size) == (recipe.schedule.epochs, recipe.schedule.batch_size)
        assert (told.published, told.source) == ((published.score, published.source) if published else (None, None))


@pytest.mark.parametrize("name", slow_but(["camvid_fpn", "cifar10_resnet20_cbam", "imagenet_vgg16_bn"], NAMES))
def test_what_it_says_is_of_the_recipe(name):
    assert list_of(name) == next(recipe for recipe in read_recipes() if recipe.name == name)


def test_costs_and_scores_are_those_of_models_and_reports():
    recipes = {recipe.name: recipe for recipe in read_recipes()}
    resnet = recipes["imagenet_resnet50"]
    info = kzoo.describe("resnet50")
    assert resnet.parameters == info.trainable_parameters
    assert resnet.step_gflops == pytest.approx(256 * 3 * 2 * info.macs / 1e9, rel=1e-3)
    # 160 pixels, which the last stages have fewer of than their share
    assert recipes["imagenet_resnet50_a3"].step_gflops / 8 < resnet.step_gflops * (160 / 224) ** 2 * 1.02
    report = json.loads((SAVED_MODELS / "cifar10_resnet20_cbam" / "report.json").read_text())
    cbam = recipes["cifar10_resnet20_cbam"]
    assert (cbam.measured, cbam.measured_epochs) == (report["models"]["keras"]["accuracy"], 12)
    assert cbam.measured_seconds == report["training_seconds"]
    assert load_published("imagenet_swin_tiny").score == recipes["imagenet_swin_tiny"].published
    assert load_published("quickstart") is None
    assert load_recipe("mnist_simple_cnn").schedule.epochs * (54_000 // 50) == pytest.approx(20_000, rel=0.03)


def test_recipes_are_listed_with_what_was_measured_or_published(capsys):
    main(["recipes", "c*10_resnet20*"])
    header, *lines, count = capsys.readouterr().out.splitlines()
    assert header.split("\t")[:2] == ["recipe", "model"]
    assert count == f"{len(lines)} recipes"
    rows = {cells[0]: cells for cells in (line.split("\t") for line in lines)}
    assert rows["cifar10_resnet20"][-2:] == ["62 minutes", "89.71%"]
    assert rows["cifar10_resnet20_cbam"][-2:] == ["42 minutes for 12 epochs", "86.32%"]
    main(["recipes", "imagenet_resnet50"])
    assert "none\t76.13% published: torchvision, " in capsys.readouterr().out
    main(["recipes", "isbi*"])
    assert "mean IoU 77.78%" in capsys.readouterr().out


def test_recipes_as_json(capsys):
    main(["recipes", "imagenet_vgg16_bn", "--json"])
    (recipe,) = json.loads(capsys.readouterr().out)
    assert recipe.keys() == {field.name for field in dataclasses.fields(ListedRecipe)}
    assert (recipe["measured"], recipe["published"]) == (None, 0.7336)


def test_no_such_recipe_is_one_line(capsys):
    assert "no recipe matches 'quickstar'; did you mean 'quickstart'" in fails(capsys, "recipes", "quickstar")


def test_what_a_recipe_publishes_must_be_published(tmp_path):
    path = tmp_path / "mine.py"
    start = "from kzoo.train import Data, Recipe\nRECIPE = Recipe(name='m', model='resnet18', data=Data('digits'))\n"
    path.write_text(f"{start}PUBLISHED = 0.9\n")
    with pytest.raises(kzoo.errors.InvalidValueError, match=r"mine\.py: PUBLISHED must be kzoo.recipe.Published"):
        load_published(str(path))
