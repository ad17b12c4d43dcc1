"""Where a token or a pixel is: sinusoidal and learned encodings, and the relative bias of windowed attention."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map, check_positive, pair
from kzoo.layers.position_tables import (
    check_base,
    offsets,
    relative_position_index,
    resize_positions,
    resize_relative_bias,
    sinusoids,
)


def _check_tokens_or_map(layer: keras.layers.Layer, shape: tuple) -> None:
    if len(shape) == 4:
        check_feature_map(layer, shape, static=True)
    elif len(shape) != 3 or not (shape[1] and shape[2]):
        raise InvalidValueError(
            f"{type(layer).__name__} {layer.name!r} takes tokens (batch, N, channels) or maps (batch, height, width, "
            f"channels), all but the batch known, got shape {tuple(shape)}; build with an input_shape"
        )


def _check_built(layer: keras.layers.Layer) -> None:
    if not layer.built:
        raise InvalidValueError(f"{layer.name} has no table yet; build it, or call it once, before assigning")


@keras.saving.register_keras_serializable(package="kzoo")
class SinusoidalPositionEncoding(keras.layers.Layer):
    """Adds a fixed encoding of the position (arXiv:1706.03762, section 3.5): `x + P`, P as in `sinusoids`.

    Of a map, the first ceil(C/2) channels encode the row and the others the column, each half by the 1-D
    equation with its own size as d. The paper is about sequences; halves for the two coordinates are its
    usual extension to images, as in DETR (arXiv:2005.12872, appendix A.4), here without DETR's scaling of
    the positions. There are no weights, and one layer serves inputs of any size.

    Args:
        base: the wavelengths grow from 2π to almost base · 2π.

    Input and output shape: (batch, N, C) or (batch, height, width, C), all but the batch known; C >= 2 for maps.

    Raises:
        InvalidValueError: a base that is not above 1, an input of another rank, of unknown size, or a map of
            one channel.

    Example:
        >>> SinusoidalPositionEncoding()(keras.ops.zeros((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(self, base: float = 10000.0, **kwargs):
        super().__init__(**kwargs)
        self.base = check_base(base)

    def build(self, input_shape):
        self._check(input_shape)

    def _check(self, shape):
        _check_tokens_or_map(self, shape)
        if len(shape) == 4 and shape[-1] < 2:
            raise InvalidValueError(
                f"{self.name}: a row and a column need at least 2 channels, got shape {tuple(shape)}"
            )

    def encoding(self, shape: tuple) -> np.ndarray:
        """What is added to inputs of `shape`, batch included: (N, C) or (height, width, C), float32."""
        self._check(shape)
        *size, channels = shape[1:]
        if len(size) == 1:
            return sinusoids(size[0], channels, self.base)
        height, width = size
        half = -(-channels // 2)
        rows = sinusoids(height, half, self.base)[:, None]  # (H, 1, ceil(C/2))
        columns = sinusoids(width, channels - half, self.base)[None]  # (1, W, floor(C/2))
        halves = [np.broadcast_to(part, (height, width, part.shape[-1])) for part in (rows, columns)]
        return np.concatenate(halves, axis=-1)

    def call(self, x):
        return x + ops.convert_to_tensor(self.encoding(x.shape), dtype=x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: it adds."""
        return 0

    def get_config(self):
        return super().get_config() | {"base": self.base}


@keras.saving.register_keras_serializable(package="kzoo")
class LearnedPositionEncoding(keras.layers.Layer):
    """Adds a learned vector for every position: `x + table` (arXiv:1706.03762, section 3.5, the alternative).

    The table starts as a truncated normal of standard deviation 0.02. Its size is that of the first input.

    Input and output shape: (batch, N, C) with a table (N, C), or (batch, height, width, C) with a table
    (height, width, C); all but the batch known.

    Raises:
        InvalidValueError: an input of another rank or of unknown size.

    Example:
        >>> layer = LearnedPositionEncoding()
        >>> layer(keras.ops.zeros((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
        >>> layer.assign_resized(np.ones((14, 14, 32)))
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table: Any = None  # until built

    def build(self, input_shape):
        _check_tokens_or_map(self, input_shape)
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        self.table = self.add_weight(shape=input_shape[1:], initializer=initializer, name="table")
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))  # a smaller one would broadcast

    def call(self, x):
        return x + self.table

    def assign_resized(self, table) -> None:
        """Sets the table from one made for another size, (N, C) or (height, width, C); see `resize_positions`.

        Raises:
            InvalidValueError: the layer is not built, or the table has another rank or number of channels.
        """
        _check_built(self)
        table = ops.convert_to_numpy(table)
        *size, channels = self.table.shape
        if table.ndim != len(size) + 1 or table.shape[-1] != channels:
            raise InvalidValueError(
                f"{self.name}: a table of shape {table.shape} cannot be resized to {tuple(self.table.shape)}; "
                "give one of the same rank and channels"
            )
        self.table.assign(resize_positions(table, size if len(size) == 2 else size[0]))

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: it adds."""
        return 0

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="kzoo")
class RelativePositionBias(keras.layers.Layer):
    """Adds to attention logits what each head has learned about the offset of query and key (Swin).

    `softmax(q kᵀ / sqrt(d) + B) v` (arXiv:2103.14030, equation 4): this layer is the `+ B`, whose N² entries per
    head come from a table of (2 Mh - 1)·(2 Mw - 1) offsets, `B[q, k] = table[relative_position_index[q, k]]`. The
    table has the authors' layout (`relative_position_bias_table`) and starts as a truncated normal of standard
    deviation 0.02. A layer that holds this one builds it with the shape of its logits and adds `bias()` itself.

    Args:
        num_heads: of the logits.
        window_size: M or (Mh, Mw): the N = Mh · Mw positions are the pixels of a window, row by row.

    Input and output shape: (..., num_heads, N, N), queries before keys.

    Raises:
        InvalidValueError: sizes that are no positive integers, logits of another shape.

    Example:
        >>> RelativePositionBias(num_heads=3, window_size=7)(keras.ops.zeros((2, 3, 49, 49))).shape
        TensorShape([2, 3, 49, 49])
    """

    def __init__(self, num_heads: int, window_size: int | tuple[int, int], **kwargs):
        super().__init__(**kwargs)
        self.num_heads = check_positive("num_heads", num_heads)
        self.window_size = pair("window_size", window_size)
        self._index = relative_position_index(self.window_size)  # (N, N)

    def build(self, input_shape):
        expected = (self.num_heads, *self._index.shape)
        if tuple(input_shape[-3:]) != expected:
            raise InvalidValueError(
                f"{self.name}: num_heads={self.num_heads} and window_size={self.window_size} take logits "
                f"(..., {', '.join(map(str, expected))}), got shape {tuple(input_shape)}"
            )
        height, width = offsets("window_size", self.window_size)
        self.table = self.add_weight(
            shape=(height * width, self.num_heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            autocast=False,  # float32 in mixed precision
            name="table",
        )
        axes = dict(zip((-3, -2, -1), expected, strict=True))
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes=axes)  # logits of one head would broadcast

    def bias(self):
        """B in the dtype of the table, which is float32 in mixed precision too: (num_heads, N, N)."""
        # Along the last axis, so that the table's gradient is dense; exporting folds all of it into a constant.
        by_head = ops.take(ops.transpose(self.table), self._index.reshape(-1), axis=1)  # (num_heads, N²)
        return ops.reshape(by_head, (self.num_heads, *self._index.shape))

    def call(self, logits):
        bias = self.bias()
        dtype = keras.backend.result_type(logits.dtype, bias.dtype)
        return ops.cast(ops.cast(logits, dtype) + bias, logits.dtype)

    def assign_resized(self, table, window_size: int | tuple[int, int]) -> None:
        """Sets the table from one made for `window_size`, by bicubic interpolation; see `resize_relative_bias`.

        Raises:
            InvalidValueError: the layer is not built, or the table is not one of `window_size` with the same heads.
        """
        _check_built(self)
        table = resize_relative_bias(table, window_size, self.window_size)
        if table.shape[1] != self.num_heads:
            raise InvalidValueError(f"{self.name}: the table has {table.shape[1]} heads, not {self.num_heads}")
        self.table.assign(table)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: it adds."""
        return 0

    def get_config(self):
        return super().get_config() | {"num_heads": self.num_heads, "window_size": self.window_size}
