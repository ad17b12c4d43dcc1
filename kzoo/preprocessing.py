"""What a model does to its images before the first weights: asked of the whole graph, wherever the layers stand."""

from dataclasses import dataclass

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.flatten import FlatGraph, Node

NAME = "preprocessing"  # of the layer that tells by its name that the model eats pixels, whatever it computes
LEAST_PIXELS = 10  # numbers of 0 to 1, or of -1 to 1, are no further from zero


@dataclass(frozen=True)
class Normalisation:
    """`(x - mean) / std`, which a model computes of its images.

    Attributes:
        mean: of each channel, or of all.
        std: likewise.
        folded: whether it has been folded into the first weights, so that nobody can read mean and deviation.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    folded: bool = False

    @property
    def of_pixels(self) -> bool:
        """Whether it is meant for pixels of 0 to 255: 0 to 1 would all but vanish in it."""
        return self.folded or max(map(abs, (*self.mean, *self.std))) >= LEAST_PIXELS


def normalisation(model: keras.Model) -> Normalisation | None:
    """How a model normalises its images, None where it does not, or where nobody can tell as it is subclassed.

    Rescaling and Normalization layers, and arithmetic with constants, count if nothing with weights stands between
    the image and them.

    Example:
        >>> normalisation(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255)])).std
        (255.0,)
    """
    try:
        nodes = list(FlatGraph(model).nodes())
    except InvalidValueError:
        return None
    found, longest = None, 0
    for node in nodes:
        if isinstance(node.operation, keras.layers.Identity) and node.operation.name == NAME:
            return Normalisation(folded=True)
        steps = _steps_from_image(node)
        if steps and len(steps) > longest:
            found, longest = _compose(steps), len(steps)
    return found


def input_in_words(model: keras.Model) -> dict[str, str]:
    """What to feed a model (`"values"`), and what it does to that (`"preprocessing"`), for people."""
    found = normalisation(model)
    if found is None:
        return {"values": "as in training: the file has no preprocessing"}
    return {
        "values": "pixels of 0 to 255" if found.of_pixels else "as in training",
        "preprocessing": "folded into the first weights"
        if found.folded
        else f"(x - {_numbers(found.mean)}) / {_numbers(found.std)} is computed by the file",
    }


def _steps_from_image(node: Node) -> list[tuple]:
    """Scales and offsets between the image and a call that scales or shifts; none for any other call."""
    steps = []
    own = _affine(node)
    while own is not None and node.call is not None:
        steps.append(own)
        node = node.sources[0]
        while node.call is not None and (own := _affine(node)) is None:
            if getattr(node.operation, "weights", []) or len(node.sources) != 1:
                return []
            node = node.sources[0]
    return steps[::-1]


def _affine(node: Node) -> tuple | None:
    """Scale and offset of a call, None where it does something else."""
    operation = node.operation
    if isinstance(operation, keras.layers.Rescaling):
        return operation.scale, operation.offset
    if isinstance(operation, keras.layers.Normalization):
        mean, variance = (keras.ops.convert_to_numpy(each) for each in (operation.mean, operation.variance))
        std = np.maximum(np.sqrt(variance), keras.config.epsilon())
        return (std, mean) if operation.invert else (1 / std, -mean / std)
    if node.call is None or isinstance(operation, keras.layers.Layer) or len(node.sources) != 1:
        return None
    return _arithmetic(type(operation).__name__, node.call.args)


def _arithmetic(kind: str, args: tuple) -> tuple | None:
    """Scale and offset of `x + c`, `x - c`, `c - x`, `x * c` and `x / c`."""
    if kind not in ("Add", "Subtract", "Multiply", "TrueDivide") or len(args) != 2:
        return None
    first, second = (keras.saving.deserialize_keras_object(arg) for arg in args)
    swapped = isinstance(second, keras.KerasTensor)
    constant = np.asarray(keras.ops.convert_to_numpy(first if swapped else second), "float64")
    if kind == "TrueDivide":
        return None if swapped else (1 / constant, 0.0)
    if kind == "Subtract":
        return (-1.0, constant) if swapped else (1.0, -constant)
    return (1.0, constant) if kind == "Add" else (constant, 0.0)


def _compose(steps: list[tuple]) -> Normalisation:
    """Scales and offsets one after the other, as a mean and a deviation."""
    scale, offset = np.float64(1), np.float64(0)
    for next_scale, next_offset in steps:
        scale, offset = scale * np.asarray(next_scale), offset * np.asarray(next_scale) + np.asarray(next_offset)
    scale, offset = np.broadcast_arrays(np.ravel(scale).astype("float64"), np.ravel(offset).astype("float64"))
    return Normalisation(tuple((-offset / scale).tolist()), tuple((1 / scale).tolist()))


def _numbers(values: tuple[float, ...]) -> str:
    """Numbers for people, one where all are the same."""
    told = [f"{value + 0.0:.4g}" for value in values]  # no -0
    return told[0] if len(set(told)) == 1 else f"[{', '.join(told)}]"
