"""Collects what a classifier says of images, and judges it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.report.judging import (
    LEAST,
    TOP,
    fit_temperature,
    interval_of_share,
    judge_by_class,
    ranking,
    reliability,
    scaled,
    top_accuracy,
)
from kzoo.report.measure import score


class Probabilities:
    """Collects class probabilities and the truth.

    Args:
        classes: names; one that several classes have gets their numbers.
        multi_label: whether each class of an image is there or not, whatever the others are (`Output.multi_label`).

    Example:
        >>> scorer = Probabilities(("cat", "dog"))
        >>> scorer.add(np.array([[0.8, 0.2], [0.6, 0.4]]), {"label": np.array([0, 1])})
        >>> scorer.scores()["recall_by_class"]
        {'cat': 1.0, 'dog': 0.0}
    """

    def __init__(self, classes: Sequence[str], multi_label: bool = False):
        often = Counter(classes)
        self.classes = tuple(name if often[name] == 1 else f"{name} ({index})" for index, name in enumerate(classes))
        self._multi_label = multi_label
        self._outputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, outputs: np.ndarray, examples: Mapping[str, np.ndarray]) -> None:
        """Takes probabilities (n, classes) and the `label` of each example: (n,), or 0 and 1 (n, classes) of several.

        Raises:
            InvalidValueError: labels of another form.
        """
        labels = np.asarray(examples["label"])
        expected = outputs.shape if self._multi_label else outputs.shape[:1]
        if labels.shape != expected:
            kind = "0 and 1 for each class" if self._multi_label else "the number of a class"
            raise InvalidValueError(f"labels of shape {labels.shape}; {kind}, of shape {expected}, are needed")
        if self._multi_label and not np.isin(labels, (0, 1)).all():
            raise InvalidValueError("labels other than 0 and 1; an image with several labels has a 0 or 1 for each")
        self._outputs.append(outputs)
        self._labels.append(labels)

    @property
    def probabilities(self) -> np.ndarray:
        """(n, classes) of all images."""
        return np.concatenate(self._outputs)

    @property
    def labels(self) -> np.ndarray:
        """(n,) of all images, or (n, classes)."""
        return np.concatenate(self._labels)

    def scores(self) -> dict[str, Any]:
        """All that is told of one file.

        Of images with one class: top-1 accuracy with its 95 % interval and mean cross-entropy; balanced accuracy,
        macro precision and F1, which are means over the classes that occur; top-5 accuracy of more than five classes;
        expected calibration error; of two classes the area under the ROC curve and the average precision of the
        second. Of images with several labels: the share of images all of whose labels are right as the accuracy, that
        of labels that are right, the mean cross-entropy of a label, macro scores from one half on, and average
        precision. Of each class precision, recall, F1 and number of images. None where a score has no meaning.
        """
        probabilities, labels = self.probabilities, self.labels
        judge = self._of_labels if self._multi_label else self._of_classes
        predicted, found = judge(probabilities, labels)
        right = (predicted == labels).reshape(len(labels), -1).all(axis=1)
        by_class = judge_by_class(labels, predicted, len(self.classes))
        macros = {f"macro_{name}": _known(by_class.macro(getattr(by_class, name))) for name in ("precision", "f1")}
        found |= {
            "accuracy_interval": [*interval_of_share(int(right.sum()), len(right))],
            "balanced_accuracy": _known(by_class.macro(by_class.recall)),
            **macros,
        }
        shares = {f"{name}_by_class": self._named(getattr(by_class, name)) for name in ("f1", "precision", "recall")}
        support = {"support_by_class": dict(zip(self.classes, map(int, by_class.support), strict=True))}
        return found | shares | support

    def with_temperature(self, held_out: "Probabilities") -> dict[str, float | int] | None:
        """Fits one temperature to other images, and tells what it does to these (Guo 2017, arXiv:1706.04599).

        Args:
            held_out: of the images to fit to, with one class each.

        Returns:
            `temperature`, the number of images it was `fitted_on`, and `loss` and `ece` `_before` and `_after`; None
            where all images to fit to are right, for which there is no temperature.
        """
        temperature = fit_temperature(held_out.probabilities, held_out.labels)
        if temperature is None:
            return None
        told: dict[str, float | int] = {"temperature": temperature, "fitted_on": len(held_out.labels)}
        for when, given in (("before", self.probabilities), ("after", scaled(self.probabilities, temperature))):
            told[f"loss_{when}"] = score(given, self.labels)[1]
            told[f"ece_{when}"] = reliability(given, self.labels).error
        return told

    def _of_classes(self, probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """What each image got, and the scores of images with one class."""
        accuracy, loss = score(probabilities, labels)
        two = len(self.classes) == 2
        area, precision = ranking(labels, probabilities[:, 1]) if two else (None, None)
        return probabilities.argmax(axis=1), {
            "accuracy": accuracy,
            "loss": loss,
            "top5_accuracy": top_accuracy(probabilities, labels) if len(self.classes) > TOP else None,
            "ece": reliability(probabilities, labels).error,
            "roc_auc": area,
            "average_precision": precision,
        }

    def _of_labels(self, probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """The labels that each image got, and the scores of images with several."""
        predicted = (probabilities >= 0.5).astype(int)
        pairs = [ranking(labels[:, index], probabilities[:, index]) for index in range(len(self.classes))]
        areas, precisions = (np.array(values, "float64") for values in zip(*pairs, strict=True))
        missed = np.where(labels == 1, probabilities, 1 - probabilities)
        return predicted, {
            "accuracy": float((predicted == labels).all(axis=1).mean()),
            "label_accuracy": float((predicted == labels).mean()),
            "loss": float(-np.log(np.maximum(missed, LEAST)).mean()),
            "roc_auc": _mean(areas),
            "average_precision": _mean(precisions),
            "average_precision_by_class": self._named(precisions),
        }

    def _named(self, values: np.ndarray) -> dict[str, float | None]:
        return {name: _known(float(value)) for name, value in zip(self.classes, values, strict=True)}


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float | None:
    """The mean of those that are numbers; None without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
