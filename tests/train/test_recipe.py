"""Recipes: every one in the tree loads, mistakes are refused before work starts."""

import ast
import dataclasses
import json

import pytest

from kzoo.cli import main
from kzoo.console import parse
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.recipe import check_fields, list_recipes, load_recipe, recipe_beside, recipe_dir
from kzoo.registry import lookup
from kzoo.train import Recipe

GOOD = dict(name="x", model="resnet18", dataset="digits")


def test_recipes_exist():
    segmentation = {"camvid_unet", "camvid_fpn", "camvid_fpn_cbam", "isbi_unet", "pets_unet"}
    classification = {"quickstart", "fashion_mnist_resnet20", "cifar10_resnet20", "cifar10_resnet20_cbam"}
    assert segmentation | classification <= set(list_recipes())


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
    ("content", "message"),
    [
        ("x = 1\nRECIPE = (\n", r"mine\.py, line 2: SyntaxError: '\(' was never closed"),
        ("\n\nimport absent_package\n", "line 3: ModuleNotFoundError: No module named 'absent_package'"),
        ("import sys\nsys.exit('bye')\n", "line 2: SystemExit: bye"),
        ("raise SystemExit", "line 1: SystemExit"),
        ("x = 1\ny = x.z\n", "line 2: AttributeError: 'int' object has no attribute 'z'"),
        ("import json\njson.loads('[')\n", "line 2: JSONDecodeError"),  # the line of the recipe, not of json
        ("def f():\n    f()\nf()\n", "line 2: RecursionError"),
        ("x = '\xe9'", "line 1: SyntaxError: .*utf-8"),
        ("x = 1\0", "mine.py.*null bytes"),
        (
            f"from kzoo.train import Recipe\nRECIPE = Recipe(**{GOOD!r}, epochs=0)",
            "line 2: epochs=0 must be at least 1",
        ),
    ],
)
def test_a_recipe_file_that_cannot_be_run_is_one_line(content, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InvalidValueError, match=message) as caught:
        load_recipe(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_help_says_that_a_recipe_file_is_code(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "A recipe file is Python code and is run" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", (16, 0)),
        ("crop_size", 0),
        ("dice_weight", -1.0),
        ("test_fraction", 0.0),
        ("class_weights", "rare"),
    ],
)
def test_impossible_values_of_segmentation_are_refused_by_name(field, value):
    with pytest.raises(InvalidValueError, match=field):
        Recipe(**GOOD, **{field: value})


def test_fields_of_segmentation_are_flags_and_options_of_the_model_are_not(capsys):
    flags = "--image-size 176 240 --crop-size 96 --void 11 255 --class-names sky road --freeze-backbone"
    recipe = parse(Recipe, flags.split(), "x", default=Recipe(**GOOD))
    assert (recipe.shape, recipe.crop_shape) == ((176, 240), (96, 96))
    assert (recipe.void, recipe.class_names, recipe.freeze_backbone) == ((11, 255), ("sky", "road"), True)
    assert parse(Recipe, ["--image-size", "64"], "x", default=Recipe(**GOOD)).shape == (64, 64)
    with pytest.raises(SystemExit):
        parse(Recipe, ["--help"], "x", default=Recipe(**GOOD))
    assert "model-options" not in capsys.readouterr().out


@pytest.mark.quick
def test_json_of_a_recipe_is_what_a_file_gives_back():
    recipe = Recipe(**GOOD, model_options=dict(backbone_options=dict(widths=(8, 16))), void=(11,))
    assert json.loads(json.dumps(recipe.to_json())) == recipe.to_json()
    assert recipe.to_json()["model_options"] == {"backbone_options": {"widths": [8, 16]}}


def test_report_beside_a_file_says_how_its_data_are_read(tmp_path):
    recipe = Recipe(name="x", model="unet", dataset="scenes", void=(11,), mask_values=(0, 255), seed=3)
    assert recipe_beside(tmp_path / "model.keras", "scenes") == {}
    (tmp_path / "report.json").write_text(json.dumps({"recipe": recipe.to_json()}))
    found = recipe_beside(tmp_path / "model.keras", "scenes")
    assert (found["void"], found["mask_values"], found["class_names"], found["seed"]) == ((11,), (0, 255), (), 3)
    assert recipe_beside(tmp_path / "model.keras", "other") == {}
    (tmp_path / "report.json").write_text("[]")
    assert recipe_beside(tmp_path / "model.keras", "scenes") == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"void": "ab"}, r"report\.json: void='ab' is not accepted; it must be tuple\[int, \.\.\.\]"),
        ({"void": 3}, "void=3"),
        ({"class_names": [1]}, "class_names"),
        ({"seed": 1.5}, "seed=1.5 is not accepted; it must be int"),
        ({"seed": True}, "seed=True"),
        ({"test_fraction": None}, "test_fraction=None is not accepted; it must be float"),
    ],
)
def test_a_report_with_fields_of_another_type_is_one_line(change, message, tmp_path):
    recipe = Recipe(name="x", model="unet", dataset="scenes").to_json() | change
    (tmp_path / "report.json").write_text(json.dumps({"recipe": recipe}))
    with pytest.raises(InvalidValueError, match=message):
        recipe_beside(tmp_path / "model.keras", "scenes")


@pytest.mark.parametrize("name", list_recipes())
def test_fields_of_every_recipe_are_of_their_types(name):
    check_fields(json.loads(json.dumps(load_recipe(name).to_json())), name)
