"""The last check of a rewrite that must not change what a model computes: both are run, where that is cheap."""

import itertools
import logging
import math

import keras
import numpy as np

from kzoo.computable import why_not_computed
from kzoo.errors import InvalidValueError, explain
from kzoo.graph import count_macs
from kzoo.surgery.level import Level
from kzoo.surgery.rewrite import rewrite

MOST_MACS, MOST_OPERATIONS, MOST_VALUES = 1e8, 500, 2**20  # of a model that is run; values of its inputs
TOLERANCE = 1e-3  # of the largest output; float32 rounds a hundred times finer, and a wrong fold is off by far more
HALF_TOLERANCE = 0.1  # the same in 16 bits
_BATCH = 2
_log = logging.getLogger("kzoo")


def unless_changed(level: Level, rewritten: keras.Model) -> keras.Model:
    """`rewritten`, or an unchanged copy of the original, with a warning, if its outputs are others.

    Compared on random inputs where it costs little: inputs of known size, few multiply-adds, an eager backend. Models
    that call a layer in training mode are random, or move their statistics, and are not run.
    """
    difference = _difference(level, rewritten)
    if difference is None or difference <= (HALF_TOLERANCE if _is_half(level.model) else TOLERANCE):
        return rewritten
    _log.warning(
        "%s: the rewrite would change the outputs by %.2g of the largest, so the model is left as it is; this is a "
        "mistake of kzoo, please report it with the model",
        level.model.name,
        difference,
    )
    return rewrite(level, lambda level: {})


def _difference(level: Level, rewritten: keras.Model) -> float | None:
    """Largest difference of the outputs over the largest output of an image; None where it is not computed."""
    inputs = _inputs(level)
    if inputs is None:
        return None
    try:
        expected = _run(level.model, inputs)
        found = max(map(_relative, _run(rewritten, inputs), expected), default=0.0)
        if found <= TOLERANCE:
            return found
        nearby = [x * np.float32(1 + 1e-6) if x.dtype == np.float32 else x for x in inputs]
        jumps = max(map(_relative, _run(level.model, nearby), expected), default=0.0)
    except Exception as error:  # of any layer's call
        reason = why_not_computed(error) or explain(error)
        _log.warning("%s: the rewrite is not compared with the model, which cannot run: %s", level.model.name, reason)
        return None
    return found if found > 10 * jumps else 0.0  # rounding alone changes the outputs as much


def _inputs(level: Level) -> list[np.ndarray] | None:
    """A batch for each input: its first image is standard normal, its second has values of pixels."""
    model, rng = level.model, np.random.default_rng(0)
    if keras.backend.backend() == "jax" or len(model.operations) > MOST_OPERATIONS or _trains(level):
        return None  # JAX compiles every operation for itself
    batches = []
    for tensor in model.inputs:
        shape, dtype = tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)
        if None in shape[1:] or math.prod(shape[1:]) > MOST_VALUES or dtype == "string":
            return None
        shape = (shape[0] or _BATCH, *shape[1:])
        if "float" in dtype:
            batch = rng.standard_normal(shape).astype("float32")
            batch[1:] = rng.uniform(0, 255, batch[1:].shape)
        else:
            batch = rng.integers(0, 2, shape).astype(dtype)
        batches.append(batch)
    try:
        return batches if count_macs(model) <= MOST_MACS else None
    except InvalidValueError:  # a map inside has no known size
        return None


def _trains(level: Level) -> bool:
    """Whether some call, at any depth, asks for training mode."""
    calls = itertools.chain.from_iterable(level.graph.calls.values())
    return any(call.training for call in calls) or any(_trains(inner) for _, inner in level.models())


def _is_half(model: keras.Model) -> bool:
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in model.layers)


def _run(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    outputs = model(keras.tree.pack_sequence_as(model.input, inputs), training=False)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def _relative(output: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of an image over its largest value; infinite where a finite value no longer is.

    Values that are not expected to be finite do not count.
    """
    if not np.issubdtype(expected.dtype, np.floating) or not expected.size:
        return 0.0
    output, expected = (
        np.float64(values).reshape(len(values) if values.ndim else 1, -1) for values in (output, expected)
    )
    usable = np.isfinite(expected)
    if not np.isfinite(output[usable]).all():
        return math.inf
    output, expected = np.where(usable, output, 0), np.where(usable, expected, 0)
    return float((np.abs(output - expected).max(axis=1) / np.maximum(np.abs(expected).max(axis=1), 1e-30)).max())
