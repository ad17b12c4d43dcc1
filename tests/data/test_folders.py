"""Class folders: every picture of every format counted once, drawn by class, and read as everywhere else."""

import json
import logging
import shutil

import keras
import numpy as np
import pytest
from images.pictures import ORIENTATION, noise, picture, saved
from PIL import Image

from kzoo.cli import main
from kzoo.data.datasets import load_dataset
from kzoo.data.split import draw
from kzoo.errors import DatasetError
from kzoo.images import Pixels
from kzoo.meaning import with_classes
from kzoo.recipe import Data
from kzoo.tasks.classification import Classification


def write(folder, names):
    """A small picture of its own for each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(path)).save(path, format={".jfif": "JPEG", ".tif": "TIFF"}.get(path.suffix))


@pytest.fixture
def folder(tmp_path):
    """Two classes of 12 and 4 training and 6 test pictures each, in several formats."""
    endings = ("png", "webp", "jfif", "tif")
    for part, cats, dogs in (("train", 12, 4), ("test", 6, 6)):
        for name, count in (("cat", cats), ("dog", dogs)):
            write(tmp_path / part / name, [f"{index:02}.{endings[index % 4]}" for index in range(count)])
    return tmp_path


def load(folder, **options):
    return load_dataset(str(folder), image_size=(8, 6), **options)


def test_every_format_is_read_and_the_rest_is_counted_in_one_warning(folder, caplog):
    (folder / "train/cat/notes.txt").write_text("x")
    (folder / "train/raw.heic").write_text("x")
    with caplog.at_level(logging.WARNING, "kzoo"):
        data = load(folder, validation_fraction=0.25)
    assert (data.train.size, data.validation.size, data.test.size) == (12, 4, 12)
    assert caplog.messages == [f"passed over in {folder}: 2 that are no pictures (such as train/cat/notes.txt)"]


def test_hidden_files_and_folders_are_no_classes_and_no_pictures_and_one_warning_counts_them(folder, caplog):
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/._a.png", "cat/._00.png", "cat/.trashed-1.jpg", ".DS_Store"):
        for part in ("train", "test"):
            (folder / part / name).parent.mkdir(exist_ok=True)
            (folder / part / name).write_bytes(b"no picture")
    (folder / "train/dog/Thumbs.db").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "kzoo"):
        data = load(folder, validation_fraction=0.25)
    assert data.classes == ("cat", "dog")
    assert (data.train.size + data.validation.size, data.test.size) == (16, 12)
    assert caplog.messages == [
        f"passed over in {folder}: 11 that are hidden or left by systems (such as test/.DS_Store)"
    ]


def test_a_class_without_pictures_is_one_error(folder):
    shutil.rmtree(folder / "train/dog")
    (folder / "train/dog").mkdir()
    message = r"^.*train has no picture of dog; each class needs a folder in it with PNG, JPEG, .* files$"
    with pytest.raises(DatasetError, match=message):
        load(folder)
    (folder / "train/dog/.hidden.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=message):
        load(folder)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_class_that_another_part_lacks_is_one_warning(folder, part, caplog):
    write(folder, [f"validation/{name}/x.png" for name in ("cat", "dog")])
    shutil.rmtree(folder / part / "dog")
    with caplog.at_level(logging.WARNING, "kzoo"):
        assert load(folder).classes == ("cat", "dog")
    assert caplog.messages == [f"{folder}: no {part} image is of 'dog'"]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_classes_that_train_lacks_are_named(folder, part):
    shutil.copytree(folder / "test", folder / "validation")
    write(folder / part / "bird", ["a.png"])
    write(folder / part / "cow", ["a.png"])
    with pytest.raises(
        DatasetError, match=rf"{part} has pictures of classes that train lacks: bird, cow; train has cat, dog$"
    ):
        load(folder)


def test_a_train_folder_without_classes_is_one_error(tmp_path):
    write(tmp_path / "train", ["a.png"])
    write(tmp_path / "test", ["a.png"])
    with pytest.raises(DatasetError, match="train has no picture of any class"):
        load(tmp_path)


def keys(split):
    return {(int(label), image.tobytes()) for image, label in zip(*split.arrays().values(), strict=True)}


def test_validation_is_drawn_by_class_and_by_the_seed(folder):
    held_out = {}
    for seed in (0, 1, 2, 1):
        data = load(folder, validation_fraction=0.25, seed=seed)
        assert np.bincount(data.validation.arrays()["label"]).tolist() == [3, 1]
        assert np.bincount(data.train.arrays()["label"]).tolist() == [9, 3]
        assert not keys(data.train) & keys(data.validation)
        assert len(keys(data.train) | keys(data.validation)) == 16
        assert held_out.setdefault(seed, keys(data.validation)) == keys(data.validation)
    assert len({frozenset(found) for found in held_out.values()}) > 1


def test_a_class_of_one_picture_is_trained_on(folder):
    write(folder / "train/bird", ["a.png"])
    write(folder / "test/bird", ["a.png"])
    for seed in range(4):
        data = load(folder, validation_fraction=0.5, seed=seed)
        assert np.bincount(data.train.arrays()["label"], minlength=3).min() >= 1
        assert data.train.size + data.validation.size == 17
    for fraction in (0.01, 0.99):
        with pytest.raises(
            DatasetError, match=rf"validation_fraction={fraction} of 17 images leaves nothing to hold out"
        ):
            load(folder, validation_fraction=fraction)


def test_a_few_images_are_drawn_from_all_classes():
    """Each class has its share, rounded up or down; another seed draws others."""
    classes = np.repeat([0, 1, 2, 3], [50, 30, 15, 5])
    for seed in range(20):
        chosen = draw(classes, 20, seed)
        assert len(set(chosen.tolist())) == 20
        assert np.bincount(classes[chosen], minlength=4).tolist() == [10, 6, 3, 1]
        few = draw(classes, 7, seed)
        shares = 7 * np.array([50, 30, 15, 5]) / 100
        assert (np.abs(np.bincount(classes[few], minlength=4) - shares) < 1).all()
    assert draw(classes, 20, 0).tolist() == draw(classes, 20, 0).tolist()
    assert draw(classes, 20, 0).tolist() != draw(classes, 20, 1).tolist()
    assert draw(classes, 100, 0).tolist() == list(range(100))


def test_what_smoke_runs_calibration_and_evaluation_take_is_spread_over_the_classes(folder):
    data = load(folder, validation_fraction=0.25)
    images, labels = data.test.arrays(4).values()
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
    assert data.test.take(4).size == 4
    np.testing.assert_array_equal(data.test.take(4).arrays()["image"], images)
    assert sorted(data.train.take(4).arrays()["label"].tolist()) == [0, 0, 0, 1]
    digits = load_dataset("digits", image_size=8)
    assert np.bincount(digits.test.arrays(10)["label"], minlength=10).max() <= 2
    assert digits.test.take(1000).size == 360


@pytest.mark.parametrize(
    "pixels", [Pixels("stretch"), Pixels("crop", 0.8), Pixels("pad", interpolation="bicubic")], ids=lambda p: p.resize
)
def test_training_evaluation_calibration_and_prediction_see_the_same_pixels(tmp_path, pixels):
    """Portrait, landscape, turned, transparent, grey and printed pictures, to the last bit."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for part in ("train", "validation", "test"):
        for name in ("a", "b"):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            saved(place / "landscape.jpg", noise(20, 50))
            saved(place / "portrait.png", noise(50, 20))
            saved(place / "turned.jpg", noise(20, 30), exif=exif)
            saved(place / "clear.webp", noise(33, 31, 4))
            saved(place / "grey.bmp", noise(9, 40, 1))
            Image.fromarray(noise(25, 16)).convert("CMYK").save(place / "print.tif")
            Image.fromarray(noise(25, 16)).quantize(16).save(place / "palette.gif", interlace=True)
    shape = (16, 24, 3)
    predicted = {pixels.read(path, shape).tobytes() for path in (tmp_path / "train").rglob("*.*")}
    assert len(predicted) == 7
    data = load_dataset(str(tmp_path), image_size=shape[:2], pixels=pixels)
    for split in (data.train, data.validation, data.test):
        images, labels = split.arrays().values()
        assert {image.tobytes() for image in images} == predicted
        assert np.bincount(labels).tolist() == [7, 7]
    calibration = Classification().images(Data(str(tmp_path), image_size=shape[:2], **pixels.to_json()), 14)
    assert {image.tobytes() for image in calibration} == predicted


@pytest.fixture
def red_ends(tmp_path):
    """40 test pictures of 160×40 whose class is which end holds a red box, and a model that compares the ends."""
    for part, count in (("train", 10), ("test", 20)):
        for label, name in enumerate(("left", "right")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((40, 160, 3), 40 + number, "uint8")
                pixels[10:30, 130 * label : 130 * label + 30] = (250, 0, 0)
                saved(tmp_path / part / name / f"{number}.png", pixels)
    weights = np.zeros((32, 32, 3, 2), "float32")
    weights[:, :16, 0, 0] = weights[:, 16:, 0, 1] = 1e-3
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    model.set_weights([weights.reshape(-1, 2), np.zeros(2)])
    (tmp_path / "run").mkdir()
    model.save(tmp_path / "run/model.keras")
    return tmp_path


def answers(capsys, root, *options):
    """Right answers of 40 by `kzoo evaluate` and by `kzoo predict`."""
    model = str(root / "run/model.keras")
    main(["evaluate", model, "--dataset", str(root), *options])
    evaluated = round(40 * float(capsys.readouterr().out.split("%")[0].split()[-1]) / 100)
    main(["predict", model, str(root / "test"), "--json", *options])
    told = json.loads(capsys.readouterr().out)
    predicted = sum(
        ("/left/" in entry["image"]) == (entry["predictions"][0]["index"] == 0)
        and entry["predictions"][0]["probability"] > 0.51
        for entry in told
    )
    return evaluated, predicted


def test_evaluate_and_predict_give_the_same_answers(red_ends, capsys):
    report = red_ends / "run/report.json"
    told = {"recipe": {}, "dataset": {"classes": ["left", "right"]}}
    report.write_text(json.dumps(told | {"pixels": Pixels("stretch").to_json()}))
    assert answers(capsys, red_ends) == (40, 40)
    report.write_text(json.dumps(told | {"pixels": Pixels("pad").to_json()}))
    assert answers(capsys, red_ends) == (40, 40)
    evaluated, predicted = answers(capsys, red_ends, "--resize", "crop")  # which leaves both ends out
    assert (evaluated, predicted) == (20, 0)
    report.write_text(json.dumps(told))  # of an older run, which stretched
    assert answers(capsys, red_ends) == (40, 40)


def test_all_of_a_folder_is_judged_without_being_divided(folder, tmp_path_factory, capsys):
    """A folder of one class, or of two pictures, which cannot be divided to train on."""
    image, place = keras.Input((8, 8, 3)), tmp_path_factory.mktemp("few")
    model = keras.Model(image, keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(image)))
    with_classes(model, ["a", "b", "c"]).save(place / "m.keras")
    write(place / "few", ["b/1.png", "b/2.png", "b/3.png"])
    command = ["evaluate", str(place / "m.keras"), "--dataset", str(place / "few"), "--split", "all", "--json"]
    main(command)
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["of"]) == (3, 3)
    assert told["classes"]["b"]["support_by_class"] == 3
    data = load(folder, divided=False)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {file.path for file in data.train.files} == names
    assert (data.validation.size, data.test.size, data.all.size) == (0, 0, len(names))
    assert data.all.arrays()["image"].shape[0] == len(names)
