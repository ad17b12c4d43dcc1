"""Boxes with classes, in the recipe engine."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kzoo.data.batches import evaluation_batches, in_memory, training_batches
from kzoo.data.box_changes import BoxAugmentation
from kzoo.data.detection_sets import load_boxes
from kzoo.data.split import Example, ImageDataset
from kzoo.detection.coding import decode_outputs
from kzoo.detection.learner import BoxLearner
from kzoo.detection.losses import BoxLoss, FCOSLoss, RetinaNetLoss
from kzoo.detection.suppression import RETINANET, RULES, Detections, Suppression, detect
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.meaning import with_classes
from kzoo.models.detector import places_of, raw_outputs
from kzoo.output import DETECTION, Output
from kzoo.places import Places
from kzoo.recipe import Data, Detect, Recipe, TaskOptions
from kzoo.registry import lookup
from kzoo.report.box_curves import draw_errors, draw_precision_recall
from kzoo.report.box_sheets import BoxSheetWriter, draw_box_sheet
from kzoo.report.boxes import FoundBoxes
from kzoo.tasks.task import PREDICTIONS, Column, Evaluated, Task

MOST_BOXES = 100  # of an image in a plan
SHOWN = 4  # images on a sheet
SHEET_RULE = dataclasses.replace(RETINANET, score=0.3)  # of what stands there while it is trained
TRUTH = ("boxes", "classes")
BOX_LOSSES: dict[str, BoxLoss] = {"retinanet": "l1"}  # as torchvision trains them; "giou" for all others
ERRORS = {  # kind -> title
    "missed": "boxes missed",
    "duplicate": "duplicates",
    "wrong_class": "boxes of a wrong class",
    "loose_box": "loose boxes",
    "background": "boxes of background",
}


class Detection(Task):
    """Boxes with classes."""

    name = "detection"
    monitor = "ap"
    columns = (
        Column("ap", "AP", ".4f"),
        Column("ap50", "AP50", ".4f"),
        Column("ap75", "AP75", ".4f"),
    )
    details = (
        Column("ap_small", "AP of boxes below 32² pixels", ".4f"),
        Column("ap_medium", "AP of boxes up to 96² pixels", ".4f"),
        Column("ap_large", "AP of larger boxes", ".4f"),
        Column("ar1", "recall with 1 detection a picture", ".4f"),
        Column("ar10", "recall with 10 detections", ".4f"),
        Column("ar100", "recall with 100 detections", ".4f"),
        Column("best_score", "score with the best F1", ".3f"),
        *(Column(kind, f"{title}, from that score on", ",d") for kind, title in ERRORS.items()),
    )
    class_columns = (
        Column("ap_by_class", "AP", ".3f"),
        Column("ap50_by_class", "AP50", ".3f"),
        Column("boxes_by_class", "boxes", ",d"),
    )
    activation = "sigmoid"
    training_activation = "sigmoid"
    calibrates = False
    usage = (
        'found = kzoo.detect(model, ["photo.jpg"])[0]\n'
        "found.boxes, found.classes, found.scores  # pixels of the photo: left, top, right, bottom"
    )
    quality = "average precision"
    smoke_batch, smoke_images = 4, 12
    batch_size = 8
    truth = "classes"

    def check(self, recipe: Recipe) -> None:
        BoxAugmentation(recipe.augment)  # refuses what boxes do not follow
        recipe.data.pixels.check_whole("a detector", "tells where things are")
        _loss(recipe)  # refuses what the model has no place for
        if recipe.data.label_separator is not None:
            raise InvalidValueError(
                f"label_separator={recipe.data.label_separator!r} is for classification; leave it out"
            )

    def load(self, data: Data, options: TaskOptions, seed: int, divided: bool = True) -> ImageDataset:
        return load_boxes(
            data.dataset,
            data_dir=data.data_dir,
            image_size=data.shape,
            pixels=data.pixels,
            class_names=_detect(options).class_names,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            group_by=data.group_by,
            seed=seed,
            divided=divided,
        )

    def images(self, data: Data, count: int) -> np.ndarray:
        return self.load(data, Detect(), 0).train.arrays(count)["image"]

    def blank_truth(self, images: int, shape: tuple[int, int], classes: int) -> Example:
        return {
            "boxes": np.broadcast_to(np.float32(0), (images, MOST_BOXES, 4)),
            "classes": np.broadcast_to(np.int32(-1), (images, MOST_BOXES)),
            "size": np.broadcast_to(np.array(shape, "int32"), (images, 2)),
        }

    def training(self, recipe: Recipe, data: ImageDataset, done: int, first: int = 0):
        augment = BoxAugmentation(recipe.augment)

        def prepare(examples, seeds):
            images = ops.cast(examples["image"], "float32")
            images, boxes, classes = augment(images, examples["boxes"], examples["classes"], seeds)
            return images, {"boxes": boxes, "classes": classes}

        schedule = recipe.schedule
        epochs, size = range(done, schedule.epochs), schedule.batch_size
        return training_batches(data.train, size, prepare, seed=recipe.seed, epochs=epochs, first=first)

    def validation(self, recipe: Recipe, data: ImageDataset):
        return evaluation_batches(
            data.validation,
            recipe.schedule.batch_size,
            lambda examples: (ops.cast(examples["image"], "float32"), {name: examples[name] for name in TRUTH}),
        )

    def learner(self, model: keras.Model, prepare: Callable[[keras.Model], keras.Model]) -> keras.Model:
        raw = prepare(raw_outputs(model))
        return BoxLearner(raw.input, raw.output, name=model.name)

    def loss(self, recipe: Recipe, data: ImageDataset, model: keras.Model) -> keras.losses.Loss:
        return _loss(recipe)(places_of(model))

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return []  # the learner has the parts of its loss

    def judges(self, recipe: Recipe, data: ImageDataset) -> list[keras.callbacks.Callback]:
        rule = RULES[lookup(recipe.model).config.kind]
        return [JudgedBoxes(rule, data, recipe.data.pixels, recipe.schedule.batch_size)]

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]:
        shown = data.validation.arrays(SHOWN)
        images, scale = shown["image"], _scale(data.image_shape)
        truths = [(boxes * scale, classes) for boxes, classes in zip(shown["boxes"], shown["classes"], strict=True)]

        def found(images: np.ndarray) -> list[Detections]:
            return detect(predict_boxes(writer.model, images), [data.image_shape[:2]] * len(images), SHEET_RULE)

        writer = BoxSheetWriter(images, truths, data.classes, directory / "sheets", found)
        return [writer]

    def finished(self, model: keras.Model, data: ImageDataset, pixels: Pixels) -> keras.Model:
        """Boxes are kept from the score on that has the best F1 on the validation images."""
        model = with_classes(model, data.classes, pixels)
        scorer = self.scorer(output := Output.of_model(model), pixels)
        for examples in data.validation.batches(self.batch_size):
            scorer.add(model.predict_on_batch(examples["image"].astype("float32")), examples)
        best = scorer.scores()["best_score"]
        if best == 1.0:  # nothing right was found
            return model
        assert output.suppression is not None
        rule = dataclasses.replace(output.suppression, score=math.floor(1000 * best) / 1000)
        return with_classes(model, data.classes, pixels, suppression=rule)

    def scorer(self, output: Output, pixels: Pixels) -> FoundBoxes:
        return FoundBoxes(output, pixels)

    def draw(self, evaluated: Evaluated, directory: Path) -> dict[str, str]:
        """Two each of the worst, the middling and the best images, precision by recall, and errors by kind."""
        scorer: FoundBoxes = evaluated.scorer
        scores, errors = scorer.scores(), scorer.errors_by_picture()
        order = np.argsort([-sum(each.values()) for each in errors], kind="stable")
        middle = (len(order) - 1) // 2
        places = [0, 1 % len(order), middle, (middle + 1) % len(order), -2 % len(order), -1 % len(order)]
        chosen = [*dict.fromkeys(order[places].tolist())]
        shown = evaluated.examples(np.sort(chosen))
        rows = np.searchsorted(np.sort(chosen), chosen)
        images, shape = shown["image"][rows], shown["image"].shape[1:3]
        rule = dataclasses.replace(scorer.rule, score=scores["best_score"])
        found = detect(evaluated.predict(images), [shape] * len(images), rule)
        truths = [(shown["boxes"][row] * _scale(shape), shown["classes"][row]) for row in rows]
        which = "image" if evaluated.split == "all" else f"{evaluated.split} image"
        titles = [f"{which} {number + 1}: {_errors_in_words(errors[number])}" for number in chosen]
        draw_box_sheet(images, truths, found, scorer.classes, directory / PREDICTIONS, titles)
        draw_precision_recall(scorer.curves(), scores["ap50_by_class"], directory / "precision_recall.png")
        boxes = sum(scores["boxes_by_class"].values())
        draw_errors({kind: scores[kind] for kind in ERRORS}, boxes, directory / "errors.png")
        return {
            PREDICTIONS: "Truth and predictions",
            "precision_recall.png": "Precision and recall",
            "errors.png": "Errors by kind",
        }


class JudgedBoxes(keras.callbacks.Callback):
    """Judges the weights that are validated by average precision, and adds it to the logs of the epoch.

    Args:
        rule: what is kept of boxes; the model's levels are added to it.
        data: the dataset, on whose validation images it judges.
        pixels: way from the pictures to the images.
        batch_size: images of a step; a last, smaller batch is filled up, for one program and for any devices.
    """

    def __init__(self, rule: Suppression, data: ImageDataset, pixels: Pixels, batch_size: int):
        super().__init__()
        self._rule, self._classes, self._pixels = rule, data.classes, pixels
        self._split, self._batch_size = in_memory(data.validation), batch_size

    def on_test_end(self, logs=None):
        rule = dataclasses.replace(self._rule, level_sizes=self.model.loss.places.level_sizes)
        scorer = FoundBoxes(Output(DETECTION, "sigmoid", len(self._classes), self._classes, rule), self._pixels)
        for examples in self._split.batches(self._batch_size):
            images = examples["image"]
            filled = np.zeros((self._batch_size, *images.shape[1:]), "float32")
            filled[: len(images)] = images
            outputs = predict_boxes(self.model, filled)
            scorer.add({name: values[: len(images)] for name, values in outputs.items()}, examples)
        scores = scorer.scores()
        self._judged = {f"val_{key}": scores[key] or 0.0 for key in ("ap", "ap50")}

    def on_epoch_end(self, epoch, logs=None):
        logs |= self._judged


def predict_boxes(model: BoxLearner, images: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes and scores that a model gives for a batch of images, as the finished detector will."""
    decoded = decode_outputs(model.predict_on_batch(images.astype("float32")), model.loss.places)
    return {name: ops.convert_to_numpy(values) for name, values in decoded.items()}


def _scale(shape: Sequence[int]) -> np.ndarray:
    """What relative boxes are multiplied by to be in the pixels of an image (height, width, ...)."""
    height, width = shape[:2]
    return np.array([width, height, width, height], "float32")


def _errors_in_words(errors: dict[str, int]) -> str:
    told = [f"{kind.replace('_', ' ')}: {count}" for kind, count in errors.items() if count]
    return ", ".join(told) or "no error"


def _detect(options: TaskOptions) -> Detect:
    if not isinstance(options, Detect):
        raise TypeError(f"detection takes Detect(...), not {options}")
    return options


def _loss(recipe: Recipe) -> Callable[[Places], keras.losses.Loss]:
    """The loss of the recipe's model, of its places.

    Raises:
        InvalidValueError: a loss of boxes that the model does not have.
    """
    options, kind = _detect(recipe.task), lookup(recipe.model).config.kind
    box_loss = options.box_loss or BOX_LOSSES.get(recipe.model, "giou")
    alpha, gamma = options.focal_alpha, options.focal_gamma
    if kind == "retinanet":
        return lambda places: RetinaNetLoss(places, box_loss, alpha, gamma)
    if box_loss != "giou":
        raise InvalidValueError(f"box_loss={box_loss!r} is of retinanet; {recipe.model} has 'giou'")
    return lambda places: FCOSLoss(places, alpha, gamma)
