"""Scaled dot-product attention inside windows, shared by the layers that cut a map into them."""

import keras
import numpy as np
from keras import ops

from kzoo.layers.target import is_for_gpu

# Added to the logit of a key that a query must not see: far below any logit, and half precision can hold it.
MASKED = -3e4


def tokens(x):
    """(batch, height, width, channels) -> (batch, height · width, channels)."""
    _, height, width, channels = x.shape
    if height and width:
        return ops.reshape(x, (-1, height * width, channels))
    size = ops.shape(x)
    return ops.reshape(x, (size[0], size[1] * size[2], channels))


def split_heads(x, num_heads: int):
    """(..., N, channels) with known N -> (-1, num_heads, N, channels / num_heads): heads are groups of channels."""
    *_, length, channels = x.shape
    x = ops.reshape(x, (-1, length, num_heads, channels // num_heads))
    return ops.transpose(x, (0, 2, 1, 3))


def merge_heads(x):
    """(B, num_heads, N, d) -> (B, N, num_heads · d)."""
    _, num_heads, length, size = x.shape
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, length, num_heads * size))


def weigh(query, key, bias=None, mask=None):
    """`softmax(q kᵀ + bias + mask)` for each window and head (arXiv:1706.03762, equation 1, q scaled before).

    The logits are computed and normalised in float32 at least: of large activations they would overflow half
    precision, and exp turns their rounding into a relative error.

    Args:
        query: (batch · windows, heads, N, d), scaled.
        key: (batch · windows, heads, M, d).
        bias: broadcasts to (batch · windows, heads, N, M).
        mask: (windows, N, M), 0 or `MASKED`; None where every query sees every key.

    Returns:
        (batch · windows, heads, N, M), of which each row sums to 1.
    """
    dtype = keras.backend.result_type(query.dtype, "float32")
    logits = ops.matmul(ops.cast(query, dtype), ops.cast(ops.transpose(key, (0, 1, 3, 2)), dtype))
    if bias is not None:
        bias = bias[None] if len(bias.shape) == 3 else bias  # GPU delegates broadcast no other rank to this one
        logits = logits + ops.cast(bias, logits.dtype)
    if mask is not None:
        logits = _hide(logits, mask)
    return ops.cast(ops.softmax(logits, axis=-1), query.dtype)


def number_places(height: int, width: int, cut) -> np.ndarray:
    """Which place of a map each pixel of each window is: (windows, pixels) of y · width + x, and -1 where it is none.

    Args:
        height: of the map.
        width: of the map.
        cut: what cuts a map (1, height, width, 1) into windows (windows, pixels, 1), with zeros beyond its edge.
    """
    numbers = np.arange(1, height * width + 1, dtype="int32").reshape(1, height, width, 1)
    return ops.convert_to_numpy(cut(numbers))[..., 0] - 1


def _hide(logits, mask: np.ndarray):
    """The logits (batch · windows, heads, N, M), and `MASKED` where the mask says so.

    The smaller of two is as fast as a sum, and the converter does not make one constant of it and the bias, which
    would hold every window of every head. A mobile GPU delegate takes such a constant alone.
    """
    windows, length, keys = mask.shape
    heads = logits.shape[1]
    if is_for_gpu() and logits.shape[0] == windows:
        mask = np.broadcast_to(mask[:, None], (windows, heads, length, keys)).reshape(1, -1, length, keys)
        logits = ops.reshape(logits, (1, -1, length, keys)) + ops.cast(mask, logits.dtype)
        return ops.reshape(logits, (-1, heads, length, keys))
    limit = ops.cast(np.where(mask < 0, MASKED, np.finfo("float32").max)[:, None], logits.dtype)
    if logits.shape[0] == windows:  # one map, as in a file, where rank 5 costs copies
        return ops.minimum(logits, limit)
    logits = ops.minimum(ops.reshape(logits, (-1, windows, heads, length, keys)), limit)
    return ops.reshape(logits, (-1, heads, length, keys))


def absorb_into(layer: keras.layers.Layer, proj: keras.layers.Dense, scale: np.ndarray, offset: np.ndarray):
    """A copy of an attention layer, and weights for it with which its last projection also scales and offsets."""
    weights = {weight.path: np.asarray(ops.convert_to_numpy(weight)) for weight in layer.weights}
    weights[proj.kernel.path] = weights[proj.kernel.path].astype("float64") * scale
    weights[proj.bias.path] = weights[proj.bias.path].astype("float64") * scale + offset
    return type(layer).from_config(layer.get_config()), list(weights.values())
