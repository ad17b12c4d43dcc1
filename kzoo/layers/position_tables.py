"""Tables of positions as NumPy arrays: making them, indexing them, fitting them to another size."""

import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_number, check_positive, pair


def sinusoids(length: int, features: int, base: float = 10000.0) -> np.ndarray:
    """The sines and cosines of positions 0 to `length` - 1 (arXiv:1706.03762, section 3.5).

    `P[i, 2j] = sin(i / base^(2j/d))` and `P[i, 2j+1] = cos(i / base^(2j/d))` with d = `features`. If d is odd,
    the last column is a sine without its cosine.

    Returns:
        (length, features), float32, computed in float64.

    Raises:
        InvalidValueError: a length or a number of features below 1, a base that is not above 1.

    Example:
        >>> sinusoids(3, 4)[0]
        array([0., 1., 0., 1.], dtype=float32)
    """
    check_positive("length", length)
    check_positive("features", features)
    check_base(base)
    even = np.arange(0, features, 2)  # 2j
    angles = np.arange(length)[:, None] / float(base) ** (even / features)  # (length, ceil(d / 2))
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)
    return table[:, :features].astype("float32")


def resize_positions(table, size: int | tuple[int, int]) -> np.ndarray:
    """Interpolates a table of encodings to another number of positions.

    A 1-D table is interpolated linearly, a 2-D one by cubic convolution along both axes: Keys' kernel with
    a = -1/2, which keeps constants and slopes. Positions are centres of cells, so both tables span the same
    length; taps beyond the edge are left out and the others' weights scaled to sum 1; shrinking does not
    blur first. TensorFlow's and JAX's bicubic resize mean the same, but torch's has a = -3/4 and TensorFlow's
    rounds its weights: so it is written out here, and equal on every backend.

    Args:
        table: (N, C) or (H, W, C).
        size: the new N, or the new (H, W); an integer means a square.

    Returns:
        (size, C) or (*size, C), float32; an equal copy if the size is the table's.

    Raises:
        InvalidValueError: a table of another rank or without entries, a size that does not fit it.

    Example:
        >>> resize_positions(np.ones((7, 7, 32)), (12, 16)).shape
        (12, 16, 32)
    """
    table = np.asarray(ops.convert_to_numpy(table), "float64")
    if table.ndim not in (2, 3) or 0 in table.shape:
        raise InvalidValueError(f"a table of positions is (N, C) or (H, W, C), got shape {table.shape}")
    if table.ndim == 2:
        return (interpolation_weights(len(table), check_positive("size", size)) @ table).astype("float32")
    rows, columns = (
        interpolation_weights(old, new, cubic=True)
        for old, new in zip(table.shape[:2], pair("size", size), strict=True)
    )
    return np.einsum("ih,jw,hwc->ijc", rows, columns, table, optimize=True).astype("float32")


def interpolation_weights(old: int, new: int, cubic: bool = False) -> np.ndarray:
    """(new, old): how much each old position counts for each new one, by linear or cubic interpolation."""
    kernel = _cubic if cubic else _linear
    positions = (np.arange(new) + 0.5) * old / new - 0.5
    weights = kernel(np.abs(positions[:, None] - np.arange(old)))
    return weights / weights.sum(axis=1, keepdims=True)


def _linear(distance):
    return np.maximum(1 - distance, 0)


def _cubic(distance):
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def relative_position_index(window_size: int | tuple[int, int]) -> np.ndarray:
    """Which row of a table of relative positions belongs to each query and key of a window.

    The row is `(dy + Mh - 1) · (2 Mw - 1) + (dx + Mw - 1)`, where (dy, dx) is the query's (row, column) minus
    the key's, as in Swin's `relative_position_index`.

    Args:
        window_size: M or (Mh, Mw).

    Returns:
        (N, N) integers for queries × keys, N = Mh · Mw, pixels row by row.

    Example:
        >>> relative_position_index((1, 3))
        array([[2, 1, 0],
               [3, 2, 1],
               [4, 3, 2]], dtype=int32)
    """
    height, width = pair("window_size", window_size)
    y, x = np.divmod(np.arange(height * width, dtype="int32"), np.int32(width))
    dy, dx = y[:, None] - y, x[:, None] - x
    return (dy + height - 1) * (2 * width - 1) + dx + width - 1


def resize_relative_bias(table, window_size, new_window_size) -> np.ndarray:
    """Turns a table of relative biases into one for another window, by bicubic interpolation.

    The table is seen as a map of (2 Mh - 1) × (2 Mw - 1) offsets with the offset 0 in the middle, which stays
    there; the rest is `resize_positions`.

    Args:
        table: ((2 Mh - 1)·(2 Mw - 1), num_heads), rows as in `relative_position_index`.
        window_size: M or (Mh, Mw), the table's.
        new_window_size: the same of the result.

    Returns:
        The table of the new window, float32; an equal copy if the windows are the same.

    Raises:
        InvalidValueError: a table that does not belong to `window_size`, a size below 1.

    Example:
        >>> resize_relative_bias(np.ones((13 * 13, 3)), 7, 12).shape
        (529, 3)
    """
    table = ops.convert_to_numpy(table)
    height, width = offsets("window_size", window_size)
    if table.ndim != 2 or len(table) != height * width:
        raise InvalidValueError(
            f"a table of window_size={window_size} is ({height * width}, num_heads), got shape {table.shape}"
        )
    grid = resize_positions(table.reshape(height, width, -1), offsets("new_window_size", new_window_size))
    return grid.reshape(-1, table.shape[1])


def offsets(name: str, window_size) -> tuple[int, int]:
    """How many vertical and horizontal offsets there are in a window."""
    height, width = pair(name, window_size)
    return 2 * height - 1, 2 * width - 1


def check_base(base: float) -> float:
    return check_number("base", base, lambda value: value > 1, "above 1, such as 10000")
