"""Making maps larger, and maps of different sizes equal, with ops that XLA compiles and edge delegates run."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers.checks import check_feature_map, check_positive, is_integer

GROUP = 4  # the XNNPACK delegate runs no concatenation of many tensors


@keras.saving.register_keras_serializable(package="kzoo")
class Upsample(keras.layers.Layer):
    """Enlarges maps by an integer factor, by repetition or bilinear interpolation with half-pixel centres.

    Equal to `keras.layers.UpSampling2D`, whose repetition breaks the XNNPACK delegate's partition, and whose
    interpolation TensorFlow 2.21 computes wrongly under XLA on a CPU for some sizes (TensorFlow issue 118344). Along
    an axis every output pixel is a constant mix of a pixel and its neighbour; the mixes are put side by side, and a
    reshape interleaves them.

    Args:
        factor: by which height and width grow.
        interpolation: `"nearest"` or `"bilinear"`.

    Input shape: (batch, height, width, C). Output shape: (batch, factor · height, factor · width, C).

    Raises:
        InvalidValueError: a factor below 1, another interpolation, or no feature map.

    Example:
        >>> Upsample(2)(keras.ops.ones((1, 5, 7, 16))).shape
        TensorShape([1, 10, 14, 16])
    """

    def __init__(self, factor: int = 2, interpolation: str = "nearest", **kwargs):
        super().__init__(**kwargs)
        check_choice("interpolation", interpolation, ("nearest", "bilinear"))
        self.factor = check_positive("factor", factor)
        self.interpolation = interpolation

    def build(self, input_shape):
        check_feature_map(self, input_shape)

    def call(self, x):
        if self.factor == 1:
            return x
        _, height, width, channels = ops.shape(x)
        x = self._enlarge(ops.reshape(x, (-1, height, width * channels)))  # (B, H, k · W · C)
        x = ops.reshape(x, (-1, width, channels))  # (B · k · H, W, C)
        x = self._enlarge(x)
        return ops.reshape(x, (-1, self.factor * height, self.factor * width, channels))

    def _enlarge(self, x):
        """(N, length, C) to (N, length, factor · C): the pixels that each one becomes, side by side."""
        if self.interpolation == "nearest":
            return _concatenate([x] * self.factor)
        before = ops.concatenate([x[:, :1], x[:, :-1]], axis=1)  # borders are repeated
        after = ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)
        offsets = [(phase + 0.5) / self.factor - 0.5 for phase in range(self.factor)]
        return _concatenate(
            [
                (1 - abs(offset)) * x + abs(offset) * (after if offset > 0 else before) if offset else x
                for offset in offsets
            ]
        )

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        height, width = (None if size is None else size * self.factor for size in (height, width))
        return batch, height, width, channels

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds are counted: two for an output value at most."""
        return 0

    def get_config(self):
        return super().get_config() | {"factor": self.factor, "interpolation": self.interpolation}


def _concatenate(parts: list, axis: int = -1):
    """Joins along an axis, a few at a time."""
    while len(parts) > 1:
        groups = [parts[i : i + GROUP] for i in range(0, len(parts), GROUP)]
        parts = [ops.concatenate(group, axis=axis) if len(group) > 1 else group[0] for group in groups]
    return parts[0]


@keras.saving.register_keras_serializable(package="kzoo")
class MatchSize(keras.layers.Layer):
    """Gives a map the height and width of another by cropping it, or by repeating its border.

    Maps differ where sizes are odd, or where convolutions without padding cost pixels. What a stride rounds is
    missing, or too much, at the bottom and right; what such convolutions cost is so on both sides. So a difference of
    `rounding` pixels at most is made up for at the end, and any other one in equal parts on both sides, of which the
    first is rounded down. With `rounding=0` this is the crop of the U-Net (arXiv:1505.04597, Figure 1).

    Args:
        rounding: largest difference that rounding makes: k - 1 behind an enlargement by k.

    Input shape: a list, the map (batch, height, width, C) and another one (batch, H, W, anything). Output shape:
    (batch, H, W, C).

    Raises:
        InvalidValueError: an input that is no list of two maps.

    Example:
        >>> x, skip = keras.ops.ones((1, 10, 14, 16)), keras.ops.ones((1, 9, 14, 3))
        >>> MatchSize()([x, skip]).shape
        TensorShape([1, 9, 14, 16])
    """

    def __init__(self, rounding: int = 1, **kwargs):
        super().__init__(**kwargs)
        if not is_integer(rounding, 0):
            raise InvalidValueError(f"rounding={rounding!r} must be an integer of at least 0")
        self.rounding = int(rounding)

    def build(self, input_shape):
        if len(input_shape) != 2 or not isinstance(input_shape[0], (tuple, list)):
            raise InvalidValueError(
                f"{self.name}: MatchSize takes a list, a map and another one of the wanted size, got {input_shape}"
            )
        for shape in input_shape:
            check_feature_map(self, shape)

    def call(self, inputs):
        x, other = inputs
        for axis in (1, 2):
            have, want = x.shape[axis], other.shape[axis]
            if have is not None and want is not None:
                x = self._resize(x, have, want, axis)
            else:
                x = self._resize_unknown(x, ops.shape(x)[axis], ops.shape(other)[axis], axis)
        return x

    def _resize(self, x, have: int, want: int, axis: int):
        difference = abs(want - have)
        first = 0 if difference <= self.rounding else difference // 2
        if want <= have:
            return _part(x, first, first + want, axis) if difference else x
        start, end = _part(x, 0, 1, axis), _part(x, have - 1, have, axis)
        x = _concatenate([*[start] * first, x], axis)
        return _concatenate([x, *[end] * (difference - first)], axis)

    def _resize_unknown(self, x, have, want, axis: int):
        """The same where sizes are known only as the model runs."""
        difference = ops.abs(want - have)
        first = ops.where(difference <= self.rounding, 0, difference // 2)
        first = ops.where(want < have, first, -first)
        rows = ops.clip(ops.arange(want) + first, 0, have - 1)
        return ops.take(x, rows, axis=axis)

    def compute_output_shape(self, input_shape):
        (batch, *_, channels), (_, height, width, _) = input_shape
        return batch, height, width, channels

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: pixels are copied."""
        return 0

    def get_config(self):
        return super().get_config() | {"rounding": self.rounding}


def _part(x, start: int, stop: int, axis: int):
    return x[:, start:stop] if axis == 1 else x[:, :, start:stop]
