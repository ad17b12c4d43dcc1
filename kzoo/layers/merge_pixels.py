"""Half the size and four times the channels, for patch merging."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map


@keras.saving.register_keras_serializable(package="kzoo")
class MergePixels(keras.layers.Layer):
    """Concatenates the channels of each 2×2 pixels (arXiv:2103.14030, section 3.1), column by column from the top.

    A reshape, a transpose and a reshape of rank 4. Slices with a step of 2 would break the XNNPACK delegate's
    partition, and mobile GPU delegates have tensors of higher rank no more than gathers (`kzoo.edge.gpu`).

    Input shape: (batch, height, width, C), height and width known and even.
    Output shape: (batch, height / 2, width / 2, 4 C).

    Raises:
        InvalidValueError: an input that is no map of known and even size.

    Example:
        >>> MergePixels()(keras.ops.ones((2, 6, 4, 16))).shape
        TensorShape([2, 3, 2, 64])
    """

    def build(self, input_shape):
        self._check(input_shape)

    def _check(self, shape):
        check_feature_map(self, shape, static=True)
        if shape[1] % 2 or shape[2] % 2:
            raise InvalidValueError(
                f"MergePixels {self.name!r}: a map of {shape[1]}×{shape[2]} pixels has no whole 2×2 ones; pad it with "
                "keras.layers.ZeroPadding2D to an even size"
            )

    def call(self, x):
        self._check(x.shape)
        _, height, width, channels = x.shape
        x = ops.reshape(x, (-1, 2, width, channels))  # (B · rows, 2, W, C)
        x = ops.transpose(x, (0, 2, 1, 3))  # columns, each from the top
        return ops.reshape(x, (-1, height // 2, width // 2, 4 * channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height // 2, width // 2, 4 * channels

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: pixels are copied."""
        return 0
