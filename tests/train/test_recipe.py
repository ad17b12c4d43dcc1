"""Recipes: every one in the tree loads, mistakes are refused before work starts."""

import ast
import dataclasses
import json
import re

import pytest
from helpers import make_recipe

from kzoo.cli import main
from kzoo.console import parse
from kzoo.errors import InvalidValueError, UnknownNameError, UnknownOptionError
from kzoo.recipe import (
    KINDS,
    Optimizer,
    check_flags,
    flag_types,
    flags_of,
    list_recipes,
    load_recipe,
    recipe_beside,
    recipe_dir,
    stored_flags,
)
from kzoo.registry import lookup
from kzoo.train import Recipe, Segment
from kzoo.train.cli import for_model

GOOD = dict(name="x", model="resnet18", dataset="digits")
MASKS = dict(name="x", model="unet", dataset="scenes")


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
    path.write_text(
        "from kzoo.train import Data, Recipe\nRECIPE = Recipe(name='m', model='resnet18', data=Data('digits'))\n"
    )
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
        ("from kzoo.train import Schedule\nSchedule(epochs=0)", "line 2: epochs=0 must be at least 1"),
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
        ("test_fraction", 0.0),
        ("group_by", "("),
        ("label_smoothing", 1.0),
        ("image_size", 0),
        ("seed", -1),
        ("augmentation", ("flop",)),
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.5, 0.4)),
        ("rand_number", 0),
        ("rand_magnitude", 31),
        ("mixup", 0.0),
        ("cutmix", -1.0),
        ("loss", "hinge"),
        ("class_weights", "log"),
        ("export", ("int9",)),
    ],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(InvalidValueError, match=field):
        make_recipe(**GOOD, **{field: value})


def test_smoke_runs_leave_the_real_run_alone():
    recipe = make_recipe(**GOOD)
    assert recipe.replace(smoke=True).run_dir != recipe.run_dir


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "adam"),
        ("image_size", (16, 0)),
        ("resize", "cut"),
        ("crop_size", 0),
        ("dice_weight", -1.0),
        ("test_fraction", 0.0),
        ("class_weights", "rare"),
        ("mixup", 0.2),
        ("cutmix", 1.0),
    ],
)
def test_impossible_values_of_segmentation_are_refused_by_name(field, value):
    with pytest.raises(InvalidValueError, match=field):
        make_recipe(**MASKS, **{field: value})


def test_fields_of_segmentation_are_flags_and_options_of_the_model_are_not(capsys):
    flags = "--image-size 176 240 --crop-size 96 --void 11 255 --class-names sky road --freeze-backbone"
    recipe = parse(Recipe, flags.split(), "x", default=make_recipe(**MASKS))
    assert (recipe.data.shape, recipe.crop_shape) == ((176, 240), (96, 96))
    assert (recipe.task.void, recipe.task.class_names, recipe.freeze_backbone) == ((11, 255), ("sky", "road"), True)
    assert parse(Recipe, ["--image-size", "64"], "x", default=make_recipe(**MASKS)).data.shape == (64, 64)
    with pytest.raises(SystemExit):
        parse(Recipe, ["--help"], "x", default=make_recipe(**MASKS))
    assert "model-options" not in capsys.readouterr().out


@pytest.mark.quick
def test_json_of_a_recipe_is_what_a_file_gives_back():
    recipe = make_recipe(**GOOD, model_options=dict(backbone_options=dict(widths=(8, 16))))
    assert json.loads(json.dumps(recipe.to_json())) == recipe.to_json()
    assert recipe.to_json()["model_options"] == {"backbone_options": {"widths": [8, 16]}}


def test_report_beside_a_file_says_how_its_data_are_read(tmp_path, monkeypatch):
    recipe = make_recipe(
        name="x", model="unet", dataset="scenes", void=(11,), mask_values=(0, 255), seed=3, group_by="p."
    )
    assert recipe_beside(tmp_path / "model.keras", "scenes") == {}
    (tmp_path / "report.json").write_text(json.dumps({"recipe": recipe.to_json()}))
    found = recipe_beside(tmp_path / "model.keras", "scenes")
    assert (found["void"], found["mask_values"], found["class_names"], found["seed"]) == ((11,), (0, 255), (), 3)
    assert found["group_by"] == "p."
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes").mkdir()
    for spelled in (str(tmp_path / "scenes"), "./scenes", "scenes/"):
        assert recipe_beside(tmp_path / "model.keras", spelled) == found
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
    recipe = make_recipe(**MASKS).flags() | change
    (tmp_path / "report.json").write_text(json.dumps({"recipe": recipe}))
    with pytest.raises(InvalidValueError, match=message):
        recipe_beside(tmp_path / "model.keras", "scenes")


@pytest.mark.parametrize("name", list_recipes())
def test_fields_of_every_recipe_are_of_their_types(name):
    check_flags(json.loads(json.dumps(load_recipe(name).flags())), name)


def test_every_setting_has_a_flag_of_its_own():
    flags = [flag for part, (kind, *_) in KINDS.items() for flag in flags_of(part, kind)]
    flags += [field.name for field in dataclasses.fields(Recipe) if field.name not in KINDS]
    assert len(set(flags)) == len(flags)
    each = (load_recipe(name).flags() for name in ("camvid_fpn", "quickstart", "bccd_fcos"))
    assert set().union(*each) == set(flag_types())


@pytest.mark.parametrize("name", ["camvid_fpn", "quickstart", "bccd_fcos"])
def test_flags_of_the_command_line_are_those_of_reports(name, capsys):
    with pytest.raises(SystemExit):
        parse(Recipe, ["--help"], "x", default=load_recipe(name))
    shown = set(re.findall(r"--([a-z][\w-]+)", capsys.readouterr().out))
    wanted = {flag.replace("_", "-") for flag in load_recipe(name).flags() if flag != "model_options"}
    assert {flag for flag in shown if not flag.startswith("no-")} == wanted | {"help"}


@pytest.mark.parametrize("report", sorted(recipe_dir().parent.glob("saved_models/*/report.json")), ids=str)
def test_a_report_without_parts_says_the_same(report):
    stored = json.loads(report.read_text()).get("recipe", {})
    if stored.get("name") not in list_recipes():
        pytest.skip(f"{report} is of no recipe")
    now, told = load_recipe(stored["name"]).flags(), stored_flags(stored)
    check_flags(told, str(report))
    assert told["dataset"] == now["dataset"]
    free = {"weights", "epochs", "data_dir", "output_dir", "export", "augmentation", "warmup_epochs", "learning_rate"}
    assert {flag for flag in now.keys() & told.keys() if now[flag] != told[flag]} <= free


def test_settings_are_replaced_in_their_parts():
    recipe = load_recipe("camvid_fpn").replace(epochs=3, optimizer="sgd", void=(1,), augmentation=("flip",), seed=4)
    assert (recipe.schedule.epochs, recipe.optimizer.name, recipe.task.void) == (3, "sgd", (1,))
    assert (recipe.augment.changes, recipe.seed, recipe.schedule.batch_size) == (("flip",), 4, 4)
    whole = recipe.replace(optimizer=Optimizer("adamw", learning_rate=0.5), weight_decay=0.25)
    assert whole.optimizer == Optimizer("adamw", learning_rate=0.5, weight_decay=0.25)
    other = load_recipe("quickstart").replace(model="unet", void=(1,))
    assert other.task == Segment(void=(1,))
    with pytest.raises(UnknownOptionError, match=r"no 'epoch'; it has .*; did you mean 'epochs'"):
        recipe.replace(epoch=3)


def test_the_model_of_the_command_line_decides_its_other_flags():
    recipe = for_model(load_recipe("quickstart"), ["--epochs", "3", "--model=unet", "--void", "1"])
    assert recipe.task == Segment()
    assert for_model(recipe, ["--epochs", "3"]) is recipe


@pytest.mark.parametrize(
    ("old", "say"),
    [
        ("dataset='digits'", r"say data=Data\(dataset=\.\.\.\)"),
        ("augmentation=('flip',)", r"say augment=Augment\(changes=\.\.\.\)"),
        ("void=(1,)", r"say task=Segment\(void=\.\.\.\)"),
        ("data=Data('digits'), optimizer='adamw'", r"optimizer='adamw' must be Optimizer\(\.\.\.\)"),
    ],
)
def test_a_recipe_file_without_parts_is_told_where_its_settings_are(old, say, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"from kzoo.train import Data, Recipe\nRECIPE = Recipe(name='m', model='resnet18', {old})\n")
    with pytest.raises(InvalidValueError, match=f"line 2: .*{say}"):
        load_recipe(str(path))
