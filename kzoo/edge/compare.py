"""How far the outputs of a file are from Keras', and from the truth."""

from collections.abc import Callable

import keras
import numpy as np

from kzoo.output import Output

BATCH_SIZE = 32


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


def agreement(outputs: np.ndarray, expected: np.ndarray, output: Output) -> float | None:
    """Share of the answers (images; pixels in segmentation; labels of images that have several) that are the same.

    None where a single number answers and nobody knows from where on it means the second class.
    """
    if output.decides:
        return float(np.mean(output.decide(outputs) == output.decide(expected)))
    return None


def scores(predict: Callable, images: np.ndarray, labels: np.ndarray, output: Output) -> dict[str, float]:
    """How often a model is right.

    Args:
        predict: function from images to (n, units) or (n, height, width, units).
        images: (n, height, width, channels).
        labels: class indices (n,) or (n, height, width); what is no class, such as 255, does not count. Of a
            multi-label classifier 0 and 1, (n, classes).
        output: meaning of what the model gives.

    Returns:
        Accuracy of a classifier; of a multi-label one, the share of labels that are right, and of images all of whose
        labels are. Mean IoU and pixel accuracy of a model for segmentation.
    """
    starts = range(0, len(images), BATCH_SIZE)
    batches = (np.asarray(images[start : start + BATCH_SIZE], "float32") for start in starts)
    found = np.concatenate([output.decide(predict(batch)) for batch in batches])
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
