"""What a model does to its images before the first weights: asked of the whole graph, wherever the layers stand."""

from dataclasses import dataclass

import keras
import numpy as np

from kzoo.arithmetic import operation_scale_and_offset
from kzoo.errors import InvalidValueError
from kzoo.flatten import FlatGraph, Node

PIXELS = "pixels of 0 to 255"  # as `input_in_words` says it
NAME = "preprocessing"  # of the layer that tells by its name that the model eats pixels, whatever it computes
LEAST_PIXELS = 10  # numbers of 0 to 1, or of -1 to 1, are no further from zero


@dataclass(frozen=True)
class Normalisation:
    """`(x - mean) / std`, which a model computes of its images.

    Attributes:
        mean: mean of each channel that it reads, in the order of the image's, or of all. Empty where no one number for
            each channel tells what the model computes, as where it subtracts another value in each place.
        std: standard deviation, likewise.
        folded: whether it has been folded into the first weights, so that nobody can read mean and deviation.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    folded: bool = False

    @property
    def of_pixels(self) -> bool:
        """Whether it is meant for pixels of 0 to 255: 0 to 1 would all but vanish in it."""
        return self.folded or max(map(abs, (*self.mean, *self.std)), default=0) >= LEAST_PIXELS


def normalisation(model: keras.Model) -> Normalisation | None:
    """How a model normalises its images, None where it does not, or where nobody can tell as it is subclassed.

    Rescaling and Normalization layers, and arithmetic with constants, count if nothing with weights stands between
    the image and them. Channels may be reordered before, as in `x[..., ::-1]` or a stack of `x[..., 2]`, `x[..., 1]`
    and `x[..., 0]`.

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
        steps, channels = _steps_from_image(node)
        if len(steps) > longest:
            found, longest = _compose(steps, channels), len(steps)
    return found


def input_in_words(model: keras.Model) -> dict[str, str]:
    """What to feed a model (`"values"`), and what it does to that (`"preprocessing"`), for people."""
    found = normalisation(model)
    if found is None:
        return {"values": "as in training: the file has no preprocessing"}
    if found.folded:
        told = "folded into the first weights"
    elif found.mean:
        told = f"(x - {_numbers(found.mean)}) / {_numbers(found.std)} is computed by the file"
    else:
        told = "computed by the file, with more than one number for each channel"
    return {"values": PIXELS if found.of_pixels else "as in training", "preprocessing": told}


@dataclass(frozen=True)
class _Picked:
    """Some channels of a tensor in some order: all that a call, or several calls side by side, take of it."""

    source: tuple[Node, int]
    channels: list[int]


def _steps_from_image(node: Node) -> tuple[list[tuple | _Picked], int | None]:
    """What stands between the image and a call that scales or shifts, and the number of channels of the image.

    Each step is a scale and an offset, or a pick of channels. There is none for any other call.
    """
    steps, tensor = [], 0
    if _affine(node) is None:
        return [], None
    while node.call is not None:
        step = _affine(node) or _picked(node, tensor)
        if step is not None:
            steps.append(step)
        elif getattr(node.operation, "weights", []) or len(node.sources) != 1:
            return [], None
        node, tensor = step.source if isinstance(step, _Picked) else node.tensors[0]
    return steps[::-1], node.operation.output.shape[-1]


def _affine(node: Node) -> tuple | None:
    """Scale and offset of a call, None where it does something else."""
    operation = node.operation
    if isinstance(operation, keras.layers.Rescaling):
        return operation.scale, operation.offset
    if isinstance(operation, keras.layers.Normalization):
        mean, variance = (keras.ops.convert_to_numpy(each) for each in (operation.mean, operation.variance))
        std = np.maximum(np.sqrt(variance), keras.config.epsilon())
        return (std, mean) if operation.invert else (1 / std, -mean / std)
    if node.call is None or len(node.sources) != 1:
        return None
    return operation_scale_and_offset(operation, node.call.args)


def _picked(node: Node, tensor: int) -> _Picked | None:
    """Which channels of what it reads a call gives as its output `tensor`; None where it does anything else."""
    if node.call is None or not node.call.sources:
        return None
    kind, shape = type(node.operation).__name__, node.call.input_shapes[0]
    if kind in ("Stack", "Concatenate"):
        return _side_by_side(node, len(shape) + (kind == "Stack"))
    if len(node.sources) != 1 or not shape or shape[-1] is None:
        return None
    channels, axis = np.arange(shape[-1]), getattr(node.operation, "axis", None)
    if kind == "GetItem":
        key = keras.saving.deserialize_keras_object(node.call.args[1])
        key = tuple(key) if isinstance(key, (tuple, list)) else (key,)
        if None in key or key[-1] is ... or (... not in key and len(key) < len(shape)):
            return None  # the last axis is another, or whole
        found = channels[key[-1]]
    elif axis not in (-1, len(shape) - 1):
        return None
    elif kind == "Flip":
        found = channels[::-1]
    elif kind == "Take":
        indices = keras.saving.deserialize_keras_object(node.call.args[1])
        if isinstance(indices, keras.KerasTensor):
            return None  # it looks up what the image says
        found = channels[np.asarray(indices)]
    elif kind in ("Split", "Unstack"):
        found = np.split(channels, node.operation.indices_or_sections)[tensor] if kind == "Split" else tensor
    else:
        return None
    return _Picked(node.tensors[0], np.ravel(found).tolist())


def _side_by_side(node: Node, rank: int) -> _Picked | None:
    """The channels that a call puts one beside the other, if they are those of one tensor of this rank."""
    if node.operation.axis not in (-1, rank - 1):
        return None
    parts = [part for source in node.tensors if (part := _picked(*source)) is not None]
    if len(parts) < len(node.tensors) or len({part.source for part in parts}) != 1:
        return None
    if any(source.call is None or len(source.call.input_shapes[0]) != rank for source in node.sources):
        return None
    return _Picked(parts[0].source, [channel for part in parts for channel in part.channels])


def _compose(steps: list[tuple | _Picked], count: int | None) -> Normalisation:
    """Steps one after the other on an image of `count` channels, without numbers where none tell them."""
    scale, offset, channels = np.ones(1), np.zeros(1), np.arange(count or 1)
    for step in steps:
        if isinstance(step, _Picked):
            if max(step.channels) >= len(channels):
                return Normalisation()
            scale, offset = (values[step.channels] if len(values) > 1 else values for values in (scale, offset))
            channels = channels[step.channels]
            continue
        by, plus = map(_of_channels, step)
        if by is None or plus is None or any(len(values) not in (1, len(channels)) for values in (by, plus)):
            return Normalisation()
        scale, offset = scale * by, offset * by + plus
    if not (np.isfinite(scale) & (scale != 0)).all() or not np.isfinite(offset).all():
        return Normalisation()
    scale, offset = np.broadcast_arrays(scale, offset)
    mean, std = (-offset / scale).tolist(), (1 / scale).tolist()
    if len(mean) > 1:
        told = sorted(set(zip(channels.tolist(), mean, std, strict=True)))
        if len(told) != len(set(channels.tolist())):
            return Normalisation()  # a channel is read twice, each time in another way
        _, mean, std = zip(*told, strict=True)
    return Normalisation(tuple(mean), tuple(std))


def _of_channels(values) -> np.ndarray | None:
    """A constant as one number for each channel, or for all; None where other places of a channel have others."""
    values = np.asarray(values, "float64")
    places = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    if (places == places[0]).all():
        return places[0]
    return values.ravel() if values.size == max(values.shape) else None  # channels may stand along another axis


def _numbers(values: tuple[float, ...]) -> str:
    """Numbers for people, one where all are the same."""
    told = [f"{value + 0.0:.4g}" for value in values]  # no -0
    return told[0] if len(set(told)) == 1 else f"[{', '.join(told)}]"
