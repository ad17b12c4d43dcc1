"""A convolution of few channels to one, for several columns of the map at once."""

import numpy as np
from keras import ops


def column_convolution(x, kernel, bias=None):
    """The `"same"` convolution of a map to one channel.

    Kernels that multiply matrices work on 8 or more output channels at a time, and on groups of input channels: a
    convolution of 2 channels to 1 leaves most of that idle, in TensorFlow, XLA and XNNPACK alike. Here groups of
    columns become channels, which a reshape does, and one kernel gives all columns of a group.

    Args:
        x: (batch, height, width, channels).
        kernel: (k, k, channels, 1), k odd.
        bias: (1,), or None.

    Returns:
        (batch, height, width, 1).
    """
    _, height, width, channels = x.shape
    size = kernel.shape[0]
    columns = columns_at_once(width, size) if height and width else 1
    if columns > 1:
        kernel = _for_columns(kernel, columns, neighbours(width, columns, size))
        x = ops.reshape(x, (-1, height, width // columns, columns * channels))
    y = ops.conv(x, kernel, padding="same")
    if bias is not None:
        y = y + ops.tile(bias, columns)
    return ops.reshape(y, (-1, height, width, 1)) if columns > 1 else y


def neighbours(width: int, columns: int, size: int) -> int:
    """Groups on each side that a kernel of this size reaches into."""
    return 0 if columns == width else -(-(size // 2) // columns)


def columns_at_once(width: int, size: int) -> int:
    """Columns in a group: a divisor of the width, with which the fewest products are computed in vain."""

    def cost(columns: int) -> int:
        return (2 * neighbours(width, columns, size) + 1) * (-(-columns // 8))

    return min((n for n in range(width, 0, -1) if width % n == 0), key=cost)


def _for_columns(kernel, columns: int, groups: int):
    """The kernel (k, 2 groups + 1, columns · channels, columns) of groups of columns."""
    size, _, channels, _ = kernel.shape
    inputs = np.arange((2 * groups + 1) * columns)[:, None] - groups * columns
    taps = inputs - np.arange(columns) + size // 2  # which column of the kernel joins an input and an output column
    taps = np.where((taps >= 0) & (taps < size), taps, size)
    kernel = ops.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))  # the last one is zero
    kernel = ops.take(kernel, taps.reshape(-1), axis=1)
    kernel = ops.reshape(kernel, (size, -1, columns, channels))  # (k, inputs, outputs, channels)
    kernel = ops.transpose(kernel, (0, 1, 3, 2))
    return ops.reshape(kernel, (size, 2 * groups + 1, columns * channels, columns))
