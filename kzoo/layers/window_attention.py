"""Window attention of the Swin transformer, with and without shifted windows."""

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map, check_flag, check_heads, check_positive, pair
from kzoo.layers.dot_product import MASKED, absorb_into, merge_heads, number_places, split_heads, weigh
from kzoo.layers.position import RelativePositionBias
from kzoo.layers.windows import padding_to_multiple, partition, shift, unpartition


@keras.saving.register_keras_serializable(package="kzoo")
class WindowAttention(keras.layers.Layer):
    """Multi-head self-attention within windows: W-MSA and, shifted, SW-MSA (arXiv:2103.14030, section 3.2).

    `softmax(Q Kᵀ / √d + B) V` (equation 4) among the M × M pixels of each window, B from a table with one
    entry for each relative position and head. With a shift the map is rolled up and left first, and a mask
    keeps pixels apart that only meet because of the roll.

    A map whose size is no multiple of the window is padded with zeros at the bottom and right before it is
    rolled, and these pixels take part in the attention, as in the authors' code and torchvision (timm rolls
    first, which moves the seam away from its mask). Along an axis that the window covers whole, the window
    shrinks to the map and does not shift, as in the authors' code and timm.

    Args:
        num_heads: divides the channels.
        window_size: M, one number or (height, width).
        shift_size: by which the windows move, less than the window; M // 2 in the paper's every second block.
        use_bias: whether query, key and value have biases.

    Input and output shape: (batch, height, width, channels), height and width known.

    Raises:
        InvalidValueError: heads that do not divide the channels, a shift not smaller than the window, an
            input that is no map of known size.

    Example:
        >>> WindowAttention(num_heads=2, window_size=4, shift_size=2)(keras.ops.ones((2, 9, 7, 32))).shape
        TensorShape([2, 9, 7, 32])
    """

    def __init__(
        self,
        num_heads: int,
        window_size: int | tuple[int, int] = 7,
        shift_size: int | tuple[int, int] = 0,
        use_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_positive("num_heads", num_heads)
        self.window_size = pair("window_size", window_size)
        self.shift_size = pair("shift_size", shift_size, at_least=0)
        if any(step >= size for step, size in zip(self.shift_size, self.window_size, strict=True)):
            raise InvalidValueError(
                f"shift_size={shift_size!r} must be less than window_size={window_size!r} along each axis; "
                f"the paper uses {self.window_size[0] // 2}"
            )
        self.use_bias = check_flag("use_bias", use_bias)

    def build(self, input_shape):
        channels = check_feature_map(self, input_shape, static=True)
        check_heads(self, channels, self.num_heads)
        options = dict(dtype=self.dtype_policy)
        self.qkv = keras.layers.Dense(3 * channels, use_bias=self.use_bias, name="qkv", **options)
        self.qkv.build((None, None, channels))
        window, _ = self.windows(input_shape)
        self.position_bias = RelativePositionBias(self.num_heads, window, name="position_bias", **options)
        pixels = window[0] * window[1]
        self.position_bias.build((None, self.num_heads, pixels, pixels))
        self.proj = keras.layers.Dense(channels, name="proj", **options)
        self.proj.build((None, None, channels))

    def windows(self, input_shape: tuple) -> tuple[tuple[int, int], tuple[int, int]]:
        """The window and the shift that a map of this shape gets: (height, width) each."""
        pairs = [
            (size, 0) if size <= window else (window, step)
            for size, window, step in zip(input_shape[1:3], self.window_size, self.shift_size, strict=True)
        ]
        (height, rows), (width, columns) = pairs
        return (height, width), (rows, columns)

    def call(self, x):
        weights, values = self.weights_and_values(x)
        return self.mix(weights, values, x.shape)

    def weights_and_values(self, x):
        """The weights (batch · windows, num_heads, N, N) and values (batch · windows, num_heads, N, d) of a map.

        The N pixels of a window lie where `places` says; those of the padding take part, as they do in the layer.
        """
        check_feature_map(self, x.shape, static=True)
        _, height, width, channels = x.shape
        window, step = self.windows(x.shape)
        if window != self.position_bias.window_size:
            raise InvalidValueError(
                f"WindowAttention {self.name!r} was built for windows of {self.position_bias.window_size}; a map of "
                f"{height}×{width} has windows of {window}; make a layer for it, and give its table to "
                "position_bias.assign_resized"
            )
        qkv = self.qkv(self._cut(x))
        query, key, value = (
            split_heads(qkv[..., i * channels : (i + 1) * channels], self.num_heads) for i in range(3)
        )
        query = query * (channels // self.num_heads) ** -0.5
        mask = seam_mask(self._padded(x.shape), window, step) if any(step) else None
        return weigh(query, key, self.position_bias.bias(), mask), value

    def mix(self, weights, values, shape: tuple):
        """What the layer makes of a map of this shape with these weights and values."""
        _, height, width, _ = shape
        window, (rows, columns) = self.windows(shape)
        padded = self._padded(shape)
        x = unpartition(self.proj(merge_heads(ops.matmul(weights, values))), window, *padded)
        x = shift(x, -rows, -columns)
        return x[:, :height, :width] if padded != (height, width) else x

    def places(self, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Where the queries and the keys lie in a map of this shape, (windows, N) each: y · width + x, or -1."""
        found = number_places(shape[1], shape[2], self._cut)
        return found, found

    def _padded(self, shape: tuple) -> tuple[int, int]:
        """(height, width) that whole windows cover."""
        window, _ = self.windows(shape)
        height, width = (size + padding_to_multiple(size, step) for size, step in zip(shape[1:3], window, strict=True))
        return height, width

    def _cut(self, x):
        """Pads, shifts and cuts a map: (B · windows, N, channels)."""
        _, height, width, _ = x.shape
        window, (rows, columns) = self.windows(x.shape)
        bottom, right = (padded - size for padded, size in zip(self._padded(x.shape), (height, width), strict=True))
        if bottom or right:
            x = ops.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
        return partition(shift(x, rows, columns), window)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds for one map: `4 h w C² + 2 M² h w C` (the paper's equation 2) on the padded map."""
        channels = check_feature_map(self, input_shape, static=True)
        window, _ = self.windows(input_shape)
        pixels = 1
        for size, step in zip(input_shape[1:3], window, strict=True):
            pixels *= size + padding_to_multiple(size, step)
        return 4 * pixels * channels**2 + 2 * window[0] * window[1] * pixels * channels

    def absorb(self, scale: np.ndarray, offset: np.ndarray) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """A layer that gives `scale * y + offset` for each channel, and the weights to set once it is built."""
        return absorb_into(self, self.proj, scale, offset)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "window_size": self.window_size,
            "shift_size": self.shift_size,
            "use_bias": self.use_bias,
        }


def seam_mask(size: tuple[int, int], window: tuple[int, int], step: tuple[int, int]) -> np.ndarray:
    """The mask of shifted windows: `MASKED` between pixels that were no neighbours before the roll.

    Args:
        size: (height, width) of the map, multiples of the window's.
        window: (height, width).
        step: (rows, columns) of the roll.

    Returns:
        (windows, N, N) float32, N the pixels of a window.
    """
    rolled = np.zeros(size, "int32")  # which of the map's four sides a pixel came from
    if step[0]:
        rolled[-step[0] :] += 1
    if step[1]:
        rolled[:, -step[1] :] += 2
    rows, columns = size[0] // window[0], size[1] // window[1]
    sides = rolled.reshape(rows, window[0], columns, window[1]).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    return np.where(sides[:, :, None] == sides[:, None, :], 0, MASKED).astype("float32")
