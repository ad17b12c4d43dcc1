"""How far the outputs of a file are from Keras', and from the truth."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kzoo.detection.average_precision import FOUND, AveragePrecision
from kzoo.detection.suppression import Detections, detect, overlaps
from kzoo.edge.tensors import only
from kzoo.last_operation import BOXES
from kzoo.output import Output

BATCH_SIZE = 32
Truth = np.ndarray | Mapping[str, np.ndarray]  # labels or masks; of a detector boxes and classes


def output_errors(outputs: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Distances of outputs to those expected: fields of `ExportReport`. NaN where an output is no number."""
    outputs, expected = outputs.astype("float64"), expected.astype("float64")
    difference = np.abs(outputs - expected)
    norm = max(float(np.linalg.norm(expected)), 1e-30)
    return {
        "max_abs_error": float(difference.max()),
        "max_rel_error": float(difference.max() / max(np.abs(expected).max(), 1e-30)),
        "relative_error": float(np.linalg.norm(difference) / norm),
        "cosine": float(np.vdot(outputs, expected) / max(norm * float(np.linalg.norm(outputs)), 1e-30)),
    }


def judged(outputs: Mapping[str, np.ndarray], answer: str, output: Output) -> Any:
    """What is judged of outputs: the answer, or all of a detector's."""
    return outputs if output.detects else outputs[answer]


def agreement(
    outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], answer: str, output: Output
) -> float | None:
    """Share of the answers (images; pixels in segmentation; labels of images that have several) that are the same.

    Of a detector, of all that is found in `outputs` and in what is expected, the share that has a partner of its class
    in the other one that it overlaps by half at least.

    None where a single number answers and nobody knows from where on it means the second class, and where nothing is
    found.
    """
    if output.detects:
        pairs = list(zip(_found(outputs, (1, 1), output), _found(expected, (1, 1), output), strict=True))
        every = sum(len(each) for pair in pairs for each in pair)
        return sum(2 * _partners(*pair) for pair in pairs) / every if every else None
    if output.decides:
        return float(np.mean(output.decide(outputs[answer]) == output.decide(expected[answer])))
    return None


def scores_of_keras(
    model: keras.Model, answer: str, images: np.ndarray, truth: Truth, output: Output
) -> dict[str, float]:
    """How often a Keras model is right, as `scores`; `answer` is the name of the output that `output` is about."""
    return scores((model if output.detects else only(model, answer)).predict_on_batch, images, truth, output)


def scores(predict: Callable, images: np.ndarray, truth: Truth, output: Output) -> dict[str, float]:
    """How often a model is right.

    Args:
        predict: function from images to (n, units) or (n, height, width, units), or to a detector's outputs by name.
        images: (n, height, width, channels).
        truth: class indices (n,) or (n, height, width); what is no class, such as 255, does not count. Of a
            multi-label classifier 0 and 1, (n, classes). Of a detector `boxes` (n, most, 4), relative to the images,
            and `classes` (n, most), as in `AveragePrecision.add`.
        output: meaning of what the model gives.

    Returns:
        Accuracy of a classifier; of a multi-label one, the share of labels that are right, and of images all of whose
        labels are. Mean IoU and pixel accuracy of a model for segmentation. COCO's average precision of a detector.
    """
    starts = range(0, len(images), BATCH_SIZE)
    answers = (predict(np.asarray(images[start : start + BATCH_SIZE], "float32")) for start in starts)
    if output.detects:
        assert isinstance(truth, Mapping)
        return _average_precision(
            [each for batch in answers for each in _found(batch, images.shape[1:3], output)],
            truth[BOXES] * np.tile(images.shape[2:0:-1], 2),
            truth["classes"],
            output,
        )
    labels, found = np.asarray(truth), np.concatenate([output.decide(batch) for batch in answers])
    if output.multi_label:
        right = found == labels
        return {"label_accuracy": float(right.mean()), "accuracy": float(right.all(axis=-1).mean())}
    counted = (labels >= 0) & (labels < output.num_classes)
    accuracy = float(np.mean(found[counted] == labels[counted]))
    if output.task == "classification":
        return {"accuracy": accuracy}
    metric = keras.metrics.MeanIoU(num_classes=output.num_classes)
    metric.update_state(labels[counted], found[counted])
    return {"mean_iou": float(metric.result()), "pixel_accuracy": accuracy}


def _found(outputs: Mapping[str, np.ndarray], size: tuple[int, ...], output: Output) -> list[Detections]:
    """What a detector finds in images of a size (height, width), in its unit."""
    assert output.suppression is not None
    height, width = size
    return detect(dict(outputs), [(height, width)] * len(outputs[BOXES]), output.suppression)


def _partners(found: Detections, expected: Detections) -> int:
    """How many detections of an image have one of the other side for themselves; the surest choose first."""
    free = np.ones(len(expected), bool)
    for box, kind in zip(found.boxes, found.classes, strict=True):
        shares = np.where(free & (expected.classes == kind), overlaps(box, expected.boxes), 0)
        if len(shares) and shares.max() >= FOUND:
            free[shares.argmax()] = False
    return int((~free).sum())


def _average_precision(
    found: list[Detections], boxes: np.ndarray, classes: np.ndarray, output: Output
) -> dict[str, float]:
    """COCO's two best-known numbers, in which the unit of boxes does not count."""
    metric = AveragePrecision(output.names)
    for each, its_boxes, its_classes in zip(found, boxes, classes, strict=True):
        metric.add(each, its_boxes, its_classes)
    told = metric.scores()
    return {name: told[name] for name in ("ap50", "ap")}
