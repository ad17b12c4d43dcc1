"""What attention layers let through, and where a place looks: read from the layers of a model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.cams import as_tensor
from kzoo.explain.replay import Replay
from kzoo.layers import CBAM, ChannelAttention, MultiHeadSelfAttention, NonLocal, SpatialAttention
from kzoo.layers.checks import is_integer

Read = Callable[[Any, list, dict[str, Any], tuple[float, float]], dict[str, Any]]


def attention_maps(
    model: keras.Model, images: np.ndarray, query: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """What the attention layers of a model do with images.

    | layer | array |
    | --- | --- |
    | `ChannelAttention`, `SqueezeExcite` | gates (n, channels) |
    | `SpatialAttention` | gates (n, height, width) |
    | `CBAM` | both, as "path/channel" and "path/spatial" |
    | `MultiHeadSelfAttention` | weights (n, heads, height, width) of the query's place |
    | `NonLocal` | weights (n, 1, height, width) of the query's place; half as many rows and columns if it pools |

    Weights of self-attention on tokens are those of a square of them. Other attention layers are left out.

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
    nodes = [node for node in replay.nodes if isinstance(node.operation, tuple(READERS))]
    if not nodes:
        known = ", ".join(kind.__name__ for kind in READERS)
        raise InvalidValueError(f"{model.name} has no attention layer of those that are read: {known}")
    share = ((place[0] + 0.5) / height, (place[1] + 0.5) / width)
    found = {}
    for node, (args, kwargs) in zip(nodes, replay.arguments(tensor, nodes), strict=True):
        read = next(read for kind, read in READERS.items() if isinstance(node.operation, kind))
        for name, values in read(node.operation, args, kwargs, share).items():
            array = keras.ops.convert_to_numpy(values).astype("float32")
            found[f"{node.path}/{name}" if name else node.path] = array
    return found


def _channel(layer: ChannelAttention, args: list, kwargs: dict, share: tuple[float, float]) -> dict[str, Any]:
    return {"": layer.gates(_first(args, kwargs), training=False)[:, 0, 0]}


def _spatial(layer: SpatialAttention, args: list, kwargs: dict, share: tuple[float, float]) -> dict[str, Any]:
    return {"": layer.gates(_first(args, kwargs), training=False)[..., 0]}


def _both(layer: CBAM, args: list, kwargs: dict, share: tuple[float, float]) -> dict[str, Any]:
    x = _first(args, kwargs)
    for_channel = layer.spatial(x, training=False) if layer.order == "spatial_channel" else x
    for_spatial = layer.channel(x, training=False) if layer.order == "channel_spatial" else x
    return {
        "channel": layer.channel.gates(for_channel, training=False)[:, 0, 0],
        "spatial": layer.spatial.gates(for_spatial, training=False)[..., 0],
    }


def _self_attention(
    layer: MultiHeadSelfAttention, args: list, kwargs: dict, share: tuple[float, float]
) -> dict[str, Any]:
    x = _first(args, kwargs)
    _, weights = layer(*args, **kwargs | {"return_attention_weights": True})  # (n, heads, tokens, tokens)
    if len(x.shape) == 4:
        height, width = x.shape[1:3]
    else:
        height = width = int(x.shape[1] ** 0.5)
        if height * width != x.shape[1]:
            raise InvalidValueError(f"{layer.name} attends to {x.shape[1]} tokens, which are no square of places")
    row = weights[:, :, _place(share, height, width)]
    return {"": keras.ops.reshape(row, (*row.shape[:2], height, width))}


def _non_local(layer: NonLocal, args: list, kwargs: dict, share: tuple[float, float]) -> dict[str, Any]:
    x = _first(args, kwargs)
    height, width = x.shape[1:3]
    row = layer.attention_weights(x)[:, _place(share, height, width)]  # (n, keys)
    pooled = 2 if layer.subsample else 1
    return {"": keras.ops.reshape(row, (row.shape[0], 1, height // pooled, width // pooled))}


def _first(args: list, kwargs: dict) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _place(share: tuple[float, float], height: int, width: int) -> int:
    return int(share[0] * height) * width + int(share[1] * width)


READERS: dict[type, Read] = {
    CBAM: _both,
    ChannelAttention: _channel,
    SpatialAttention: _spatial,
    MultiHeadSelfAttention: _self_attention,
    NonLocal: _non_local,
}
