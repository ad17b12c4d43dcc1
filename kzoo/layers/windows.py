"""Cutting maps into windows and putting them together again, by slices, reshapes and transposes of rank 4 alone.

Mobile GPU delegates refuse tensors of a higher rank (`kzoo.edge.gpu`).
"""

from keras import ops


def padding_to_multiple(size: int, multiple: int) -> int:
    """What to add to `size` to reach the next multiple."""
    return -size % multiple


def partition(x, window: tuple[int, int], halo: tuple[int, int] = (0, 0)):
    """Cuts a map into windows, which overlap by a halo of neighbouring pixels on every side.

    Args:
        x: (batch, height, width, channels), height and width multiples of the window's.
        window: (height, width) of one window.
        halo: (rows, columns) more on each side; beyond the map's edge there are zeros.

    Returns:
        (batch · windows, pixels, channels), windows and the (height + 2 rows) · (width + 2 columns) pixels of
        each in row-major order.
    """
    _, _, width, channels = x.shape
    if halo == (0, 0):
        x = ops.reshape(x, (-1, window[0], width // window[1], window[1] * channels))  # (B · rows, h, columns, w · C)
        x = ops.transpose(x, (0, 2, 1, 3))
        return ops.reshape(x, (-1, window[0] * window[1], channels))
    x = _overlap(x, window[0], halo[0])  # (B · rows, h, width, C)
    x = ops.transpose(x, (0, 2, 1, 3))
    x = _overlap(x, window[1], halo[1])  # (B · rows · columns, w, h, C)
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (-1, x.shape[1] * x.shape[2], channels))


def _overlap(x, block: int, halo: int):
    """(B, length, other, C) -> (B · blocks, block + 2 halo, other, C): overlapping pieces of the second axis.

    A piece is its own block and the start of the next ones in the padded map, so each pixel is copied
    (block + 2 halo) / block times.
    """
    _, length, other, channels = x.shape
    size = block + 2 * halo
    shifts = -(-size // block)
    if halo:
        x = ops.pad(x, ((0, 0), (halo, (shifts - 1) * block - halo), (0, 0), (0, 0)))
    pieces = []
    for first in range(0, size, block):
        piece = ops.reshape(x[:, first : first + length], (-1, block, other, channels))
        pieces.append(piece[:, : size - first])
    return ops.concatenate(pieces, axis=1) if len(pieces) > 1 else pieces[0]


def unpartition(x, window: tuple[int, int], height: int, width: int):
    """The inverse of `partition` without a halo: (batch · windows, pixels, C) -> (batch, height, width, C)."""
    channels = x.shape[-1]
    x = ops.reshape(x, (-1, width // window[1], window[0], window[1] * channels))  # (B · rows, columns, h, w · C)
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (-1, height, width, channels))


def shift(x, rows: int, columns: int):
    """Moves a map up and left, what leaves coming back at the other side: a roll by slice and concatenate."""
    if rows:
        x = ops.concatenate([x[:, rows:], x[:, :rows]], axis=1)
    if columns:
        x = ops.concatenate([x[:, :, columns:], x[:, :, :columns]], axis=2)
    return x
