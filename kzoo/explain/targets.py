"""What is explained: a number for each image, made of the model's logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.boxes import Box, as_boxes, box_score
from kzoo.layers.checks import is_integer

ops = keras.ops


@dataclass(frozen=True)
class Difference:
    """One class against another: what tells a husky from a wolf is not what tells a dog from a car.

    Attributes:
        first: index of the class that positive numbers speak for.
        second: index of the class that negative ones speak for.

    Example:
        >>> kzoo.grad_cam(model, images, kzoo.explain.Difference(250, 269))
    """

    first: int
    second: int


@dataclass(frozen=True, eq=False)
class Region:
    """A class of a model for segmentation, where a mask says: the mean of its logits there.

    Attributes:
        class_index: index of the class.
        mask: booleans (height, width), or (n, height, width) with one for each image, of the size of the output;
            None: wherever the model finds the class.

    Example:
        >>> kzoo.grad_cam(fpn, images, Region(car))
    """

    class_index: int
    mask: np.ndarray | None = None


Target = int | Sequence[int] | Difference | Region | Box | Sequence[Box] | Callable[[Any], Any] | None
Score = Callable[[Any], Any]


def score_of(target: Target, logits: Any, model: str) -> Score:
    """The function from logits (n, units) or (n, height, width, units) to scores (n,).

    Args:
        target: index of a class, one for all images or one for each; a `Difference`, a `Region`, or a function from
            logits to scores (n,). None: the most probable class of each image; of maps the one of the largest area.
            Of a detector a `Box`, or one for each image.
        logits: what the model gives for the images: an array, or what `box_score` takes of a detector.
        model: name of the model, for errors.

    Raises:
        InvalidValueError: no such class, another number of them than of images, or a region that holds nothing or
            has another size.
    """
    if callable(target):
        return lambda given: _one_each(target(given), given, target)
    if as_boxes(target):
        return box_score(target, logits, model)
    if isinstance(logits, Mapping):
        raise InvalidValueError(
            f"{model} finds boxes, of which one is explained: give a kzoo.explain.Box as target, such as "
            "kzoo.explain.Box.of(kzoo.detect(model, [image])[0])[0]"
        )
    if logits.ndim not in (2, 4):
        raise InvalidValueError(
            f"{model} gives {logits.shape}; of other outputs than classes of an image or of its pixels give a "
            "function from them to a score for each image as target, and of a detector a kzoo.explain.Box"
        )
    if isinstance(target, Difference):
        weights = _one_hot(target.first, logits, model) - _one_hot(target.second, logits, model)
        return _weighted(weights, _everywhere(logits))
    mask = None
    classes: Any = probable_classes(logits) if target is None else target
    if isinstance(target, Region):
        if logits.ndim != 4:
            raise InvalidValueError(f"a Region is of a model that gives maps; {model} gives {logits.shape}")
        classes, mask = target.class_index, target.mask
    weights = _one_hot(classes, logits, model)
    if mask is None and logits.ndim == 4:
        return _weighted(weights, _found(classes, logits, model))
    return _weighted(weights, _everywhere(logits) if mask is None else _checked(mask, logits))


def _one_each(scores: Any, logits: Any, target: Callable) -> Any:
    """What a function of the user's gives, if it is a number for each image."""
    shape = getattr(scores, "shape", None)
    if shape is None or tuple(shape) != (logits.shape[0],):
        gives = f"numbers of shape {tuple(shape)}" if shape is not None else f"a {type(scores).__name__}"
        name = getattr(target, "__name__", repr(target))
        raise InvalidValueError(
            f"the target {name} gives {gives} for {logits.shape[0]} images; it must give a score for each, (n,)"
        )
    return scores


def most_probable(logits: np.ndarray) -> np.ndarray:
    """Index of the most probable class of each image (n,), or pixel (n, height, width)."""
    if logits.shape[-1] == 1:  # the logit of the second of two classes
        return (logits[..., 0] >= 0).astype("int64")
    return logits.argmax(axis=-1)


def probable_classes(logits: np.ndarray) -> np.ndarray:
    """The class of each image (n,): the most probable one, or that of the largest area."""
    found = most_probable(logits)
    if found.ndim == 1:
        return found
    return np.array([np.bincount(mask.ravel()).argmax() for mask in found])


def _one_hot(classes: Any, logits: np.ndarray, model: str) -> np.ndarray:
    """Weights (n, units) of the logits; one unit is that of the second class, and speaks against the first."""
    count, units = len(logits), logits.shape[-1]
    given = np.asarray(classes)
    known = max(2, units)
    if given.shape not in ((), (count,)) or not (is_integer(classes, 0) or np.issubdtype(given.dtype, np.integer)):
        raise InvalidValueError(
            f"target={classes!r} must be the index of a class, or one for each of the {count} images; for other "
            "targets see kzoo.explain.Difference, Region, or give a function"
        )
    if not ((given >= 0) & (given < known)).all():
        raise InvalidValueError(f"target={classes!r}: {model} has classes 0 to {known - 1}")
    given = np.broadcast_to(given, count)
    if units == 1:
        return np.where(given == 1, 1.0, -1.0)[:, None].astype("float32")
    return np.eye(units, dtype="float32")[given]


def _everywhere(logits: np.ndarray) -> np.ndarray:
    return np.ones(logits.shape[:-1], "float32")


def _found(classes: Any, logits: np.ndarray, model: str) -> np.ndarray:
    """Where each image's class is the most probable one; everywhere, in an image that has none of it."""
    found = most_probable(logits) == np.broadcast_to(np.asarray(classes), len(logits))[:, None, None]
    found[~found.any(axis=(1, 2))] = True
    return found.astype("float32")


def _checked(mask: np.ndarray, logits: np.ndarray) -> np.ndarray:
    shape, found = logits.shape[:-1], np.asarray(mask)
    if found.shape not in (shape, shape[1:]):
        raise InvalidValueError(f"the mask of the Region has shape {found.shape}; {shape[1:]} or {shape} is needed")
    found = np.broadcast_to(found.astype(bool), shape)
    if not found.any(axis=(1, 2)).all():
        raise InvalidValueError("the mask of the Region holds no pixel")
    return found.astype("float32")


def _weighted(weights: np.ndarray, region: np.ndarray) -> Score:
    """The weighted sum of the logits of each image, of maps its mean over the region."""
    if region.ndim == 1:
        return lambda logits: ops.sum(ops.multiply(_wide(logits), weights), axis=-1)
    share = region / region.sum(axis=(1, 2), keepdims=True)

    def mean(logits):
        units = ops.multiply(_wide(logits), weights[:, None, None])
        return ops.sum(ops.multiply(ops.sum(units, axis=-1), share), axis=(1, 2))

    return mean


def _wide(logits):
    """Logits in float32 where they were computed in less."""
    half = keras.backend.standardize_dtype(logits.dtype) in ("float16", "bfloat16")
    return ops.cast(logits, "float32") if half else logits
