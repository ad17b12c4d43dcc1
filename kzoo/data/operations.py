"""Operations of AutoAugment's family on batches, each image with a magnitude of its own, as torchvision has them.

images: float32 (n, height, width, 3) of 0 to 255; magnitudes: float32 (n,), in the units of `torchvision.transforms`.
"""

import math
from collections.abc import Callable, Sequence

import keras
from keras import ops

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601


def project(images, matrices, interpolation: str = "nearest", fill: str = "constant"):
    """Images whose pixels come from other places.

    Args:
        images: float32 (n, height, width, channels).
        matrices: float32 (n, 6): the pixel (x, y) comes from (m0 x + m1 y + m2, m3 x + m4 y + m5).
        interpolation: `"nearest"` or `"bilinear"`.
        fill: what is outside: `"constant"` for 0, `"nearest"` for the pixel of the border.

    Returns:
        (n, height, width, channels).
    """
    return ops.image.affine_transform(
        images,
        ops.pad(matrices, ((0, 0), (0, 2))),
        interpolation=interpolation,
        fill_mode=fill,
        fill_value=0.0,
        data_format="channels_last",
    )


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
    shear_x, shear_y, right, down, degrees = (
        ops.where(operations == OPERATIONS.index(name), magnitudes, 0.0) for name in GEOMETRY
    )
    cos, sin = (function(degrees * (math.pi / 180)) for function in (ops.cos, ops.sin))
    x, y = (width - 1) / 2, (height - 1) / 2
    # corners are half a pixel away from the middle of the first pixel
    from_x = (1 - cos) * x + sin * y + shear_x / 2 - right
    from_y = (1 - cos) * y - sin * x + shear_y / 2 - down
    return ops.stack([cos, shear_x - sin, from_x, shear_y + sin, cos, from_y], axis=1)


def apply(images, operations, magnitudes):
    """Each image after its operation.

    Args:
        images: float32 (n, height, width, 3).
        operations: int32 (n,), indices in `OPERATIONS`.
        magnitudes: float32 (n,).

    Returns:
        float32 (n, height, width, 3), of 0 to 255.
    """
    kinds = ops.maximum(operations - len(GEOMETRY) + 1, 0)  # all of `GEOMETRY` are one kind

    def colouring(change: Callable) -> Callable:
        return lambda images, operations, magnitudes: change(images, magnitudes[:, None, None, None])

    changes = [_move, lambda images, *_: images, *map(colouring, _COLOURS.values())]
    each = _each_part if keras.backend.backend() == "tensorflow" else _each_whole
    return each(changes, kinds, images, operations, magnitudes)


def _each_part(changes: Sequence[Callable], kinds, *arrays):
    """For each image the change of its kind, made of the images of that kind alone."""
    import tensorflow as tf

    parts = zip(*(tf.dynamic_partition(array, kinds, len(changes)) for array in arrays), strict=True)
    changed = [change(*part) for change, part in zip(changes, parts, strict=True)]
    places = tf.dynamic_partition(tf.range(tf.shape(kinds)[0]), kinds, len(changes))
    return tf.ensure_shape(tf.dynamic_stitch(places, changed), arrays[0].shape)


def _each_whole(changes: Sequence[Callable], kinds, images, *arrays):
    """The same with all changes made of all images, where shapes must not depend on values, as under XLA."""
    changed = images
    for kind, change in enumerate(changes):
        changed = ops.where((kinds == kind)[:, None, None, None], change(images, *arrays), changed)
    return changed


def _move(images, operations, magnitudes):
    return project(images, matrices(operations, magnitudes, *images.shape[1:3]))


def _blend(images, other, magnitudes):
    """The other images at -1, the images themselves at 0, and beyond them above."""
    return ops.clip(images + magnitudes * (images - other), 0.0, 255.0)


def _grey(images):
    return ops.floor(ops.sum(images * ops.convert_to_tensor(GREY, "float32"), axis=-1, keepdims=True))


def _brightness(images, magnitudes):
    return _blend(images, 0.0, magnitudes)


def _color(images, magnitudes):
    return _blend(images, _grey(images), magnitudes)


def _contrast(images, magnitudes):
    return _blend(images, ops.mean(_grey(images), axis=(1, 2), keepdims=True), magnitudes)


def _sharpness(images, magnitudes):
    """Against the mean of 3×3 pixels in which the middle one counts five times; borders stay."""
    inner = images[:, 1:-1, 1:-1]
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    blurred = ops.round((rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * inner) / 13)
    return _blend(images, images - ops.pad(inner - blurred, ((0, 0), (1, 1), (1, 1), (0, 0))), magnitudes)


def _posterize(images, magnitudes):
    """Only the upper bits of each number, as many as the magnitude says."""
    step = 2 ** (8 - magnitudes)
    return ops.floor(images / step) * step


def _solarize(images, magnitudes):
    return ops.where(images >= magnitudes, 255 - images, images)


def _autocontrast(images, magnitudes):
    """Each channel stretched to 0 to 255; one of a single value stays."""
    # Keras refuses to reduce nothing, which a batch without this operation is, unless it is told where to begin
    low = ops.min(images, axis=(1, 2), keepdims=True, initial=255.0)
    high = ops.max(images, axis=(1, 2), keepdims=True, initial=0.0)
    stretched = (images - low) * (255 / ops.maximum(high - low, 1e-6))
    return ops.where(high > low, ops.minimum(stretched, 255.0), images)


def _equalize(images, magnitudes):
    """Each channel with all grey levels about equally often, by PIL's table."""
    channels = ops.transpose(ops.cast(ops.round(images), "int32"), (0, 3, 1, 2))
    pixels = images.shape[1] * images.shape[2]
    values = ops.reshape(channels, (-1, pixels))  # (n·3, pixels)
    rows = ops.shape(values)[0]
    cells = ops.reshape(values + 256 * ops.arange(rows, dtype="int32")[:, None], (-1,))
    counts = ops.reshape(ops.segment_sum(ops.ones_like(cells), cells, num_segments=rows * 256), (-1, 256))
    below = ops.cumsum(counts, axis=-1) - counts
    last = ops.take_along_axis(
        counts, ops.max(values, axis=-1, keepdims=True, initial=0), axis=1
    )  # pixels of the highest level
    step = (pixels - last) // 255
    table = ops.where(step > 0, (below + step // 2) // ops.maximum(step, 1), ops.arange(256, dtype="int32"))
    levels = ops.take_along_axis(ops.minimum(table, 255), values, axis=1)
    return ops.cast(ops.transpose(ops.reshape(levels, ops.shape(channels)), (0, 2, 3, 1)), "float32")


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
