"""Boxes that a model found, judged against those that are there: what tasks score a detector by."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kzoo.detection import AveragePrecision
from kzoo.images import Pixels
from kzoo.output import Output

LEAST_SCORE = 0.05  # of what average precision counts, as FCOS' authors and detectron2 have it


class FoundBoxes:
    """Collects what a detector found in the pictures of examples, in the pixels of each picture.

    Average precision ranks detections, so those below the model's own score count too, from `LEAST_SCORE` on.

    Args:
        output: meaning of the model's outputs, with what is kept of them.
        pixels: way from the pictures to the images.

    Example:
        >>> scorer = FoundBoxes(Output.of_model(model), Pixels("stretch"))
        >>> scorer.add(model.predict(examples["image"]), examples)
        >>> scorer.scores()["ap50"]
        0.93
    """

    def __init__(self, output: Output, pixels: Pixels):
        assert output.suppression is not None, "of a detector"
        self.classes = output.names
        self.rule = dataclasses.replace(output.suppression, score=min(output.suppression.score, LEAST_SCORE))
        self._pixels = pixels
        self._metric = AveragePrecision(self.classes)

    def add(self, outputs: Mapping[str, np.ndarray], examples: Mapping[str, np.ndarray]) -> None:
        """Takes what a model gave for a batch of examples, with `boxes`, `classes` and `size`, and the batch."""
        shape = examples["image"].shape[1:3]
        pictures = zip(
            *(np.asarray(outputs[name]) for name in ("boxes", "scores")),
            *(examples[name] for name in ("boxes", "classes", "size")),
            strict=True,
        )
        for boxes, scores, truth, classes, (height, width) in pictures:
            size = int(width), int(height)
            found = self.rule(self._pixels.boxes_in_picture(boxes, size, shape), scores)
            self._metric.add(found, self._pixels.boxes_in_picture(truth, size, shape), classes)

    def scores(self) -> dict[str, Any]:
        """COCO's numbers, the score with the best F1 (`best_score`), and the errors from it on, by kind."""
        best = self._metric.best_score()
        return self._metric.scores() | {"best_score": best} | self._metric.errors(best)

    def errors_by_picture(self) -> list[dict[str, int]]:
        """Errors of each picture, by kind, from the score with the best F1 on."""
        return self._metric.errors_by_picture(self._metric.best_score())

    def curves(self) -> dict[str, np.ndarray]:
        """See `AveragePrecision.curves`."""
        return self._metric.curves()
