"""What stand-alone self-attention and neighborhood attention share: every query sees its own k × k pixels.

The map is cut into blocks of queries, and each block attends to one window that holds the neighbourhoods of all
its queries, under a mask: matrix products as in window attention. Each key is copied about
((block + k - 1) / block)² times instead of k² times, and nothing has the size of height · width squared.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from keras import ops

from kzoo.layers.dot_product import MASKED, merge_heads, number_places, split_heads, weigh
from kzoo.layers.windows import padding_to_multiple, partition, unpartition


@dataclass(frozen=True)
class Axis:
    """How one axis of the map is cut.

    Attributes:
        length: of the map.
        kernel_size: k, odd.
        block: queries in one block.
        halo: keys before and after the block that its queries may see.
    """

    length: int
    kernel_size: int
    block: int
    halo: int

    @property
    def window(self) -> int:
        """Keys in one window."""
        return self.block + 2 * self.halo

    @property
    def padded(self) -> int:
        """The length of all blocks together."""
        return self.length + padding_to_multiple(self.length, self.block)

    def offsets(self) -> np.ndarray:
        """(block, window): how many pixels a key of the window lies after a query of the block."""
        return np.arange(self.window) - self.halo - np.arange(self.block)[:, None]

    def visible(self, inward: bool, length: int | None = None) -> np.ndarray:
        """(blocks, block, window) booleans: the keys that each query sees.

        Args:
            inward: at a border the neighbourhood moves inside the map, else it is cut off there.
            length: of the part of the axis that is map and not padding; all of it by default.
        """
        length = length or self.length
        query = np.arange(self.padded).reshape(-1, self.block, 1)
        key = query[:, :1] - self.halo + np.arange(self.window)
        first = query - self.kernel_size // 2
        if inward:
            first = np.clip(first, 0, length - self.kernel_size)
        return (key >= first) & (key < first + self.kernel_size) & (key >= 0) & (key < length)


def plan_axis(length: int, kernel_size: int, inward: bool, dilation: int = 1) -> Axis:
    """Cuts an axis such that the fewest keys are computed in vain.

    Where one window would be as long as the axis, there is one block without a halo.

    Args:
        length: of the axis; with a dilation, of every dilation-th pixel.
        kernel_size: k, odd.
        inward: whether neighbourhoods move inside the map at a border. The last block then holds more than
            half a kernel of pixels, so that they stay inside its window.
        dilation: where it is above 1, part of the pixels may be one fewer.
    """
    half = kernel_size // 2
    least = half + 1 + (dilation > 1) if inward else 1
    best = Axis(length, kernel_size, length, 0)
    for block in range(max(half + 1, SMALLEST_BLOCK), length):
        axis = Axis(length, kernel_size, block, half)
        in_last = length - (axis.padded - block)
        if in_last >= least and axis.padded * axis.window < best.padded * best.window:
            best = axis
    return best


SMALLEST_BLOCK = 7  # smaller ones copy more keys, larger ones compute more in vain; near the best for k of 3 to 13


@lru_cache(maxsize=32)
def plan(height: int, width: int, kernel_size: int, inward: bool, dilation: int = 1) -> tuple[Axis, Axis, np.ndarray]:
    """How a map is cut, and who sees whom: rows, columns and the mask of `mask`.

    The mask is a constant of an exported model, once for each size of map. It has
    height · width · (block + k - 1)² numbers: 0.6 million at 28×28 and 8 million at 112×112 for k = 7.

    Args:
        height: of the map.
        width: of the map.
        kernel_size: k, odd.
        inward: see `Axis.visible`.
        dilation: the map is dealt to dilation² smaller ones, whose sides may differ by one.
    """
    sides = (height, width)
    rows, columns = (plan_axis(-(-side // dilation), kernel_size, inward, dilation) for side in sides)
    lengths = [[-(-(side - first) // dilation) for first in range(dilation)] for side in sides]
    return rows, columns, mask(rows, columns, inward, *lengths)


def mask(rows: Axis, columns: Axis, inward: bool, row_lengths=(None,), column_lengths=(None,)) -> np.ndarray:
    """(parts · blocks, queries, keys): 0 where a query sees a key, else `MASKED`.

    Args:
        rows: of the map.
        columns: of the map.
        inward: see `Axis.visible`.
        row_lengths: of each part that the rows were dealt to, see `Axis.visible`.
        column_lengths: the same for the columns.
    """
    vertical = np.stack([rows.visible(inward, length) for length in row_lengths])  # (parts, blocks, block, window)
    horizontal = np.stack([columns.visible(inward, length) for length in column_lengths])
    seen = np.einsum("abqk,cdrl->acbdqrkl", vertical, horizontal)
    queries, keys = rows.block * columns.block, rows.window * columns.window
    return np.where(seen.reshape(-1, queries, keys), 0, MASKED).astype("float32")


def local_weights(query, key_value, num_heads: int, rows: Axis, columns: Axis, mask, bias):
    """The attention of each block of queries to its window, and the values there.

    Args:
        query: (batch, height, width, C), scaled.
        key_value: (batch, height, width, 2 C), keys and values along the channels.
        num_heads: groups of channels.
        rows: of the map.
        columns: of the map.
        mask: (blocks, queries, keys).
        bias: called with the queries (batch · blocks, num_heads, N, d), gives what is added to the logits.

    Returns:
        Weights (batch · blocks, num_heads, N, M), and values (batch · blocks, num_heads, M, d).
    """
    channels = query.shape[-1]
    query, key_value = _pad(query, rows, columns), _pad(key_value, rows, columns)
    block = (rows.block, columns.block)
    query = split_heads(partition(query, block), num_heads)
    halo = (rows.halo, columns.halo)
    key = split_heads(partition(key_value[..., :channels], block, halo), num_heads)  # (B · blocks, heads, window², d)
    value = split_heads(partition(key_value[..., channels:], block, halo), num_heads)
    return weigh(query, key, bias(query), mask), value


def local_mix(weights, values, rows: Axis, columns: Axis, height: int, width: int):
    """Weighted means of the values as a map (batch, height, width, C); takes what `local_weights` gives."""
    y = merge_heads(ops.matmul(weights, values))
    y = unpartition(y, (rows.block, columns.block), rows.padded, columns.padded)
    return y[:, :height, :width] if rows.padded > height or columns.padded > width else y


def local_places(
    height: int, width: int, rows: Axis, columns: Axis, deal=lambda x: x
) -> tuple[np.ndarray, np.ndarray]:
    """Where queries (blocks, N) and keys (blocks, M) lie in a map, numbered as by `dot_product.number_places`.

    Args:
        height: of the map.
        width: of the map.
        rows: of the map.
        columns: of the map.
        deal: what is done to the map before it is cut.
    """
    block = (rows.block, columns.block)
    queries, keys = (
        number_places(height, width, lambda x, halo=halo: partition(_pad(deal(x), rows, columns), block, halo))
        for halo in ((0, 0), (rows.halo, columns.halo))
    )
    return queries, keys


def _pad(x, rows: Axis, columns: Axis):
    """The map with zeros at the bottom and right, so that the blocks cover it."""
    _, height, width, _ = x.shape
    if rows.padded == height and columns.padded == width:
        return x
    return ops.pad(x, ((0, 0), (0, rows.padded - height), (0, columns.padded - width), (0, 0)))
