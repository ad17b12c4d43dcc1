"""`kzoo train MODEL DATA`: what is chosen, why, and what the user's options change; recipes as files."""

import json

import numpy as np
import pytest
from helpers import make_recipe
from PIL import Image

from kzoo.cli import main
from kzoo.commands import train as command
from kzoo.errors import WeightsError
from kzoo.recipe import Data, Recipe, Schedule, Segment, is_recipe, list_recipes, load_recipe, to_python
from kzoo.tasks.classification import Classification
from kzoo.train import loop
from kzoo.train.defaults import _batch_size, choose, choose_size

CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def asked(monkeypatch) -> list[Recipe]:
    """The recipes that would be trained."""
    recipes: list[Recipe] = []
    monkeypatch.setattr(command, "train", lambda recipe: recipes.append(recipe) or {"models": {}})
    monkeypatch.setattr(command, "fetch_weights", lambda recipe: None)
    return recipes


@pytest.fixture
def photos(tmp_path):
    """A folder of 40 pictures of three classes to train on, and some to test on."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 14), ("test", 3)):
        for name in CLASSES:
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 256, (30, 40, 3), "uint8")
                Image.fromarray(picture).save(folder / f"{number}.jpg")
    return tmp_path / "photos"


def rows(told: str) -> dict[str, str]:
    """Setting -> value, of the table of what was chosen."""
    return {line.split("\t")[0]: line.split("\t")[1] for line in told.splitlines() if line.startswith("--")}


def test_settings_are_chosen_for_pictures_and_shown_with_their_reasons(photos, asked, capsys):
    main(["train", "resnet18_se", str(photos)])
    (recipe,) = asked
    told = capsys.readouterr().out
    assert (recipe.model, recipe.data.dataset, recipe.name) == ("resnet18_se", str(photos), "resnet18_se_photos")
    assert (recipe.data.shape, recipe.data.resize) == ((224, 224), "crop")
    assert (recipe.optimizer.name, recipe.optimizer.learning_rate) == ("adamw", 1e-3)
    assert recipe.schedule.batch_size == 4
    assert recipe.export == ("float32", "int8")
    flags = recipe.flags()
    for flag, shown in rows(told).items():
        value = flags[flag[2:].replace("-", "_")]
        assert shown == (" ".join(value) if isinstance(value, list) else str(value))
    assert "resnet18_se is made for it" in told


def test_weights_are_fine_tuned_gently_at_their_own_size(photos, asked):
    main(["train", "resnet50", str(photos), "--weights", "imagenet"])
    main(["train", "resnet50", str(photos)])
    tuned, scratch = asked
    assert tuned.optimizer.learning_rate < scratch.optimizer.learning_rate
    assert tuned.schedule.epochs < scratch.schedule.epochs
    assert tuned.weights == "imagenet"


def test_weights_of_small_images_are_fine_tuned_faster(photos, asked):
    """With the gentle steps of large images, networks of CIFAR's kind end worse than from scratch."""
    main(["train", "resnet18", str(photos), "--weights", "imagenet", "--image-size", "32"])
    main(["train", "resnet18", str(photos), "--weights", "imagenet"])
    small, large = (recipe.optimizer for recipe in asked)
    assert (small.learning_rate, small.layer_decay) == (1e-3, 0.95)
    assert (large.learning_rate, large.layer_decay) == (3e-4, 0.8)


def test_options_go_before_what_is_chosen_and_are_not_shown(photos, asked, capsys):
    options = ["--epochs", "3", "--image-size", "32", "48", "--augmentation", "zoom", "--optimizer", "lamb"]
    main(["train", "resnet18", str(photos), *options, "--learning-rate=0.5", "--no-resume"])
    (recipe,) = asked
    assert (recipe.schedule.epochs, recipe.data.shape, recipe.augment.changes) == (3, (32, 48), ("zoom",))
    assert (recipe.optimizer.name, recipe.optimizer.learning_rate, recipe.resume) == ("lamb", 0.5, False)
    assert not {"--epochs", "--image-size", "--augmentation", "--optimizer", "--learning-rate"} & set(
        rows(capsys.readouterr().out)
    )


def test_digits_are_not_mirrored_and_photos_are(photos):
    digits, images = (Recipe(name="x", model="resnet18", data=Data(name)) for name in ("digits", str(photos)))
    from kzoo.data import load_dataset

    chosen = [
        {choice.flag: choice.value for choice in choose(recipe, load_dataset(recipe.data.dataset, image_size=32))}
        for recipe in (digits, images)
    ]
    assert ["flip" in each["augmentation"] for each in chosen] == [False, True]
    assert choose_size(digits) == []


def test_a_model_for_segmentation_gets_settings_of_its_task(tmp_path, asked):
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "scenes" / kind).mkdir(parents=True)
    for number in range(20):
        picture = rng.integers(0, 256, (16, 24, 3), "uint8")
        Image.fromarray(picture).save(tmp_path / "scenes" / "images" / f"{number}.png")
        Image.fromarray(picture[..., 0] // 128).save(tmp_path / "scenes" / "masks" / f"{number}.png")
    scenes = str(tmp_path / "scenes")
    main(["train", "unet_padded", scenes, "--class-names", "a", "b", "--image-size", "16", "--void", "9"])
    (recipe,) = asked
    assert recipe.task == Segment(class_names=("a", "b"), void=(9,), dice_weight=1.0)
    assert recipe.data.resize == "stretch"


def test_a_recipe_is_written_and_found_with_its_suffix_or_without(photos, asked, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", "resnet18", str(photos), "--seed", "3", "--save-recipe", "mine.py"])
    assert "kzoo train mine.py" in capsys.readouterr().out
    assert asked == []
    for name in ("mine.py", "mine", "./mine", str(tmp_path / "mine")):
        main(["train", name])
    assert is_recipe("mine")
    assert asked[0].seed == 3
    assert all(recipe == asked[0] for recipe in asked)
    before = (tmp_path / "mine.py").read_text()
    for path, message in (("mine.py", "exists"), ("mine.txt", "must end in .py")):
        with pytest.raises(SystemExit):
            main(["train", "resnet18", str(photos), "--save-recipe", path])
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == before


@pytest.mark.parametrize("name", list_recipes())
def test_the_source_of_a_recipe_makes_it_again(name, tmp_path):
    recipe = load_recipe(name).replace(output_dir=tmp_path / 'a "b"', seed=7)
    (tmp_path / "again.py").write_text(to_python(recipe, 'Of """three\\ quotes'))
    again = load_recipe(str(tmp_path / "again.py"))
    assert again.flags() == recipe.flags()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["resnet18"], "resnet18 is a model; say what to train it on: kzoo train resnet18 DATA"),
        (["resnet18x"], "unknown recipe or model 'resnet18x'; did you mean 'resnet18'"),
        (["photos", "resnet18"], "the model comes first, then the pictures: kzoo train resnet18 photos"),
        (["."], ". are pictures; the model comes first: kzoo train MODEL ."),
        (["resnet18", "./nowhere"], "no folder at './nowhere'"),
        (["resnet18", "--json", "nowhere.csv"], "no table at 'nowhere.csv'"),
        (["resnet18", "digits", "--epoch=3"], "unknown option --epoch; did you mean '--epochs'"),
        (["resnet18x", "digits"], "unknown model 'resnet18x'; did you mean 'resnet18'"),
        (
            ["quickstart", "digits"],
            "quickstart is a recipe, which has its data; kzoo train quickstart --dataset digits",
        ),
        (["resnet18", "nowhere"], "unknown dataset 'nowhere'"),
        (["unet", "digits"], "digits have no masks"),
        (["resnet18", "digits", "--void", "3"], "--void"),
        (["resnet18", "digits", "--weights", "imagnet"], "imagnet"),
    ],
)
def test_mistakes_are_one_line_before_any_work(args, message, asked, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *args])
    told = capsys.readouterr()
    assert (stop.value.code, len(told.err.strip().splitlines()), asked) == (2, 1, [])
    assert message in told.err


def test_json_prints_the_report_alone(asked, capsys):
    main(["train", "cifar_resnet20", "digits", "--json", "--smoke"])
    told = capsys.readouterr()
    assert json.loads(told.out) == {"models": {}}
    assert "--learning-rate" in told.err
    assert asked[0].schedule == Schedule(
        epochs=asked[0].schedule.epochs, batch_size=32, patience=asked[0].schedule.patience
    )


def test_weights_that_cannot_be_had_are_told_before_pictures_are_read(photos, monkeypatch, capsys):
    def fetch(source, spec):
        raise WeightsError("no network")

    monkeypatch.setattr(loop, "fetch_source", fetch)
    monkeypatch.setattr(Classification, "load", lambda *_: pytest.fail("pictures were read"))
    for args in (["resnet50", str(photos)], ["quickstart", "--model", "resnet50"]):
        with pytest.raises(SystemExit):
            main(["train", *args, "--weights", "imagenet"])
        assert capsys.readouterr().err.strip().endswith("no network")


@pytest.mark.parametrize(("devices", "expected"), [("auto", 4), (1, 4), (3, 3), (8, 8)])
def test_the_batch_that_is_chosen_is_a_multiple_of_the_devices(devices, expected):
    recipe = make_recipe(name="x", model="cifar_resnet20", dataset="digits", devices=devices)
    assert _batch_size(32, 100, recipe) == expected
