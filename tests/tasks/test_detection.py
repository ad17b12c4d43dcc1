"""Detection in the recipe engine: a run from folder to report, and what is particular to it."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from helpers import make_recipe, randomise
from PIL import Image

import kzoo
from kzoo.data.detection_sets import load_boxes
from kzoo.detection import AveragePrecision
from kzoo.detection.coding import decode_outputs
from kzoo.detection.learner import BoxLearner
from kzoo.detection.losses import FCOSLoss, RetinaNetLoss
from kzoo.detection.suppression import Suppression, detect
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import Pixels
from kzoo.models.detector import places_of, raw_outputs
from kzoo.output import Output
from kzoo.recipe import Augment, Data, Detect, Recipe
from kzoo.report.boxes import FoundBoxes
from kzoo.tasks import task_of
from kzoo.tasks.detection import JudgedBoxes
from kzoo.train import train
from kzoo.train.loop import compiled_model
from kzoo.train.run_directory import checkpoints_of

SIZE = (48, 64)
COLOURS = {"cat": (230, 30, 30), "dog": (30, 30, 230)}
TINY = dict(
    backbone_options=dict(widths=(8, 12, 16, 16), depths=(1, 1, 1, 1)),
    channels=16,
    extra_levels=0,
    head_depth=1,
    head_norm=None,
)


def write_boxes(root, split: str, numbers) -> None:
    """YOLO's pictures with labels: one or two squares in the colours of their classes on grey noise."""
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng(number)
        pixels = rng.integers(90, 150, (*SIZE, 3)).astype("uint8")
        lines = []
        for half in range(1 + number % 2):
            kind = int(rng.integers(2))
            side = int(rng.integers(14, 22))
            left, top = 32 * half + int(rng.integers(0, 32 - side)), int(rng.integers(0, SIZE[0] - side))
            pixels[top : top + side, left : left + side] = [*COLOURS.values()][kind]
            centre = (left + side / 2) / SIZE[1], (top + side / 2) / SIZE[0]
            lines.append(f"{kind} {centre[0]} {centre[1]} {side / SIZE[1]} {side / SIZE[0]}\n")
        Image.fromarray(pixels).save(root / "images" / split / f"{number:03}.png")
        (root / "labels" / split / f"{number:03}.txt").write_text("".join(lines))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "boxes"
    for split, numbers in (("train", range(24)), ("val", range(30, 36)), ("test", range(40, 47))):
        write_boxes(root, split, numbers)
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    return root


@pytest.fixture
def recipe(boxes, tmp_path) -> Recipe:
    return make_recipe(
        name="test",
        model="fcos",
        backbone="resnet18",
        model_options=TINY,
        dataset=str(boxes),
        epochs=2,
        batch_size=8,
        optimizer="adamw",
        learning_rate=0.01,
        warmup_epochs=0,
        output_dir=tmp_path / "run",
    )


def history(recipe):
    with (recipe.run_dir / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def precision_by_hand(outputs, split, rule) -> dict:
    """COCO's numbers of outputs on all examples of a split, whose pictures are as large as the images."""
    examples = split.arrays()
    metric = AveragePrecision(("cat", "dog"))
    low = dataclasses.replace(rule, score=0.05)
    for found, truth, classes in zip(
        detect(outputs, [SIZE] * split.size, low), examples["boxes"], examples["classes"], strict=True
    ):
        metric.add(found, truth * [64, 48, 64, 48], classes)
    return metric.scores()


def test_whole_run(recipe, boxes):
    recipe = recipe.replace(epochs=12, augmentation=("flip", "scale"), export=("float32",))
    report = train(recipe)
    directory = recipe.run_dir
    assert json.loads((directory / "report.json").read_text()) == json.loads(json.dumps(report))
    measured = report["models"]
    assert measured["keras"]["ap50"] > 0.3, "coloured squares are found"

    model = keras.saving.load_model(directory / "model.keras")
    output = Output.of_model(model)
    assert output.class_names == ("cat", "dog")
    data = load_boxes(str(boxes))
    images = data.test.arrays()["image"].astype("float32")
    outputs = {name: np.asarray(values) for name, values in model.predict(images, verbose=0).items()}
    expected = precision_by_hand(outputs, data.test, output.suppression)
    for key in ("ap", "ap50", "ap75", "ar100", "ap_by_class", "boxes_by_class"):
        assert measured["keras"][key] == pytest.approx(expected[key], abs=1e-6), key
    assert measured["folded"]["max_difference"] < 1e-5
    assert measured["float32"]["max_difference"] < 1e-4
    assert measured["float32"]["ap"] == pytest.approx(expected["ap"], abs=0.02)

    rows = history(recipe)
    best = max(rows, key=lambda row: row["val_ap"])
    assert report["best_epoch"] == best["epoch"] + 1
    validated = {
        name: np.asarray(values)
        for name, values in model.predict(data.validation.arrays()["image"].astype("float32"), verbose=0).items()
    }
    held_out = precision_by_hand(validated, data.validation, output.suppression)
    assert (best["val_ap"], best["val_ap50"]) == pytest.approx((held_out["ap"], held_out["ap50"]), abs=1e-4)
    for row in rows:
        parts = row["classes_loss"] + row["boxes_loss"] + row["centerness_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-4)

    assert len(list((directory / "sheets").glob("*.png"))) == 12
    for name, caption in report["pictures"].items():
        assert (directory / name).read_bytes().startswith(b"\x89PNG"), caption
    assert {"predictions.png", "precision_recall.png", "errors.png"} <= report["pictures"].keys()

    card = (directory / "README.md").read_text()
    assert f"{measured['keras']['ap50']:.4f}" in card
    assert report["dataset"]["name"] == str(boxes)
    assert f"{measured['float32']['ap_by_class']['dog']:.3f}" in card
    told = read_card(directory / "model_float32.tflite")
    assert told.output == output
    found = kzoo.detect(model, images[:2].astype("uint8"))
    of_file = kzoo.detect(
        LiteRTModel(directory / "model_float32.tflite"),
        images[:2].astype("uint8"),
        suppression=told.output.suppression,
    )
    assert [len(each) for each in found] == [len(each) for each in of_file]


def test_boxes_are_kept_from_the_best_score_on(recipe, boxes, monkeypatch):
    """The finished model carries the score with the best F1 on validation images, and never the test's."""
    data = load_boxes(str(boxes))
    asked = []
    monkeypatch.setattr(FoundBoxes, "add", lambda self, outputs, examples: asked.append(examples["image"]))
    monkeypatch.setattr(FoundBoxes, "scores", lambda self: {"best_score": 0.43219})
    built = kzoo.build("fcos", backbone="resnet18", input_shape=(*SIZE, 3), num_classes=2, **TINY)
    finished = task_of(recipe).finished(built, data, Pixels("pad"))
    np.testing.assert_array_equal(np.concatenate(asked), data.validation.arrays()["image"])
    own, kept = (Output.of_model(model).suppression for model in (built, finished))
    assert kept == dataclasses.replace(own, score=0.432)
    monkeypatch.setattr(FoundBoxes, "scores", lambda self: {"best_score": 1.0})
    assert Output.of_model(task_of(recipe).finished(built, data, Pixels("pad"))).suppression == own


@pytest.mark.parametrize("model", ["fcos", "retinanet", "retinanet_v2"])
def test_the_learner_learns_by_the_loss_of_its_outputs(recipe, boxes, model):
    recipe = recipe.replace(model=model, model_options=TINY | dict(head_norm=None))
    data, task = load_boxes(str(boxes)), task_of(recipe)
    learner = compiled_model(recipe, task, data, 3)
    assert isinstance(learner, BoxLearner)
    images, truth = next(iter(task.validation(recipe, data)))
    raw = {name: np.asarray(values) for name, values in learner(images, training=False).items()}
    parts = {name: float(part) for name, part in learner.loss.parts(truth, raw).items()}
    logs = learner.test_on_batch(images, truth, return_dict=True)
    assert logs["loss"] == pytest.approx(sum(parts.values()), rel=1e-5)
    for name, part in parts.items():
        assert logs[f"{name}_loss"] == pytest.approx(part, rel=1e-5)
    assert isinstance(learner.loss, FCOSLoss if model == "fcos" else RetinaNetLoss)
    if model != "fcos":
        assert learner.loss.box_loss == {"retinanet": "l1", "retinanet_v2": "giou"}[model]
    assert (learner.loss.alpha, learner.loss.gamma) == (0.25, 2.0)


def test_validation_keeps_boxes_level_by_level(recipe, boxes, monkeypatch):
    """As the finished model does, so that the epoch that is best is that of its own numbers."""
    data, task = load_boxes(str(boxes)), task_of(recipe)
    learner = compiled_model(recipe, task, data, 3)
    [judge] = task.judges(recipe, data)
    judge.set_model(learner)
    outputs = []
    init = FoundBoxes.__init__
    monkeypatch.setattr(
        FoundBoxes, "__init__", lambda self, output, pixels: (outputs.append(output), init(self, output, pixels))[1]
    )
    judge.on_test_end()
    built = kzoo.build("fcos", backbone="resnet18", input_shape=(*SIZE, 3), num_classes=2, **TINY)
    assert outputs[0].suppression == Output.of_model(built).suppression
    assert outputs[0].suppression.level_sizes == learner.loss.places.level_sizes


def test_settings_of_the_loss_arrive(recipe, boxes):
    data = load_boxes(str(boxes))
    changed = recipe.replace(model="retinanet", focal_alpha=0.4, focal_gamma=1.5, box_loss="giou")
    loss = compiled_model(changed, task_of(changed), data, 3).loss
    assert (loss.alpha, loss.gamma, loss.box_loss) == (0.4, 1.5, "giou")
    with pytest.raises(InvalidValueError, match="box_loss='l1' is of retinanet; fcos has 'giou'"):
        train(recipe.replace(box_loss="l1"))
    with pytest.raises(InvalidValueError, match="focal_gamma=-1"):
        Detect(focal_gamma=-1.0)
    with pytest.raises(InvalidValueError, match=r"task=Detect.*fpn is for segmentation; give task=Segment"):
        Recipe(name="x", model="fpn", data=Data(""), task=Detect(focal_gamma=1.0))


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
def test_raw_outputs_decode_to_what_the_detector_gives(kind):
    options = dict(backbone="resnet18", input_shape=(*SIZE, 3), num_classes=2)
    model = randomise(kzoo.build(kind, **options, **TINY))
    images = np.random.default_rng(3).uniform(0, 255, (2, *SIZE, 3)).astype("float32")
    decoded = decode_outputs(raw_outputs(model)(images), places_of(model))
    for name, values in model(images).items():
        np.testing.assert_allclose(decoded[name], values, atol=1e-5)


def test_pictures_are_judged_in_their_own_pixels():
    """A box of 40×30 pixels in a picture of 640×480 is medium; on the image of 64×48 it would be small."""
    output = Output("detection", "sigmoid", 1, ("cat",), Suppression(0.2, 10, 0.5, 10))
    scorer = FoundBoxes(output, Pixels("stretch"))
    box = np.array([[[0.1, 0.1, 0.1 + 40 / 640, 0.1 + 30 / 480]]], "float32")
    examples = dict(
        image=np.zeros((1, *SIZE, 3), "uint8"), boxes=box, classes=np.array([[0]]), size=np.array([[480, 640]])
    )
    scorer.add({"boxes": box, "scores": np.full((1, 1, 1), 0.1, "float32")}, examples)
    scores = scorer.scores()
    assert (scores["ap"], scores["ap_medium"]) == pytest.approx((1.0, 1.0))
    assert scores["ap_small"] is None
    assert scores["best_score"] == pytest.approx(0.1)
    assert scores["missed"] == 0


def test_a_score_below_the_rules_counts_for_precision_alone():
    """Average precision ranks detections from 0.05 on, whatever the model keeps."""
    assert FoundBoxes(Output("detection", "sigmoid", 1, None, Suppression(0.6, 9, 0.5, 9)), Pixels("pad")).rule == (
        Suppression(0.05, 9, 0.5, 9)
    )
    low = Suppression(0.01, 9, 0.5, 9)
    assert FoundBoxes(Output("detection", "sigmoid", 1, None, low), Pixels("pad")).rule == low


@pytest.mark.slow
def test_averaged_weights_are_judged(recipe, boxes):
    """With a moving average the validation judges it, not the weights that go on learning."""
    recipe = recipe.replace(ema=0.5, epochs=2)
    train(recipe)
    data, task = load_boxes(str(boxes)), task_of(recipe)
    rows = history(recipe)
    best = max(rows, key=lambda row: row["val_ap"])
    kept = keras.saving.load_model(checkpoints_of(recipe.run_dir).best(int(best["epoch"]) + 1, averaged=True))
    [judge] = task.judges(recipe, data)
    judge.set_model(kept)
    judge.on_test_end()
    logs: dict = {}
    judge.on_epoch_end(0, logs)
    assert logs["val_ap"] == pytest.approx(best["val_ap"], abs=1e-6)
    assert isinstance(judge, JudgedBoxes)


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(recipe):
    parted = recipe.replace(augmentation=("flip",), decay="constant")
    whole = parted.replace(output_dir=recipe.run_dir.with_name("whole"))
    train(whole)
    train(parted.replace(epochs=1))
    train(parted)
    for one, other in zip(history(whole), history(parted), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"augmentation": ("rotate",)}, InvalidValueError, "'rotate' moves pixels, and boxes do not follow it"),
        ({"resize": "crop"}, InvalidValueError, "leaves out the borders of pictures, and a detector tells where"),
        ({"label_separator": "|"}, InvalidValueError, "is for classification; leave it out"),
        ({"class_names": ("cat",)}, DatasetError, "has boxes of 'dog'; the classes are said to be cat"),
        ({"mixup": 0.2}, InvalidValueError, "mixup: for classification"),
    ],
)
def test_what_cannot_be_is_said_before_any_training(recipe, flags, error, message):
    with pytest.raises(error, match=message):
        train(recipe.replace(**flags))
    assert not recipe.run_dir.exists()


def test_class_names_order_the_classes(recipe):
    data = task_of(recipe).load(recipe.data, Detect(class_names=("dog", "bird", "cat")), 0)
    assert data.classes == ("dog", "bird", "cat")
    first = data.train.arrays()
    plain = task_of(recipe).load(recipe.data, Detect(), 0).train.arrays()
    np.testing.assert_array_equal(first["classes"], np.array([2, 0, -1])[plain["classes"]])
    assert Augment().changes == ()
