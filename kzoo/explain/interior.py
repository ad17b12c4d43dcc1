"""What a page shows of the inside of a model: attention, feature maps of a few layers, layers that stand out."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.attention import attention_maps
from kzoo.explain.boxes import Box
from kzoo.explain.inside import LayerStatistics, activations, layer_statistics
from kzoo.explain.layers import explained_layer, pyramid_levels
from kzoo.explain.replay import Replay
from kzoo.layers.checks import is_integer
from kzoo.taps import tap_names

CHANNELS = 16  # of a feature map that are shown
LARGEST = 500_000  # layers with a kernel times pixels, up to which a gradient is taken for each of them


@dataclass(frozen=True, eq=False)
class Inside:
    """What happens inside a model with one picture.

    Attributes:
        attention: path of a layer -> its array, as in `kzoo.attention_maps`, of this picture; empty without such.
        query: pixel (y, x) that looks at the others.
        features: path of a layer -> (height, width, channels), the channels that answer most.
        channels: path of a layer -> numbers of those channels, and how many it has.
    """

    attention: dict[str, np.ndarray]
    query: tuple[int, int]
    features: dict[str, np.ndarray]
    channels: dict[str, tuple[list[int], int]]


def check_query(model: keras.Model, shape: tuple[int, int, int], query: tuple[int, int] | None) -> None:
    """Raises `InvalidValueError` where a pixel is asked for that cannot look at others: outside, or no attention."""
    if query is None:
        return
    if not all(is_integer(at, 0) and at < side for at, side in zip(query, shape, strict=False)):
        raise InvalidValueError(
            f"the query {query[0]} {query[1]} must be a pixel, row and column, of images of {shape[0]}×{shape[1]}"
        )
    attention_maps(model, np.zeros((1, *shape), "float32"), query)


def telling_layers(model: keras.Model) -> list[str]:
    """Paths of a few layers that are worth a look: the first convolution, the tap in the middle, the explained one.

    Of a detector these last ones are all maps of the pyramid.

    Example:
        >>> telling_layers(kzoo.build("cifar_resnet20"))
        ['stem_conv', 'p1', 'p2']
    """
    replay = Replay(model)
    first = [node.path for node in replay.nodes if isinstance(node.operation, keras.layers.Conv2D)][:1]
    taps = [tap for tap in tap_names(model) if len(model.get_layer(tap).output.shape) == 4]
    try:
        last = [place[0].path for _, place in pyramid_levels(replay)] or [explained_layer(model)]
    except InvalidValueError:  # no feature map at all
        last = []
    return list(dict.fromkeys([*first, *taps[len(taps) // 2 :][:1], *last]))


def inside_of(model: keras.Model, image: np.ndarray, query: tuple[int, int] | None = None) -> Inside:
    """Looks inside a model with one picture.

    Args:
        model: functional or Sequential model.
        image: (height, width, channels), as the model takes it.
        query: pixel (y, x) that looks at the others; default: the middle.

    Raises:
        InvalidValueError: a query, and no attention layer, or one outside the image.

    Example:
        >>> inside_of(model, image).features["stem_conv"].shape
        (32, 32, 16)
    """
    try:
        attention = {path: each[0] for path, each in attention_maps(model, image[None], query).items()}
    except InvalidValueError:
        if query is not None:
            raise
        attention = {}  # no such layers, or none that can be read
    features, channels = {}, {}
    layers = telling_layers(model)
    for path, values in activations(model, image[None], layers).items() if layers else ():
        strength = np.abs(values[0]).mean(axis=(0, 1))
        most = np.sort(np.argsort(-strength, kind="stable")[:CHANNELS])
        features[path], channels[path] = values[0][..., most], (most.tolist(), values.shape[-1])
    place = query or (image.shape[0] // 2, image.shape[1] // 2)
    return Inside(attention, place, features, channels)


def statistics_of(model: keras.Model, image: np.ndarray, target: int | Box) -> dict[str, LayerStatistics] | None:
    """`kzoo.explain.layer_statistics` of one picture; None where that would take long, a gradient for each layer."""
    kernels = sum(getattr(node.operation, "kernel", None) is not None for node in Replay(model).nodes)
    if kernels * image.shape[0] * image.shape[1] > LARGEST:
        return None
    return layer_statistics(model, image[None], target)


def gate_summary(values: np.ndarray) -> dict[str, float]:
    """Smallest, mean and largest number of channel gates (channels,), and the share that is almost closed."""
    return {
        "smallest": float(values.min()),
        "mean": float(values.mean()),
        "largest": float(values.max()),
        "closed": float((values < 0.1).mean()),
    }


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, evenly from the first to the last.

    >>> spread(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    if len(names) <= count:
        return list(names)
    return [names[index] for index in np.linspace(0, len(names) - 1, count).round().astype(int)]
