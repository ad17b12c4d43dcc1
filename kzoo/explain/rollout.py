"""Attention rollout: where what a model answers from comes from, through all layers that attend over places."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.explain.cams import answer_of, as_tensor, logits_of
from kzoo.explain.gradients import score_and_gradient
from kzoo.explain.handing import handed, places
from kzoo.explain.layers import explained_place, over_image
from kzoo.explain.places import PlaceWeights, attending, read_weights, sides
from kzoo.explain.replay import Compute, Place, Replay
from kzoo.explain.targets import Score, Target, score_of
from kzoo.flatten import Node


def attention_rollout(
    model: keras.Model, images: np.ndarray, target: Target = None, gradients: bool = False
) -> np.ndarray:
    """Where the last feature map comes from, by the weights of all attention layers.

    Every place of the last feature map (`kzoo.explain.explained_layer`) begins with the same relevance, as global
    average pooling reads them, 1 over their number. From there down it is handed on, image by image: an attention
    layer hands the relevance r of its output down as `rᵀA`, A the mean of its weights over the heads; a sum hands half
    to each of two summands. So a block `x + attention(x)` makes `½ r + ½ rᵀA` of it (Abnar and Zuidema 2020,
    arXiv:2005.00928, section 3), and no matrix of all places by all places is built but those that layers have. With
    gradients A is the mean over the heads of the positive part of weights times the gradient of the target's score in
    them (Chefer et al. 2021, arXiv:2103.15679, equations 5 and 6; halves here, where the paper has `r + rᵀA`, which is
    the same but for a factor), and what came down by sums alone, past all attention, is taken off: it is the same for
    every target, and the paper, which reads the row of a class token, leaves that token's own share out.

    What the papers do not have, since their maps keep their size: patch merging, convolutions and pooling, with
    strides or without, hand relevance in equal shares to the places that they read, whatever their weights are;
    enlarging hands it to the nearest place; all other layers keep it where it is. Relevance that falls on padding is
    lost. The map is that of the place from which all attention sets out: in Swin and NAT the patches.

    Args:
        model: functional or Sequential model of one image with attention over places; models may stand inside it.
        images: (n, height, width, channels), as the model takes them.
        target: what is explained, as in `kzoo.grad_cam`; with gradients alone.
        gradients: whether weights count by what they do for the target.

    Returns:
        (n, height, width), not negative. Without gradients it sums to 1 but for what padding took. (A non-local block
        of dot products has weights that are no shares; they are taken as they are.)

    Raises:
        InvalidValueError: a model without attention over places, a target without gradients, a layer on the way of
            which it is not known what it reads, and what `kzoo.grad_cam` raises.

    Example:
        >>> attention_rollout(kzoo.build("swin_tiny"), images, target=386, gradients=True).shape
        (8, 56, 56)
    """
    if target is not None and not gradients:
        raise InvalidValueError("the weights alone ask no target; leave it out, or give gradients=True")
    replay = Replay(model)
    start = explained_place(replay, target)
    nodes = attending(replay, [start[0]])
    tensor = as_tensor(model, images)
    found = {
        node: read_weights(node.operation, *arguments)
        for node, arguments in zip(nodes, replay.arguments(tensor, nodes), strict=True)
    }
    shapes = _shapes(replay, tensor)
    relevance = np.full((len(tensor), places(shapes[start])), 1 / places(shapes[start]))
    if not gradients:
        means = {node: weights.means() for node, weights in found.items()}
        return _rolled(replay, found, means, {start: relevance}, shapes).astype("float32")
    slopes = weight_gradients(replay, tensor, found, score_of(target, logits_of(replay, tensor), model.name))
    means = {node: weights.means(slopes[node]) for node, weights in found.items()}
    none = {node: np.zeros_like(mean) for node, mean in means.items()}
    rolled, past = (_rolled(replay, found, each, {start: relevance}, shapes) for each in (means, none))
    return np.maximum(rolled - past, 0).astype("float32")


def weight_gradients(
    replay: Replay, images: Any, found: dict[Node, PlaceWeights], score: Score
) -> dict[Node, np.ndarray]:
    """The gradients of scores in the weights of calls, each (n · windows, heads, N, M).

    What is added to the weights of all calls, zeros, is one tensor, so that one gradient has them all.
    """
    shapes = {node: weights.tensor.shape for node, weights in found.items()}
    sizes = [int(np.prod(shape)) // len(images) for shape in shapes.values()]
    ends = np.cumsum(sizes)

    def scored(added):
        instead = {
            node: _with(node, ops.reshape(added[:, end - size : end], shape))
            for (node, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
        }
        return score(answer_of(replay.logits(images, instead=instead)))

    _, slopes = score_and_gradient(scored, np.zeros((len(images), int(ends[-1])), "float32"))
    return {
        node: slopes[:, end - size : end].reshape(shape)
        for (node, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
    }


def _with(node: Node, added: Any) -> Compute:
    """The call with something added to its weights."""

    def compute(args: list, kwargs: dict[str, Any]):
        weights = read_weights(node.operation, args, kwargs)
        return weights.mix(weights.tensor + ops.cast(added, weights.tensor.dtype))

    return compute


def _rolled(
    replay: Replay,
    found: dict[Node, PlaceWeights],
    means: dict[Node, np.ndarray],
    relevance: dict[Place, np.ndarray],
    shapes: dict[Place, tuple[int, ...]],
) -> np.ndarray:
    """Relevance handed down, until all attention lies above and it has come together on one map."""
    left = set(found)
    for node in reversed(replay.nodes):
        if not left and len(relevance) == 1:
            ((place, values),) = relevance.items()
            if (size := sides(shapes[place])) is not None:
                return over_image(values.reshape(-1, *size), replay, place)
        for place in [place for place in relevance if place[0] is node]:
            values = relevance.pop(place)
            if node in found:
                down = {0: found[node].rolled(values, means[node])}
            else:
                down = handed(node, values, shapes[place], [shapes[source] for source in node.tensors])
            for index, part in down.items():
                source = node.tensors[index]
                relevance[source] = relevance.get(source, 0) + part
        left.discard(node)
    raise AssertionError("the input of a model is a map, where all relevance comes together")


def _shapes(replay: Replay, images: Any) -> dict[Place, tuple[int, ...]]:
    everywhere = list(dict.fromkeys(place for node in replay.nodes for place in [(node, 0), *node.tensors]))
    return {
        place: tuple(tensor.shape) for place, tensor in zip(everywhere, replay.run(images, everywhere), strict=True)
    }
