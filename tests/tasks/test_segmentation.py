"""Segmentation in the recipe engine: a run from folder to report, and what is particular to it."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from helpers import make_recipe
from PIL import Image

from kzoo.cli import main
from kzoo.data.split import VOID, IndexedSplit
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, OutputError, UnknownOptionError
from kzoo.recipe import load_recipe
from kzoo.tasks.segmentation import Segmentation
from kzoo.train import Data, Recipe, Segment, callbacks, loop, train
from kzoo.train.history import best_epoch, read_history
from kzoo.train.loop import compiled_model
from kzoo.train.run_directory import HISTORY, checkpoints_of

SIZE = (16, 24)
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)])


def write_scene(folder, number, size=SIZE):
    """Blocks of three classes in their colours with noise; a band of void, which has the colour of the first."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 3, (size[0] // 4, size[1] // 4))
    mask = np.kron(blocks, np.ones((4, 4), int)).astype("uint8")
    void = np.zeros(size, bool)
    void[: size[0] // 4] = True
    image = COLOURS[np.where(void, 0, mask)] + rng.integers(-30, 31, (*size, 3))
    mask[void] = 9
    for kind, picture in (("images", image.astype("uint8")), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / kind / f"{number:03}.png")


@pytest.fixture
def scenes(tmp_path):
    """`scenes`: 8 images to train on, 4 to validate on, 5 to test on."""
    root = tmp_path / "scenes"
    for part, numbers in (("train", range(8)), ("val", range(10, 14)), ("test", range(20, 25))):
        for number in numbers:
            write_scene(root / part, number)
    (root / "classes.txt").write_text("red\ngreen\nblue\n")
    return root


@pytest.fixture
def recipe(scenes, tmp_path):
    """Two epochs of a U-Net with two levels."""
    return make_recipe(
        name="test",
        model="unet_padded",
        model_options=dict(widths=(4, 8)),
        dataset=str(scenes),
        void=(9,),
        epochs=2,
        batch_size=4,
        optimizer="adamw",
        learning_rate=0.02,
        warmup_epochs=0,
        output_dir=tmp_path / "run",
    )


def history(recipe):
    with (recipe.run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_masks(recipe):
    """(n, height, width) as the files hold them."""
    folder = recipe.run_dir.parent / "scenes" / "test"
    images, masks = (
        np.stack([np.asarray(Image.open(path)) for path in sorted((folder / kind).iterdir())])
        for kind in ("images", "masks")
    )
    return images, masks


test_masks.__test__ = False


def iou_by_hand(masks, predicted):
    """IoU of each class, void left out."""
    counted = masks != 9
    return [
        ((masks == index) & (predicted == index)).sum() / (((masks == index) | (predicted == index)) & counted).sum()
        for index in range(3)
    ]


def test_whole_run(recipe, capsys):
    recipe = recipe.replace(
        epochs=8,
        augmentation=("flip", "translate"),
        dice_weight=0.5,
        class_weights="median_frequency",
        export=("float32", "int8"),
    )
    report = train(recipe)
    directory = recipe.run_dir
    assert json.loads((directory / "report.json").read_text()) == json.loads(json.dumps(report))
    measured = report["models"]
    assert measured["keras"]["mean_iou"] > 0.6, "colours are learnt; a third of the pixels by chance is 0.2"

    images, masks = test_masks(recipe)
    model = keras.saving.load_model(directory / "model.keras")
    probabilities = model.predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    for name, outputs in (
        ("keras", probabilities),
        ("int8", LiteRTModel(directory / "model_int8.tflite").predict(images)),
    ):
        row, predicted = measured[name], outputs.argmax(-1)
        expected = iou_by_hand(masks, predicted)
        assert row["mean_iou"] == pytest.approx(np.mean(expected), abs=1e-9)
        assert list(row["iou_by_class"]) == ["red", "green", "blue"]
        assert list(row["iou_by_class"].values()) == pytest.approx(expected, abs=1e-9)
        assert row["accuracy"] == pytest.approx((predicted == masks)[masks != 9].mean(), abs=1e-9)
        assert row["max_difference"] == pytest.approx(np.abs(outputs - probabilities).max(), abs=1e-6)
    assert measured["folded"]["max_difference"] < 1e-5

    rows = history(recipe)
    best = max(rows, key=lambda row: float(row["val_mean_iou"]))
    assert report["best_epoch"] == int(best["epoch"]) + 1
    card = (directory / "README.md").read_text()
    assert f"{measured['int8']['iou_by_class']['green']:.3f}" in card
    assert f"{measured['keras']['mean_iou']:.4f}" in card
    assert card.count(f"# RGB pixels of 0 to 255, (n, {masks.shape[1]}, {masks.shape[2]}, 3)\n") == 2
    assert card.count(f"# of each pixel, (n, {masks.shape[1]}, {masks.shape[2]})\n") == 2
    for epoch in range(1, 9):
        assert (directory / "sheets" / f"epoch_{epoch:04}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("curves.png", "predictions.png"):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")
    assert not list(directory.rglob("*.partial*"))

    capsys.readouterr()
    for name in ("keras", "int8"):
        main(["evaluate", str(directory / measured[name]["file"]), "--dataset", recipe.data.dataset])
        text = capsys.readouterr().out
        assert f"{measured[name]['mean_iou']:.4f}" in text
        assert f"{measured[name]['iou_by_class']['blue']:.3f}" in text
    flipped = (probabilities + model.predict(images[:, :, ::-1].astype("float32"), verbose=0)[:, :, ::-1]) / 2
    main(["evaluate", str(directory / "model.keras"), "--dataset", recipe.data.dataset, "--flip"])
    assert f"{np.mean(iou_by_hand(masks, flipped.argmax(-1))):.4f}" in capsys.readouterr().out
    main(["evaluate", str(directory / "model.keras"), "--dataset", recipe.data.dataset, "--split", "validation"])
    assert f"{float(best['val_mean_iou']):.4f}" in capsys.readouterr().out, "training counts as evaluation does"


def test_files_away_from_their_report_need_to_be_told(recipe, tmp_path, capsys):
    model = compiled(recipe, Segmentation().load(recipe.data, recipe.task, recipe.seed))
    model.save(tmp_path / "alone.keras")
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "alone.keras"), "--dataset", recipe.data.dataset])
    assert "value 9, which is no class" in capsys.readouterr().err
    main(["evaluate", str(tmp_path / "alone.keras"), "--dataset", recipe.data.dataset, "--void", "9"])
    assert "mean IoU" in capsys.readouterr().out
    lite = tmp_path / "alone.tflite"
    main(["export", str(tmp_path / "alone.keras"), str(lite), "--precision", "int8", "--dataset", recipe.data.dataset])
    assert LiteRTModel(lite).output["shape"].tolist() == [1, *SIZE, 3]


def compiled(recipe, data):
    return compiled_model(recipe, Segmentation(), data, steps=2)


def test_best_epoch_is_that_of_the_best_mean_iou(recipe, monkeypatch):
    original = callbacks.EpochSeconds.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        original(self, epoch, logs)
        logs["val_mean_iou"] = (0.9, 0.1)[epoch]

    monkeypatch.setattr(callbacks.EpochSeconds, "on_epoch_end", on_epoch_end)
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    train(recipe)
    assert best_epoch(read_history(recipe.run_dir / HISTORY, 2, Segmentation.monitor), Segmentation.monitor) == 1
    assert checkpoints_of(recipe.run_dir).epochs("best") == [1]


def test_interrupted_run_goes_on_with_its_loss_and_options(recipe, monkeypatch, capsys):
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    recipe = recipe.replace(dice_weight=0.3, class_weights="log", label_smoothing=0.1)
    original = callbacks.Checkpoint.on_epoch_end

    def stop(self, epoch, logs=None):
        original(self, epoch, logs)
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.Checkpoint, "on_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    monkeypatch.setattr(callbacks.Checkpoint, "on_epoch_end", original)
    with pytest.raises(OutputError, match=r"model_options \{'widths': \[4, 8\]\} -> \{'widths': \[4, 9\]\}"):
        train(recipe.replace(model_options=dict(widths=(4, 9))))
    train(recipe)
    assert "resuming after 1 of 2 epochs" in capsys.readouterr().out
    assert [row["epoch"] for row in history(recipe)] == ["0", "1"]
    last = keras.saving.load_model(checkpoints_of(recipe.run_dir).path(2))
    assert int(last.optimizer.iterations) == 4


@pytest.mark.slow
def test_crops_under_xla_in_bfloat16(recipe):
    recipe = recipe.replace(
        epochs=1,
        crop_size=(8, 12),
        jit_compile="true",
        precision="mixed_bfloat16",
        dice_weight=1.0,
        class_weights="log",
    )
    train(recipe)
    assert 0 < float(history(recipe)[0]["val_mean_iou"]) < 1
    final = keras.saving.load_model(recipe.run_dir / "model.keras")
    assert final.input_shape == (None, *SIZE, 3)
    assert {layer.compute_dtype for layer in final.layers} == {"float32"}


@pytest.mark.usefixtures("hasty")
def test_unpadded_network_is_judged_where_it_predicts(recipe, scenes):
    for folder in ("train", "val", "test"):
        for path in (scenes / folder / "images").iterdir():
            write_scene(scenes / folder, int(path.stem), (44, 44))
    recipe = recipe.replace(model="unet", epochs=1)
    report = train(recipe)
    images, masks = test_masks(recipe)
    model = keras.saving.load_model(recipe.run_dir / "model.keras")
    predicted = model.predict(images.astype("float32"), verbose=0).argmax(-1)
    border = (44 - predicted.shape[1]) // 2
    assert border > 0
    expected = iou_by_hand(masks[:, border:-border, border:-border], predicted)
    assert report["models"]["keras"]["mean_iou"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_random_crops_train_and_whole_images_validate(recipe):
    recipe = recipe.replace(crop_size=(8, 12), epochs=1)
    task = Segmentation()
    data = task.load(recipe.data, recipe.task, recipe.seed)
    numbered = np.arange(16 * 24).reshape(16, 24)
    image = np.stack([numbered // 256, numbered % 256, np.zeros_like(numbered)], -1).astype("uint8")
    split = IndexedSplit.of_arrays(
        {"image": np.stack([image] * 8), "mask": np.stack([(numbered % 251).astype("uint8")] * 8)}
    )
    images, masks = next(iter(task.training(recipe, dataclasses.replace(data, train=split), 0)))
    assert images.shape == (4, 8, 12, 3)
    places = images[..., 0] * 256 + images[..., 1]
    np.testing.assert_array_equal(masks, places.numpy() % 251)
    assert len(set(places[:, 0, 0].numpy())) > 1
    assert next(iter(task.validation(recipe, data)))[0].shape == (4, *SIZE, 3)


def test_frozen_backbone_keeps_its_weights_and_statistics(recipe):
    recipe = recipe.replace(
        model="unet",
        backbone="resnet18",
        model_options=dict(backbone_options=dict(widths=(4, 4, 4, 4)), decoder_widths=(4, 4, 4, 4, 4)),
        image_size=(32, 48),
        freeze_backbone=True,
    )
    task = Segmentation()
    data = task.load(recipe.data, recipe.task, recipe.seed)
    model = compiled(recipe, data)
    before = [weight.numpy() for weight in model.weights]
    model.run_eagerly = True  # one step
    model.train_on_batch(*next(iter(task.training(recipe, data, 0))))
    pairs = zip(model.weights, before, strict=True)
    changed = {weight.path for weight, old in pairs if not np.array_equal(weight.numpy(), old)}
    assert {path.split("_")[0] for path in changed} == {"unet", "head"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(dice_weight=1.0), "a recipe of this task has no 'dice_weight'; it has .*label_smoothing"),
        (dict(task=Segment(void=(3,))), r"task=Segment\(.*: cifar_resnet20 is for classification; give task=Classify"),
        (dict(task=3), r"task=3 must be Classify\(\.\.\.\) or Segment"),
        (dict(backbone="resnet18"), "backbone: for models on a backbone, and cifar_resnet20 has none"),
        (dict(backbone_weights="imagenet"), "backbone_weights: for models on a backbone"),
        (dict(freeze_backbone=True), "freeze_backbone would keep random weights"),
    ],
)
def test_a_classifier_refuses_options_of_segmentation(change, message, tmp_path):
    recipe = Recipe(name="x", model="cifar_resnet20", data=Data("digits"), output_dir=tmp_path / "run")
    make = dataclasses.replace if "task" in change else Recipe.replace
    with pytest.raises((InvalidValueError, UnknownOptionError), match=message):
        train(make(recipe, **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(crop_size=64), "crop_size is larger than the images: 64×64 and the images of 16×24; take a smaller one"),
        (
            dict(model="unet", model_options=dict(widths=(4, 8, 8)), image_size=(46, 62), crop_size=44),
            "does not take both the crops of 44×44 and the images of 46×62: .*does not fit",
        ),
        (
            dict(model_options=dict(widths=(4, 8), decoder_attention="window"), crop_size=8),
            "does not take both the crops .*; or leave crop_size out",
        ),
        (dict(freeze_backbone=True), "freeze_backbone would keep random weights"),
    ],
)
def test_what_would_fail_later_is_refused_before_the_first_epoch(change, message, recipe):
    with pytest.raises(InvalidValueError, match=message):
        train(recipe.replace(**change))
    assert not recipe.run_dir.exists()


def test_bad_data_is_refused_before_anything_is_written(recipe, scenes):
    (scenes / "test" / "masks" / "021.png").unlink()
    with pytest.raises(ValueError, match=r"images/021\.png has no mask"):
        train(recipe)
    assert not recipe.run_dir.exists()


@pytest.mark.slow
def test_pets_recipe_on_a_set_of_its_form(tmp_path):
    """The path of `pets_unet` on 12 drawn pets, stored as TFDS stores the real ones."""

    def examples(count):
        def generate():
            for number in range(count):
                rows, columns = np.indices((40 + number, 50))
                distance = np.hypot(rows - 20, columns - 25)
                mask = np.select([distance < 10, distance < 13], [1, 3], 2)
                image = np.where(mask[..., None] == 1, 220, 40) + np.zeros(3, int)
                yield {
                    "image": image.astype("uint8"),
                    "segmentation_mask": mask[..., None].astype("uint8"),
                    "label": number % 37,
                    "species": number % 2,
                    "file_name": f"{number}.jpg",
                    "head_bbox": np.array([0.1, 0.1, 0.5, 0.5], "float32"),
                }

        signature = {
            "image": tf.TensorSpec((None, None, 3), tf.uint8),
            "segmentation_mask": tf.TensorSpec((None, None, 1), tf.uint8),
            "label": tf.TensorSpec((), tf.int64),
            "species": tf.TensorSpec((), tf.int64),
            "file_name": tf.TensorSpec((), tf.string),
            "head_bbox": tf.TensorSpec((4,), tf.float32),
        }
        return tf.data.Dataset.from_generator(generate, output_signature=signature)

    real = tfds.builder("oxford_iiit_pet", data_dir=str(tmp_path))
    tfds.dataset_builders.store_as_tfds_dataset(
        name="oxford_iiit_pet",
        version=str(real.version),
        data_dir=tmp_path,
        features=real.info.features,
        split_datasets={"train": examples(12), "test": examples(5)},
    )
    recipe = load_recipe("pets_unet").replace(
        data_dir=str(tmp_path),
        image_size=32,
        model_options=dict(backbone_options=dict(widths=(4, 4, 4, 4)), decoder_widths=(4, 4, 4, 4, 4)),
        export=(),
        epochs=1,
        smoke=True,
        output_dir=tmp_path / "run",
    )
    report = train(recipe)
    assert report["dataset"]["classes"] == ["pet", "background", "outline"]
    assert (report["dataset"]["train"], report["dataset"]["test"]) == (11, 5)
    assert None not in report["models"]["keras"]["iou_by_class"].values()
    assert VOID not in Segmentation().load(recipe.data, recipe.task, recipe.seed).train.arrays()["mask"]
