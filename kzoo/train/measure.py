"""Measuring finished models side by side: accuracy, loss, size, latency, difference."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

LATENCY_ROUNDS = 40


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One model on the test images.

    Attributes:
        file: that holds it.
        accuracy: top-1, between 0 and 1.
        loss: mean cross-entropy.
        size_bytes: of the file.
        latency_ms: median of one image, all models timed in turn in the same run.
        max_difference: largest absolute difference of a class probability to the Keras model.
    """

    file: str
    accuracy: float
    loss: float
    size_bytes: int
    latency_ms: float
    max_difference: float


def score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 accuracy and mean cross-entropy of class probabilities (n, classes)."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float((probabilities.argmax(axis=1) == labels).mean()), float(-np.log(np.maximum(picked, 1e-7)).mean())


def keras_runner(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """One compiled forward pass, without the overhead of `predict`."""
    import tensorflow as tf

    forward = tf.function(lambda images: model(images, training=False))
    return lambda images: forward(tf.constant(images)).numpy()


def measure(
    models: Mapping[str, tuple[Path, Callable, Callable]], images: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, Measurement], np.ndarray]:
    """Measures models against the first of them.

    Args:
        models: name -> (file, predict for many images, run for one batch of one image).
        images: (n, height, width, 3) pixels.
        labels: (n,).

    Returns:
        The measurements, and the probabilities of the first model.
    """
    outputs = {name: np.asarray(predict(images), "float32") for name, (_, predict, _) in models.items()}
    reference = next(iter(outputs.values()))
    one = np.asarray(images[:1], "float32")
    times = {name: [] for name in models}
    for _, _, run in models.values():
        for _ in range(3):
            run(one)
    for _ in range(LATENCY_ROUNDS):
        for name, (_, _, run) in models.items():
            start = time.perf_counter()
            run(one)
            times[name].append(time.perf_counter() - start)
    measurements = {}
    for name, (file, _, _) in models.items():
        accuracy, loss = score(outputs[name], labels)
        measurements[name] = Measurement(
            file=file.name,
            accuracy=accuracy,
            loss=loss,
            size_bytes=file.stat().st_size,
            latency_ms=statistics.median(times[name]) * 1e3,
            max_difference=float(np.abs(outputs[name] - reference).max()),
        )
    return measurements, reference
