"""One class for each image, in the recipe engine."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kzoo.data.augment import Augmentation
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.datasets import load_dataset
from kzoo.data.mixing import Mixing
from kzoo.data.split import Example, ImageDataset
from kzoo.errors import DatasetError
from kzoo.images import Pixels, RandomCrop
from kzoo.losses import ClassificationLoss, balanced_weights
from kzoo.output import Output
from kzoo.recipe import Classify, Data, Recipe, TaskOptions
from kzoo.report.diagrams import draw_confusion, draw_ranking, draw_reliability, write_confusion
from kzoo.report.judging import confusion_matrix, reliability
from kzoo.report.mistakes import Judged, write_mistakes
from kzoo.report.plots import draw_predictions
from kzoo.report.probabilities import Probabilities
from kzoo.tasks.task import PREDICTIONS, Column, Evaluated, Task

SMOKE_BATCH, SMOKE_IMAGES = 16, 64
MISTAKES = "mistakes.html"


class Classification(Task):
    """One class for each image."""

    name = "classification"
    monitor = "accuracy"
    columns: tuple[Column, ...] = (Column("accuracy", "top-1 accuracy", ".2%"), Column("loss", "cross-entropy", ".4f"))
    details: tuple[Column, ...] = (
        Column("accuracy_interval", "95 % interval of the accuracy (Wilson)", ".2%"),
        Column("top5_accuracy", "top-5 accuracy", ".2%"),
        Column("balanced_accuracy", "balanced accuracy (macro recall)", ".2%"),
        Column("macro_precision", "macro precision", ".4f"),
        Column("macro_f1", "macro F1", ".4f"),
        Column("ece", "expected calibration error", ".4f"),
        Column("roc_auc", "area under the ROC curve", ".4f"),
        Column("average_precision", "average precision", ".4f"),
    )
    class_columns: tuple[Column, ...] = (
        Column("f1_by_class", "F1", ".3f"),
        Column("precision_by_class", "precision", ".3f"),
        Column("recall_by_class", "recall", ".3f"),
        Column("support_by_class", "images", ",d"),
    )
    activation = "softmax"
    calibrates = True
    usage = "probabilities = model.predict(images)  # RGB pixels of 0 to 255, (n, {size}, 3)"
    quality = "accuracy"
    smoke_batch, smoke_images = SMOKE_BATCH, SMOKE_IMAGES
    batch_size = 256
    truth = "label"

    def check(self, recipe: Recipe) -> None:
        pass

    def load(self, data: Data, options: TaskOptions, seed: int, divided: bool = True) -> ImageDataset:
        if data.label_separator is not None:
            raise DatasetError(
                f"label_separator={data.label_separator!r} is for images with any number of classes, and the model "
                "tells one for each; leave it out, or take a model with a sigmoid for each class"
            )
        return load_images(data, seed, divided)

    def images(self, data: Data, count: int) -> np.ndarray:
        return load_images(data).train.arrays(count)["image"]

    def blank_truth(self, images: int, shape: tuple[int, int], classes: int) -> Example:
        return {"label": np.arange(images) % classes}

    def _targets(self, examples, data: ImageDataset):
        """The shares of the classes (n, classes) that the loss takes."""
        return ops.one_hot(examples["label"], len(data.classes))

    def training(self, recipe: Recipe, data: ImageDataset, done: int, first: int = 0):
        changes, crop = recipe.augment.changes, None
        if "resized_crop" in changes and data.train.crops:  # of the picture, before anything is lost of it
            shape = (*(recipe.crop_shape or data.image_shape[:2]), 3)
            crop = RandomCrop(recipe.augment.crop_area, shape, recipe.data.interpolation)
            changes = tuple(name for name in changes if name != "resized_crop")
        augment = Augmentation(dataclasses.replace(recipe.augment, changes=changes), recipe.crop_shape)
        mix = Mixing(recipe.augment.mixup, recipe.augment.cutmix)

        def prepare(examples, seeds):
            images = augment(ops.cast(examples["image"], "float32"), seeds)
            return mix(images, self._targets(examples, data), seeds)

        return training_batches(
            data.train,
            recipe.schedule.batch_size,
            prepare,
            labels=data.train.labels() if classify(recipe.task).balanced_sampling else None,
            seed=recipe.seed,
            epochs=range(done, recipe.schedule.epochs),
            first=first,
            crop=crop,
        )

    def validation(self, recipe: Recipe, data: ImageDataset):
        return evaluation_batches(
            data.validation,
            recipe.schedule.batch_size,
            lambda examples: (ops.cast(examples["image"], "float32"), self._targets(examples, data)),
        )

    def loss(self, recipe: Recipe, data: ImageDataset, model: keras.Model) -> keras.losses.Loss:
        options = classify(recipe.task)
        weights = balanced_weights(data.train.labels(), len(data.classes)) if options.class_weights else None
        return ClassificationLoss(options.loss == "binary_cross_entropy", options.label_smoothing, weights)

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]

    def callbacks(self, data: ImageDataset, directory: Path) -> list[keras.callbacks.Callback]:
        return []

    def scorer(self, output: Output, pixels: Pixels) -> Probabilities:
        return Probabilities(output.names)

    def draw(self, evaluated: Evaluated, directory: Path) -> dict[str, str]:
        """The mistakes, the confusion matrix, the calibration, and of two classes how well they are ranked."""
        scorer: Probabilities = evaluated.scorer
        probabilities, labels, classes = scorer.probabilities, scorer.labels, scorer.classes

        def read(numbers: np.ndarray) -> np.ndarray:
            return evaluated.examples(numbers)["image"]

        judged = Judged(labels, probabilities, classes, evaluated.split, evaluated.files)
        about = {"file": evaluated.file, "dataset": evaluated.dataset, "split": evaluated.split}
        write_mistakes(read, judged, about, directory / MISTAKES)
        draw_predictions(read, labels, probabilities, classes, directory / PREDICTIONS)
        matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
        draw_confusion(matrix, classes, directory / "confusion.png")
        write_confusion(matrix, classes, directory / "confusion.csv")
        draw_reliability(reliability(probabilities, labels), directory / "reliability.png")
        captions = {MISTAKES: "What it gets wrong, image by image", PREDICTIONS: "Predictions"}
        captions |= {"confusion.png": "Confusion matrix", "reliability.png": "Calibration"}
        if len(classes) == 2 and np.isfinite(probabilities).all():
            draw_ranking(labels[:, None], probabilities[:, 1:], classes[1:], directory / "ranking.png")
            captions["ranking.png"] = "ROC, precision and recall"
        return captions


def classify(options: TaskOptions) -> Classify:
    """The options, which are of this task; raises `TypeError` otherwise."""
    if not isinstance(options, Classify):
        raise TypeError(f"classification takes Classify(...), not {options}")
    return options


def load_images(data: Data, seed: int = 0, divided: bool = True) -> ImageDataset:
    """The dataset that a recipe's part tells of."""
    return load_dataset(
        data.dataset,
        data_dir=data.data_dir,
        image_size=data.image_size,
        pixels=data.pixels,
        test_fraction=data.test_fraction,
        validation_fraction=data.validation_fraction,
        group_by=data.group_by,
        label_separator=data.label_separator,
        seed=seed,
        divided=divided,
    )
