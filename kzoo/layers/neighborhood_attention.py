"""Neighborhood attention: each pixel attends to its nearest ones."""

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map, check_flag, check_heads, check_odd, check_positive
from kzoo.layers.dot_product import absorb_into
from kzoo.layers.local_attention import Axis, local_mix, local_places, local_weights, plan


@keras.saving.register_keras_serializable(package="kzoo")
class NeighborhoodAttention(keras.layers.Layer):
    """Every query attends to its k × k nearest pixels (arXiv:2204.07143, equations 1 to 4).

    `softmax(Q_i · K_ρ(i)ᵀ / √d + B(i, ρ(i))) V_ρ(i)`, with ρ(i) the k × k pixels around i. At a border the
    neighbourhood is not padded but moved inside the map, so that every query sees k² pixels; B is a learned
    bias for each relative position and head. With a dilation (arXiv:2209.15001) a query sees every
    dilation-th pixel: the map is dealt to dilation² smaller ones.

    Nothing of the size (height · width)² is built, and no key is copied k² times (see `local_attention`).

    Args:
        num_heads: divides the channels.
        kernel_size: k, an odd number.
        dilation: distance between neighbours.
        use_bias: whether query, key and value have biases.

    Input and output shape: (batch, height, width, channels), height and width known and at least
    kernel_size · dilation.

    Raises:
        InvalidValueError: heads that do not divide the channels, an even kernel size, a map smaller than the
            neighbourhood or of unknown size.

    Example:
        >>> NeighborhoodAttention(num_heads=2, kernel_size=3, dilation=2)(keras.ops.ones((2, 9, 7, 32))).shape
        TensorShape([2, 9, 7, 32])
    """

    def __init__(self, num_heads: int, kernel_size: int = 7, dilation: int = 1, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = check_positive("num_heads", num_heads)
        self.kernel_size = check_odd("kernel_size", kernel_size)
        self.dilation = check_positive("dilation", dilation)
        self.use_bias = check_flag("use_bias", use_bias)

    def build(self, input_shape):
        channels = self._check_input(input_shape)
        check_heads(self, channels, self.num_heads)
        options = dict(dtype=self.dtype_policy)
        self.qkv = keras.layers.Dense(3 * channels, use_bias=self.use_bias, name="qkv", **options)
        self.qkv.build((None, None, None, channels))
        sides = 2 * self.kernel_size - 1
        self.position_bias = self.add_weight(
            name="position_bias",
            shape=(self.num_heads, sides, sides),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )
        self.proj = keras.layers.Dense(channels, name="proj", **options)
        self.proj.build((None, None, None, channels))

    def _check_input(self, shape) -> int:
        channels = check_feature_map(self, shape, static=True)
        needed = self.kernel_size * self.dilation
        if min(shape[1:3]) < needed:
            raise InvalidValueError(
                f"NeighborhoodAttention {self.name!r}: kernel_size={self.kernel_size} with dilation={self.dilation} "
                f"needs a map of at least {needed}×{needed} pixels, got {shape[1]}×{shape[2]}; use a smaller kernel "
                "or dilation, or a larger image"
            )
        return channels

    def call(self, x):
        weights, values = self.weights_and_values(x)
        return self.mix(weights, values, x.shape)

    def weights_and_values(self, x):
        """The weights (batch · blocks, num_heads, N, M) and values (batch · blocks, num_heads, M, d) of a map.

        N queries of a block see M keys of its window, at what `places` says; with a dilation there are the blocks of
        each of the dilation² maps. A key outside the neighbourhood has weight zero.
        """
        self._check_input(x.shape)
        rows, columns, mask = self._plan(x.shape)
        channels = x.shape[-1]
        x = self._deal(self.qkv(x), rows, columns)
        query = x[..., :channels] * (channels // self.num_heads) ** -0.5
        bias = self._bias(rows, columns)
        return local_weights(query, x[..., channels:], self.num_heads, rows, columns, mask, lambda query: bias)

    def mix(self, weights, values, shape: tuple):
        """What the layer makes of a map of this shape with these weights and values."""
        rows, columns, _ = self._plan(shape)
        _, height, width, channels = shape
        sizes, parts = (rows.length, columns.length), self.dilation
        if parts == 1:
            return self.proj(local_mix(weights, values, rows, columns, height, width))
        y = ops.reshape(local_mix(weights, values, rows, columns, *sizes), (-1, parts, parts, *sizes, channels))
        y = ops.reshape(ops.transpose(y, (0, 3, 1, 4, 2, 5)), (-1, sizes[0] * parts, sizes[1] * parts, channels))
        return self.proj(y[:, :height, :width])

    def places(self, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Where the queries (blocks, N) and the keys (blocks, M) lie in a map of this shape: y · width + x, or -1."""
        rows, columns, _ = self._plan(shape)
        return local_places(shape[1], shape[2], rows, columns, lambda x: self._deal(x, rows, columns))

    def _plan(self, shape: tuple) -> tuple[Axis, Axis, np.ndarray]:
        return plan(*shape[1:3], self.kernel_size, True, self.dilation)

    def _deal(self, x, rows: Axis, columns: Axis):
        """Every dilation-th pixel together: (B · dilation², height / dilation, width / dilation, channels)."""
        parts, sizes = self.dilation, (rows.length, columns.length)
        if parts == 1:
            return x
        _, height, width, channels = x.shape
        x = ops.pad(x, ((0, 0), (0, sizes[0] * parts - height), (0, sizes[1] * parts - width), (0, 0)))
        x = ops.reshape(x, (-1, sizes[0], parts, sizes[1], parts, channels))
        return ops.reshape(ops.transpose(x, (0, 2, 4, 1, 3, 5)), (-1, *sizes, channels))

    def _bias(self, rows: Axis, columns: Axis):
        """The bias between the queries of a block and the keys of its window, (num_heads, N, M).

        Keys farther away than any neighbour, which the mask hides, get the bias of the farthest.
        """
        reach = self.kernel_size - 1
        vertical, horizontal = (axis.offsets().clip(-reach, reach) + reach for axis in (rows, columns))
        bias = ops.take(self.position_bias, vertical.reshape(-1), axis=1)  # (heads, block · window, 2 k - 1)
        bias = ops.take(bias, horizontal.reshape(-1), axis=2)
        bias = ops.reshape(bias, (self.num_heads, *vertical.shape, *horizontal.shape))
        bias = ops.transpose(bias, (0, 1, 3, 2, 4))
        return ops.reshape(bias, (self.num_heads, vertical.shape[0] * horizontal.shape[0], -1))

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds of the equation for one map, `4 h w C² + 2 k² h w C`; masked products are not counted."""
        channels = self._check_input(input_shape)
        pixels = input_shape[1] * input_shape[2]
        return 4 * pixels * channels**2 + 2 * self.kernel_size**2 * pixels * channels

    def absorb(self, scale: np.ndarray, offset: np.ndarray) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """A layer that gives `scale * y + offset` for each channel, and the weights to set once it is built."""
        return absorb_into(self, self.proj, scale, offset)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "use_bias": self.use_bias,
        }
