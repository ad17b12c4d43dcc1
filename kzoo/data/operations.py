"""Operations of AutoAugment's family on batches, each image with a magnitude of its own, as torchvision has them.

images: float32 (n, height, width, 3) of 0 to 255; magnitudes: float32 (n,), in the units of `torchvision.transforms`.
"""

import math
from collections.abc import Callable

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601


def project(images, matrices, interpolation: str = "NEAREST", fill: str = "CONSTANT"):
    """Images whose pixels come from other places.

    Args:
        images: float32 (n, height, width, channels).
        matrices: float32 (n, 6): the pixel (x, y) comes from (m0 x + m1 y + m2, m3 x + m4 y + m5).
        interpolation: `"NEAREST"` or `"BILINEAR"`.
        fill: what is outside: `"CONSTANT"` for 0, `"NEAREST"` for the pixel of the border.

    Returns:
        (n, height, width, channels).
    """
    import tensorflow as tf

    changed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.pad(matrices, [(0, 0), (0, 2)]),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode=fill,
    )
    return tf.ensure_shape(changed, images.shape)


def matrices(operations, magnitudes, height: int, width: int):
    """Where the pixels of each image come from, for `project`.

    Shears keep the upper left corner, as PIL's matrix (1, magnitude, 0, 0, 1, 0) does; translations are in pixels,
    right and down; rotations in degrees, against the clock about the centre.

    Args:
        operations: int32 (n,), indices in `OPERATIONS`; one that is not of `GEOMETRY` moves nothing.
        magnitudes: float32 (n,).
        height: height of the images.
        width: width of the images.

    Returns:
        float32 (n, 6).
    """
    import tensorflow as tf

    shear_x, shear_y, right, down, degrees = (
        tf.where(operations == OPERATIONS.index(name), magnitudes, 0.0) for name in GEOMETRY
    )
    cos, sin = (function(degrees * (math.pi / 180)) for function in (tf.cos, tf.sin))
    x, y = (width - 1) / 2, (height - 1) / 2
    # corners are half a pixel away from the middle of the first pixel
    from_x = (1 - cos) * x + sin * y + shear_x / 2 - right
    from_y = (1 - cos) * y - sin * x + shear_y / 2 - down
    return tf.stack([cos, shear_x - sin, from_x, shear_y + sin, cos, from_y], axis=1)


def apply(images, operations, magnitudes):
    """Each image after its operation.

    Args:
        images: float32 (n, height, width, 3).
        operations: int32 (n,), indices in `OPERATIONS`.
        magnitudes: float32 (n,).

    Returns:
        float32 (n, height, width, 3), of 0 to 255.
    """
    import tensorflow as tf

    kinds = tf.maximum(operations - len(GEOMETRY) + 1, 0)  # all of `GEOMETRY` are one kind
    number = len(_COLOURS) + 2
    places, parts, names, strengths = (
        tf.dynamic_partition(array, kinds, number)
        for array in (tf.range(tf.shape(images)[0]), images, operations, magnitudes)
    )
    moved = project(parts[0], matrices(names[0], strengths[0], *images.shape[1:3]))
    coloured = [
        change(part, strength[:, None, None, None])
        for change, part, strength in zip(_COLOURS.values(), parts[2:], strengths[2:], strict=True)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(places, [moved, parts[1], *coloured]), images.shape)


def _blend(images, other, magnitudes):
    """The other images at -1, the images themselves at 0, and beyond them above."""
    import tensorflow as tf

    return tf.clip_by_value(images + magnitudes * (images - other), 0.0, 255.0)


def _grey(images):
    import tensorflow as tf

    return tf.floor(tf.reduce_sum(images * tf.constant(GREY), axis=-1, keepdims=True))


def _brightness(images, magnitudes):
    return _blend(images, 0.0, magnitudes)


def _color(images, magnitudes):
    return _blend(images, _grey(images), magnitudes)


def _contrast(images, magnitudes):
    import tensorflow as tf

    return _blend(images, tf.reduce_mean(_grey(images), axis=(1, 2), keepdims=True), magnitudes)


def _sharpness(images, magnitudes):
    """Against the mean of 3×3 pixels in which the middle one counts five times; borders stay."""
    import tensorflow as tf

    inner = images[:, 1:-1, 1:-1]
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    blurred = tf.round((rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * inner) / 13)
    return _blend(images, images - tf.pad(inner - blurred, [(0, 0), (1, 1), (1, 1), (0, 0)]), magnitudes)


def _posterize(images, magnitudes):
    """Only the upper bits of each number, as many as the magnitude says."""
    import tensorflow as tf

    step = 2 ** (8 - magnitudes)
    return tf.floor(images / step) * step


def _solarize(images, magnitudes):
    import tensorflow as tf

    return tf.where(images >= magnitudes, 255 - images, images)


def _autocontrast(images, magnitudes):
    """Each channel stretched to 0 to 255; one of a single value stays."""
    import tensorflow as tf

    low, high = (reduce(images, axis=(1, 2), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    stretched = (images - low) * (255 / tf.maximum(high - low, 1e-6))
    return tf.where(high > low, tf.minimum(stretched, 255.0), images)


def _equalize(images, magnitudes):
    """Each channel with all grey levels about equally often, by PIL's table."""
    import tensorflow as tf

    channels = tf.transpose(tf.cast(tf.round(images), tf.int32), (0, 3, 1, 2))
    values = tf.reshape(channels, (-1, images.shape[1] * images.shape[2]))  # (n·3, pixels)
    counts = tf.math.bincount(values, minlength=256, maxlength=256, axis=-1)
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    last = tf.gather(counts, tf.reduce_max(values, axis=-1), batch_dims=1)  # pixels of the highest level
    step = ((values.shape[1] - last) // 255)[:, None]
    table = tf.where(step > 0, (below + step // 2) // tf.maximum(step, 1), tf.range(256))
    levels = tf.gather(tf.minimum(table, 255), values, batch_dims=1)
    return tf.cast(tf.transpose(tf.reshape(levels, tf.shape(channels)), (0, 2, 3, 1)), tf.float32)


_COLOURS: dict[str, Callable] = {
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
OPERATIONS = (*GEOMETRY, "identity", *_COLOURS)
