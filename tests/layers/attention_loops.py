"""Self-attention as its papers write it, one query at a time."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kzoo.layers import MultiHeadSelfAttention, NeighborhoodAttention, StandAloneSelfAttention, WindowAttention


def softmax(logits):
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


def dense(x, layer):
    """A dense layer on NumPy arrays, in float64."""
    y = np.asarray(x, "float64") @ np.array(layer.kernel, "float64")
    return y + np.array(layer.bias, "float64") if layer.use_bias else y


def pixels_of(x):
    """Every (row, column) of a map (batch, height, width, channels)."""
    return list(itertools.product(range(x.shape[1]), range(x.shape[2])))


def heads_of(channels: int, num_heads: int):
    """The channels of each head, as slices."""
    size = channels // num_heads
    return [slice(head * size, (head + 1) * size) for head in range(num_heads)]


def weights_to(query, keys, num_heads: int, bias, scale: bool = True):
    """Of one query (C,) to its keys (n, C), (heads, n); `bias(head, index of the key)` is added to the logits."""
    found = []
    for head, part in enumerate(heads_of(len(query), num_heads)):
        size = part.stop - part.start if scale else 1
        logits = [query[part] @ key[part] / np.sqrt(size) + bias(head, index) for index, key in enumerate(keys)]
        found.append(softmax(np.array(logits)))
    return np.array(found)


def attend_to(query, keys, values, num_heads: int, bias, scale: bool = True):
    """One query (C,) to its keys and values (n, C), head by head, as `weights_to` says."""
    y = np.zeros(values.shape[-1])
    found = weights_to(query, keys, num_heads, bias, scale)
    for weights, part in zip(found, heads_of(len(query), num_heads), strict=True):
        for weight, value in zip(weights, values, strict=True):
            y[part] += weight * value[part]
    return y


@dataclass
class Asked:
    """A query of one image: where it is, the pixels that it sees, and their biases by head and index."""

    image: int
    at: tuple[int, int]
    seen: list[tuple[int, int]]
    bias: Callable[[int, int], float]


def of_windows(qkv, layer) -> Iterator[Asked]:
    """Which pixels share a window is found from the pixels' own coordinates: nothing is rolled or masked."""
    height, width = qkv.shape[1:3]
    sizes, steps = [], []
    for length, window, step in zip((height, width), layer.window_size, layer.shift_size, strict=True):
        sizes.append(min(length, window))
        steps.append(0 if length <= window else step)
    table = np.array(layer.position_bias.table, "float64")

    def window_of(i, j):
        """Windows are cut off at the map's upper left by the shift: there they are step pixels long."""
        return tuple((place - step) // size for place, step, size in zip((i, j), steps, sizes, strict=True))

    for n, (i, j) in itertools.product(range(len(qkv)), pixels_of(qkv)):
        seen = [(a, b) for a, b in pixels_of(qkv) if window_of(a, b) == window_of(i, j)]

        def relative(head, index, i=i, j=j, seen=seen):
            a, b = seen[index]
            return table[(i - a + sizes[0] - 1) * (2 * sizes[1] - 1) + (j - b + sizes[1] - 1), head]

        yield Asked(n, (i, j), seen, relative)


def neighbours(index: int, length: int, kernel_size: int, dilation: int) -> list[int]:
    """The `kernel_size` nearest of the positions index ± dilation · n that lie on the axis."""
    candidates = [other for other in range(length) if (other - index) % dilation == 0]
    here = candidates.index(index)
    first = max(0, min(here - kernel_size // 2, len(candidates) - kernel_size))
    return candidates[first : first + kernel_size]


def of_neighbourhoods(qkv, layer) -> Iterator[Asked]:
    """The k × k nearest pixels, moved inside the map at a border."""
    k, dilation = layer.kernel_size, layer.dilation
    bias = np.array(layer.position_bias, "float64")
    for n, (i, j) in itertools.product(range(len(qkv)), pixels_of(qkv)):
        rows = neighbours(i, qkv.shape[1], k, dilation)
        columns = neighbours(j, qkv.shape[2], k, dilation)
        seen = [(a, b) for a in rows for b in columns]

        def relative(head, index, i=i, j=j, seen=seen):
            a, b = seen[index]
            return bias[head, (a - i) // dilation + k - 1, (b - j) // dilation + k - 1]

        yield Asked(n, (i, j), seen, relative)


def of_clipped_squares(qkv, layer) -> Iterator[Asked]:
    """The pixels of a k × k square around the query that exist."""
    half, filters = layer.kernel_size // 2, qkv.shape[-1] // 3
    rows, columns = (np.array(each, "float64") for each in (layer.row_embedding, layer.column_embedding))
    assert rows.shape[-1] == columns.shape[-1] == layer.kernel_size
    for n, (i, j) in itertools.product(range(len(qkv)), pixels_of(qkv)):
        seen = [(a, b) for a, b in pixels_of(qkv) if abs(a - i) <= half and abs(b - j) <= half]

        def relative(head, index, i=i, j=j, seen=seen, query=qkv[n, i, j, :filters]):
            a, b = seen[index]
            embedding = np.concatenate([rows[head, :, a - i + half], columns[head, :, b - j + half]])
            return query[heads_of(filters, layer.num_heads)[head]] @ embedding

        yield Asked(n, (i, j), seen, relative)


def of_everything(qkv, layer) -> Iterator[Asked]:
    """Every pixel sees every pixel."""
    for n, at in itertools.product(range(len(qkv)), pixels_of(qkv)):
        yield Asked(n, at, pixels_of(qkv), lambda head, index: 0)


QUERIES = {
    WindowAttention: of_windows,
    NeighborhoodAttention: of_neighbourhoods,
    StandAloneSelfAttention: of_clipped_squares,
    MultiHeadSelfAttention: of_everything,
}


def attended(x, layer):
    """What the queries of a layer make of a map, before any projection or pooling behind; a window's map is padded."""
    qkv = qkv_of(x, layer)
    channels = qkv.shape[-1] // 3
    y = np.zeros((*qkv.shape[:3], channels))
    for asked in QUERIES[type(layer)](qkv, layer):
        query = qkv[(asked.image, *asked.at)][:channels]
        keys, values = (
            np.array([qkv[asked.image, a, b, part : part + channels] for a, b in asked.seen])
            for part in (channels, 2 * channels)
        )
        y[(asked.image, *asked.at)] = attend_to(query, keys, values, layer.num_heads, asked.bias, is_scaled(layer))
    return y


def dense_weights(x, layer):
    """The weights of every pixel of a map to every other, (batch, heads, height, width, height, width)."""
    _, height, width, _ = x.shape
    qkv = qkv_of(x, layer)
    channels = qkv.shape[-1] // 3
    found = np.zeros((len(x), layer.num_heads, *qkv.shape[1:3], *qkv.shape[1:3]))
    for asked in QUERIES[type(layer)](qkv, layer):
        query = qkv[(asked.image, *asked.at)][:channels]
        keys = np.array([qkv[asked.image, a, b, channels : 2 * channels] for a, b in asked.seen])
        weights = weights_to(query, keys, layer.num_heads, asked.bias, is_scaled(layer))
        for index, (a, b) in enumerate(asked.seen):
            found[asked.image, :, asked.at[0], asked.at[1], a, b] = weights[:, index]
    return found[:, :, :height, :width, :height, :width]


def qkv_of(x, layer):
    """Queries, keys and values of a map; that of windows is padded with zeros to whole ones."""
    if isinstance(layer, WindowAttention):
        height, width = (-size % min(size, side) for size, side in zip(x.shape[1:3], layer.window_size, strict=True))
        x = np.pad(x, ((0, 0), (0, height), (0, width), (0, 0)))
    return dense(x, layer.qkv)


def is_scaled(layer) -> bool:
    return not isinstance(layer, StandAloneSelfAttention)
