"""What happens inside a model: the feature maps of layers at any depth, and which layers do not take part."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.cams import as_tensor, behind, logits_of
from kzoo.explain.gradients import score_and_gradient
from kzoo.explain.replay import Place, Replay
from kzoo.explain.targets import Target, score_of
from kzoo.flatten import Node

BATCH = 32
RECTIFIERS = ("relu", "relu6")
GATES = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # activation -> its two ends
NEAR_END = 0.01  # of the way from one end of a gate to the other
MANY = 0.5  # share of dead channels or saturated values from which a layer stands out
FAR = 100.0  # factor between a layer's gradient and the median of all, from which it stands out


class LayerStatistics(NamedTuple):
    """What `layer_statistics` tells of a layer; None for what it has not.

    Attributes:
        dead: of a ReLU: share of the channels that are zero everywhere in all images.
        saturated: of a sigmoid or tanh: share of the values within 1% of an end.
        gradient_norm: of a layer with a kernel: Euclidean norm of the score's gradient in its output, the mean over
            the images.
        stands_out: why the layer stands out, in words; empty if it does not.
    """

    dead: float | None
    saturated: float | None
    gradient_norm: float | None
    stands_out: str


def activations(model: keras.Model, images: np.ndarray, layers: str | Sequence[str]) -> dict[str, np.ndarray]:
    """What layers give for images.

    Args:
        model: functional or Sequential model of one image; models may stand inside it.
        images: (n, height, width, channels), as the model takes them.
        layers: name of a layer, or several; in models inside a path, "backbone/p5". Of a layer that is called more
            than once it is the last call.

    Returns:
        Name as given -> array (n, ...) in the order given, computed in inference.

    Raises:
        InvalidValueError: no layers, a subclassed model, or images of another shape.
        UnknownNameError: no such layer.

    Example:
        >>> {name: each.shape for name, each in kzoo.activations(model, images, ["stem_conv", "p5"]).items()}
        {'stem_conv': (8, 112, 112, 64), 'p5': (8, 7, 7, 2048)}
    """
    names = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, (list, tuple)) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidValueError(f"layers={layers!r} must be the name of a layer, or several names")
    replay = Replay(model)
    places = [replay.place(name) for name in names]
    tensor = as_tensor(model, images)
    parts = [replay.run(tensor[start : start + BATCH], places) for start in range(0, len(images), BATCH)]
    return {name: np.concatenate([_array(part[i]) for part in parts]) for i, name in enumerate(names)}


def layer_statistics(model: keras.Model, images: np.ndarray, target: Target = None) -> dict[str, LayerStatistics]:
    """Dead ReLUs, saturated gates and gradients of each layer, from the input to the output.

    A layer stands out where half of its channels are dead or half of its values saturated, or where its gradient is
    zero, or 100 times smaller or larger than the median of all layers: gradients that vanish or explode. A few images
    are enough; all of them are computed at once, with all that is inside. The activation of the answer is left out,
    and so are gates that attention layers compute inside themselves: see `kzoo.attention_maps`.

    Args:
        model: functional or Sequential model of one image.
        images: (n, height, width, channels).
        target: as in `kzoo.grad_cam`; gradients are those of its score.

    Returns:
        Path -> `LayerStatistics` of every layer or operation that has some of them. Of a layer that is called more
        than once it is the last call.

    Raises:
        InvalidValueError: as `kzoo.grad_cam`.

    Example:
        >>> {path: each.stands_out for path, each in layer_statistics(model, images).items() if each.stands_out}
        {'stage4_block2_relu': '61% of its channels are zero in all images'}
    """
    replay, tensor = Replay(model), as_tensor(model, images)
    answers = {node for node, _ in replay.outputs}
    nodes = {
        node.path: node
        for node in replay.nodes
        if (node not in answers and _activation(node) is not None) or _has_kernel(node)
    }
    outputs = dict(zip(nodes, replay.run(tensor, [(node, 0) for node in nodes.values()]), strict=True))
    score = score_of(target, logits_of(replay, tensor), model.name)
    norms = {
        path: _gradient_norm(replay, tensor, (node, 0), outputs[path], score)
        for path, node in nodes.items()
        if _has_kernel(node) and replay.leads_to_outputs((node, 0))
    }
    middle = float(np.median(list(norms.values()))) if norms else 0.0
    found = {}
    for path, node in nodes.items():
        values, activation = _array(outputs[path]), None if node in answers else _activation(node)
        dead = _dead(values) if activation in RECTIFIERS else None
        saturated = _saturated(values, *GATES[activation]) if activation in GATES else None
        norm = norms.get(path)
        found[path] = LayerStatistics(dead, saturated, norm, _in_words(dead, saturated, norm, middle))
    return found


def _activation(node: Node) -> str | None:
    """Name of the activation that a call ends in, of those that can die or saturate."""
    operation: Any = node.operation
    if getattr(operation, "negative_slope", 0):
        return None
    function = getattr(operation, "activation", None)
    name = getattr(function, "__name__", "") if callable(function) else type(operation).__name__.lower()
    name = {"hardsigmoid": "hard_sigmoid"}.get(name, name)
    return name if name in RECTIFIERS or name in GATES else None


def _has_kernel(node: Node) -> bool:
    return getattr(node.operation, "kernel", None) is not None


def _gradient_norm(replay: Replay, images: Any, place: Place, output: Any, score) -> float:
    _, gradient = score_and_gradient(behind(replay, images, place, score), output)
    return float(np.sqrt((gradient.reshape(len(gradient), -1) ** 2).sum(axis=1)).mean())


def _dead(values: np.ndarray) -> float:
    return float((values.reshape(-1, values.shape[-1]) == 0).all(axis=0).mean())


def _saturated(values: np.ndarray, low: float, high: float) -> float:
    near = NEAR_END * (high - low)
    return float(((values < low + near) | (values > high - near)).mean())


def _in_words(dead: float | None, saturated: float | None, norm: float | None, middle: float) -> str:
    told = []
    if dead is not None and dead >= MANY:
        told.append(f"{dead:.0%} of its channels are zero in all images")
    if saturated is not None and saturated >= MANY:
        told.append(f"{saturated:.0%} of its values are at an end of the activation")
    if norm is not None and (norm == 0 or norm * FAR < middle):
        told.append(f"its gradient of {norm:.1e} vanishes beside the median of {middle:.1e}")
    if norm is not None and middle > 0 and norm > middle * FAR:
        told.append(f"its gradient of {norm:.1e} is far above the median of {middle:.1e}")
    return "; ".join(told)


def _array(tensor: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor).astype("float32")
