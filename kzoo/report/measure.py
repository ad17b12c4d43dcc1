"""Measuring finished models side by side: accuracy, loss, size, latency, difference."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from kzoo.errors import InvalidValueError

LATENCY_ROUNDS = 40


class Scorer(Protocol):
    """Collects the predictions of one model."""

    def add(self, outputs: Any, examples: Mapping[str, np.ndarray]) -> None:
        """Takes what a model gave for a batch of examples, and the batch."""

    def scores(self) -> dict[str, Any]:
        """Of all that was added."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One model on the test images.

    Attributes:
        file: that holds it.
        scores: of its task.
        size_bytes: of the file.
        latency_ms: median of one image, all models timed in turn in the same run.
        max_difference: largest absolute difference of a number of its outputs to the first model's.
    """

    file: str
    scores: dict[str, Any]
    size_bytes: int
    latency_ms: float
    max_difference: float

    def to_json(self) -> dict:
        """One flat row of a report."""
        row = dataclasses.asdict(self)
        return {"file": row.pop("file"), **row.pop("scores"), **row}


def score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 accuracy and mean cross-entropy of class probabilities (n, classes)."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float((probabilities.argmax(axis=1) == labels).mean()), float(-np.log(np.maximum(picked, 1e-7)).mean())


def keras_runner(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """One compiled forward pass, without the overhead of `predict` where Keras computes with TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return lambda images: keras.tree.map_structure(np.asarray, model.predict_on_batch(images))
    import tensorflow as tf

    forward = tf.function(lambda images: model(images, training=False))
    return lambda images: keras.tree.map_structure(np.asarray, forward(tf.constant(images)))


def measure(
    models: Mapping[str, tuple[Path, Callable, Callable]],
    batches: Iterable[Mapping[str, np.ndarray]],
    make_scorer: Callable[[], Scorer],
) -> tuple[dict[str, Measurement], Scorer]:
    """Measures models against the first of them, batch by batch.

    Args:
        models: name -> (file, predict for many images, run for one batch of one image).
        batches: batches of examples, the pixels of which are `image` (n, height, width, 3).
        make_scorer: gives an empty scorer.

    Returns:
        The measurements, and the scorer of the first model.
    """
    scorers = {name: make_scorer() for name in models}
    differences = dict.fromkeys(models, 0.0)
    one = None
    for examples in batches:
        images = examples["image"]
        one = np.asarray(images[:1], "float32") if one is None else one
        reference = None
        for name, (_, predict, _) in models.items():
            outputs = keras.tree.map_structure(lambda output: np.asarray(output, "float32"), predict(images))
            reference = outputs if reference is None else reference
            scorers[name].add(outputs, examples)
            differences[name] = max(differences[name], _difference(outputs, reference))
    if one is None:
        raise InvalidValueError("no images to measure on; give one batch or more")
    times = _latencies({name: run for name, (_, _, run) in models.items()}, one)
    measurements = {
        name: Measurement(
            file=file.name,
            scores=scorers[name].scores(),
            size_bytes=file.stat().st_size,
            latency_ms=times[name],
            max_difference=differences[name],
        )
        for name, (file, _, _) in models.items()
    }
    return measurements, next(iter(scorers.values()))


def _difference(outputs: Any, reference: Any) -> float:
    """The largest absolute difference, over all outputs of a model that has several."""
    pairs = keras.tree.map_structure(lambda mine, theirs: float(np.abs(mine - theirs).max()), outputs, reference)
    return max(keras.tree.flatten(pairs))


def _latencies(runs: Mapping[str, Callable], one: np.ndarray) -> dict[str, float]:
    """Median milliseconds of one image, all timed in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run(one)
    for _ in range(LATENCY_ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run(one)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) * 1e3 for name, taken in times.items()}
