"""How far the outputs of a file are from Keras', and from the truth."""

from collections.abc import Callable

import keras
import numpy as np

BATCH_SIZE = 32


def errors(outputs: np.ndarray, expected: np.ndarray) -> dict[str, float]:
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


def agreement(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Share of the answers (images; pixels in segmentation) with the same most probable class."""
    return float(np.mean(decide(outputs) == decide(expected)))


def decide(outputs: np.ndarray) -> np.ndarray:
    """The most probable class along the last axis; of one probability the second of two classes from one half on."""
    return (outputs[..., 0] >= 0.5).astype("int64") if outputs.shape[-1] == 1 else outputs.argmax(axis=-1)


def scores(predict: Callable, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of a classifier, mean IoU and pixel accuracy of a model for segmentation.

    Args:
        predict: images -> (n, classes) or (n, height, width, classes).
        images: (n, height, width, channels).
        labels: class indices (n,) or (n, height, width); what is no class, such as 255, does not count.
    """
    found = []
    for i in range(0, len(images), BATCH_SIZE):
        outputs = predict(np.asarray(images[i : i + BATCH_SIZE], "float32"))
        classes = max(2, outputs.shape[-1])
        found.append(decide(outputs))
    found = np.concatenate(found)
    counted = (labels >= 0) & (labels < classes)
    accuracy = float(np.mean(found[counted] == labels[counted]))
    if found.ndim == 1:
        return {"accuracy": accuracy}
    metric = keras.metrics.MeanIoU(num_classes=classes)
    metric.update_state(labels[counted], found[counted])
    return {"mean_iou": float(metric.result()), "pixel_accuracy": accuracy}
