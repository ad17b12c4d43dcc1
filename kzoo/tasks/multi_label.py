"""Any number of classes for each image, in the recipe engine: a sigmoid for each class."""

from pathlib import Path

import keras
import numpy as np
from keras import ops

from kzoo.data.split import Example, ImageDataset
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.recipe import Data, Recipe, TaskOptions
from kzoo.report.diagrams import draw_ranking
from kzoo.report.plots import draw_label_sheet
from kzoo.report.probabilities import Probabilities
from kzoo.tasks.classification import Classification, classify, load_images
from kzoo.tasks.task import PREDICTIONS, Column, Evaluated


class MultiLabel(Classification):
    """Any number of classes for each image, each there or not whatever the others are."""

    columns = (
        Column("accuracy", "all labels right", ".2%"),
        Column("average_precision", "mean average precision", ".4f"),
        Column("loss", "binary cross-entropy", ".4f"),
    )
    details = (
        Column("accuracy_interval", "95 % interval of the images with all labels right (Wilson)", ".2%"),
        Column("label_accuracy", "labels that are right", ".2%"),
        Column("roc_auc", "mean area under the ROC curve", ".4f"),
        Column("balanced_accuracy", "macro recall", ".2%"),
        Column("macro_precision", "macro precision", ".4f"),
        Column("macro_f1", "macro F1", ".4f"),
    )
    class_columns = (
        Column("f1_by_class", "F1", ".3f"),
        Column("precision_by_class", "precision", ".3f"),
        Column("recall_by_class", "recall", ".3f"),
        Column("average_precision_by_class", "average precision", ".3f"),
        Column("support_by_class", "images", ",d"),
    )
    activation = "sigmoid"
    calibrates = False
    usage = "probabilities = model.predict(images)  # of each class by itself; RGB pixels of 0 to 255, (n, {size}, 3)"
    quality = "accuracy of the labels"

    def check(self, recipe: Recipe) -> None:
        options = classify(recipe.task)
        if options.loss != "binary_cross_entropy":
            raise InvalidValueError(
                f"loss={options.loss!r} is for one class for each image, and with a label_separator an image has any "
                "number; take loss='binary_cross_entropy'"
            )
        for name, value in (
            ("class_weights", options.class_weights),
            ("balanced_sampling", options.balanced_sampling),
        ):
            if value:
                raise InvalidValueError(f"{name} is for one class for each image; leave it out with a label_separator")

    def load(self, data: Data, options: TaskOptions, seed: int, divided: bool = True) -> ImageDataset:
        if data.label_separator is None:
            raise DatasetError(
                f"the model has a sigmoid for each class, for images with any number of them; {data.dataset} is read "
                "as one class for each image: give a table whose labels hold several, and what stands between them "
                "as --label-separator"
            )
        return load_images(data, seed, divided)

    def blank_truth(self, images: int, shape: tuple[int, int], classes: int) -> Example:
        return {"label": np.broadcast_to(np.uint8(0), (images, classes))}

    def _targets(self, examples, data: ImageDataset):
        return ops.cast(examples["label"], "float32")

    def loss(self, recipe: Recipe, data: ImageDataset, model: keras.Model) -> keras.losses.Loss:
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=classify(recipe.task).label_smoothing)

    def metrics(self, data: ImageDataset) -> list[keras.metrics.Metric]:
        return [keras.metrics.MeanMetricWrapper(all_right, name="accuracy")]

    def scorer(self, output: Output, pixels: Pixels) -> Probabilities:
        return Probabilities(output.names, multi_label=True)

    def draw(self, evaluated: Evaluated, directory: Path) -> dict[str, str]:
        """The images with the worst labels, and how well each class is ranked."""
        scorer: Probabilities = evaluated.scorer
        probabilities, labels, classes = scorer.probabilities, scorer.labels, scorer.classes

        def read(numbers: np.ndarray) -> np.ndarray:
            return evaluated.examples(numbers)["image"]

        draw_label_sheet(read, labels, probabilities, classes, directory / PREDICTIONS)
        captions = {PREDICTIONS: "Predictions"}
        if np.isfinite(probabilities).all() and (labels.any(axis=0) & ~labels.all(axis=0)).any():
            draw_ranking(labels, probabilities, classes, directory / "ranking.png")
            captions["ranking.png"] = "ROC, precision and recall"
        return captions


@keras.saving.register_keras_serializable("kzoo")
def all_right(y_true, y_pred):
    """Whether every label of an image is right, 0 or 1 (n,), for shares and logits (n, classes)."""
    right = ops.equal(ops.greater_equal(y_true, 0.5), ops.greater_equal(y_pred, 0))
    return ops.cast(ops.all(right, axis=-1), "float32")
