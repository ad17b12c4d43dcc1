"""The command that a card names leads to the recipe that it tells of."""

import shlex

import numpy as np
import pytest
from PIL import Image

from kzoo.cli import main
from kzoo.commands import train as train_command
from kzoo.console import parse
from kzoo.recipe import load_recipe
from kzoo.tasks import task_of
from kzoo.train import Recipe
from kzoo.train.command import command_of
from kzoo.train.defaults import CHOSEN, choose, choose_size

asked: list[Recipe] = []


def load(recipe):
    return task_of(recipe).load(recipe.data, recipe.task, recipe.seed)


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


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("resnet18", ("--weights", "imagenet", "--epochs", "100", "--learning-rate", "0.1", "--seed", "3")),
        ("resnet18", ("--label-smoothing", "0.0", "--image-size", "32", "48", "--mixup", "0.2")),
        ("cifar_resnet20", ()),
        ("unet", ("--dice-weight", "0.0", "--void", "255")),
    ],
)
def test_the_command_of_a_model_and_pictures_makes_its_recipe_again(model, options, tmp_path, monkeypatch):
    """Also where an option is what a recipe has by itself, and another value would be chosen."""
    monkeypatch.setattr(train_command, "train", asked.append)
    monkeypatch.setattr(train_command, "fetch_weights", lambda recipe: None)
    folder, rng = tmp_path / "my photos", np.random.default_rng(0)
    for number in range(40):
        picture = Image.fromarray(rng.integers(0, 3, (32, 32, 3), "uint8"))
        for place in (
            (f"images/{number}.png", f"masks/{number}.png") if model == "unet" else (f"{number % 2}/{number}.png",)
        ):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (picture.convert("L") if "masks" in place else picture).save(folder / place)
    if model == "unet":
        (folder / "classes.txt").write_text("a\nb\nc\n")
    asked.clear()
    main(["train", model, str(folder), *options])
    main(shlex.split(command_of(asked[0]))[1:])
    assert asked[0] == asked[1]
    chosen = {choice.flag for choice in (*choose_size(asked[0]), *choose(asked[0], load(asked[0])))}
    assert chosen <= CHOSEN


def test_places_are_no_part_of_the_command(tmp_path):
    recipe = load_recipe("quickstart").replace(output_dir=tmp_path, resume=False, data_dir="/private")
    assert command_of(recipe) == "kzoo train quickstart"


def test_a_recipe_that_kzoo_does_not_have_has_no_command():
    recipe = load_recipe("quickstart")
    assert command_of(recipe.replace(name="mine")) is None
    assert command_of(recipe.replace(model_options=dict(depths=(1, 1)))) is None
