"""Bilinear resizing that computes the same on every backend, compiled or not."""

from keras import ops

from kzoo.layers.position_tables import interpolation_weights


def resize_bilinear(x, size: tuple[int, int]):
    """Resizes a map by bilinear interpolation with half-pixel centres, without blurring when it shrinks.

    Each axis is one product with a constant matrix of interpolation weights. `keras.ops.image.resize` does not
    serve: under XLA on a CPU, TensorFlow 2.21 computes wrong values for some sizes (5 to 9 pixels, for one),
    where a source coordinate is an integer but for rounding (TensorFlow issue 118344).

    Args:
        x: (batch, height, width, channels), height and width known.
        size: the new (height, width).

    Returns:
        (batch, *size, channels).
    """
    _, height, width, channels = x.shape
    if size[0] != height:
        weights = ops.convert_to_tensor(interpolation_weights(height, size[0]), dtype=x.dtype)
        x = ops.einsum("bhc,nh->bnc", ops.reshape(x, (-1, height, width * channels)), weights)
    x = ops.reshape(x, (-1, width, channels))  # (B · height, width, C)
    if size[1] != width:
        weights = ops.convert_to_tensor(interpolation_weights(width, size[1]), dtype=x.dtype)
        x = ops.einsum("bwc,nw->bnc", x, weights)
    return ops.reshape(x, (-1, *size, channels))
