"""What attention layers let through, and where a place looks: read from the layers of a model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.cams import as_tensor
from kzoo.explain.places import ATTENDING, first, read_weights
from kzoo.explain.replay import Replay
from kzoo.layers import CBAM, ChannelAttention, ResidualAttention, SpatialAttention
from kzoo.layers.checks import is_integer

Gates = Callable[[Any, list, dict[str, Any]], dict[str, Any]]


def attention_maps(
    model: keras.Model, images: np.ndarray, query: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """What the attention layers of a model do with images.

    | layer | array |
    | --- | --- |
    | `ChannelAttention`, `SqueezeExcite` | gates (n, channels) |
    | `SpatialAttention` | gates (n, height, width) |
    | `CBAM` | both, as "path/channel" and "path/spatial" |
    | `ResidualAttention` | the mask's gates (n, height, width, channels) |
    | `MultiHeadSelfAttention`, `KernelRegressionAttention` | weights (n, heads, height, width) of the query's place |
    | `WindowAttention`, `NeighborhoodAttention`, `StandAloneSelfAttention`, `AttentionStem` | the same, zero outside |
    | `NonLocal` | weights (n, 1, height, width) of the query's place; half as many rows and columns if it pools |

    They are the numbers that the layer computes with, laid out on its whole input map: zero is what the query does not
    see, behind the border of its window or neighbourhood. A window that reaches over the map's edge looks at padding
    too, so that the rest sums to less than 1. Weights of self-attention on tokens are those of a square of them. Other
    layers are left out: Keras' own attention, and kernel regression whose keys are another tensor is refused. Of a
    stem only the weights are told, not the mixture of its value matrices.

    Args:
        model: functional or Sequential model of one image; models may stand inside it.
        images: (n, height, width, channels), as the model takes them.
        query: pixel (y, x) of the images whose place looks at others; default: the middle.

    Returns:
        Path -> array, in the order of the model. Of a layer that is called more than once it is the last call.

    Raises:
        InvalidValueError: no such layer, a query outside the images, tokens that are no square, or images of another
            shape.

    Example:
        >>> maps = kzoo.attention_maps(kzoo.build("resnet50_cbam"), images, query=(100, 80))
        >>> maps["stage1_block1_attention/spatial"].shape
        (8, 56, 56)
    """
    replay, tensor = Replay(model), as_tensor(model, images)
    height, width = tensor.shape[1:3]
    place = (height // 2, width // 2) if query is None else query
    if not (
        isinstance(place, (tuple, list))
        and len(place) == 2
        and all(is_integer(at, 0) and at < side for at, side in zip(place, (height, width), strict=True))
    ):
        raise InvalidValueError(f"query={query!r} must be a pixel (y, x) of images of {height}×{width}")
    kinds = (*GATES, *ATTENDING)
    nodes = [node for node in replay.nodes if isinstance(node.operation, kinds)]
    if not nodes:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise InvalidValueError(f"{model.name} has no attention layer of those that are read: {known}")
    share = ((place[0] + 0.5) / height, (place[1] + 0.5) / width)
    found = {}
    for node, (args, kwargs) in zip(nodes, replay.arguments(tensor, nodes), strict=True):
        gates = next((read for kind, read in GATES.items() if isinstance(node.operation, kind)), None)
        if gates is None:
            found[node.path] = read_weights(node.operation, args, kwargs).of_query(share, node.path)
            continue
        for name, values in gates(node.operation, args, kwargs).items():
            array = keras.ops.convert_to_numpy(values).astype("float32")
            found[f"{node.path}/{name}" if name else node.path] = array
    return found


def _channel(layer: ChannelAttention, args: list, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"": layer.gates(first(args, kwargs), training=False)[:, 0, 0]}


def _spatial(layer: SpatialAttention, args: list, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"": layer.gates(first(args, kwargs), training=False)[..., 0]}


def _both(layer: CBAM, args: list, kwargs: dict[str, Any]) -> dict[str, Any]:
    x = first(args, kwargs)
    for_channel = layer.spatial(x, training=False) if layer.order == "spatial_channel" else x
    for_spatial = layer.channel(x, training=False) if layer.order == "channel_spatial" else x
    return {
        "channel": layer.channel.gates(for_channel, training=False)[:, 0, 0],
        "spatial": layer.spatial.gates(for_spatial, training=False)[..., 0],
    }


def _mask(layer: ResidualAttention, args: list, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"": layer.gates(args[0] if args else kwargs["x"])}


GATES: dict[type, Gates] = {
    CBAM: _both,
    ChannelAttention: _channel,
    SpatialAttention: _spatial,
    ResidualAttention: _mask,
}
