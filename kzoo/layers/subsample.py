"""Parameter-free shortcuts between maps of different sizes."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_feature_map, check_positive


@keras.saving.register_keras_serializable(package="kzoo")
class Subsample(keras.layers.Layer):
    """Keeps every `strides`-th pixel and pads the channels with zeros: ResNet's shortcut option A.

    "Identity mapping with extra zero entries padded for increasing dimensions" (arXiv:1512.03385, section
    3.3), performed with a stride. The zeros go to both sides in equal parts, as in the CIFAR checkpoints that
    are in use. The pixels are picked by a 1×1 depthwise convolution with ones: a strided slice, or a 1×1
    pooling, would break the XNNPACK delegate's partition.

    Args:
        strides: the step between kept pixels.
        channels: of the output; `None` keeps the input's.

    Input shape: (batch, height, width, C). Output shape: (batch, ceil(height / strides),
    ceil(width / strides), channels).

    Raises:
        InvalidValueError: fewer output than input channels, or an odd number of channels to add.

    Example:
        >>> Subsample(strides=2, channels=32)(keras.ops.ones((1, 5, 7, 16))).shape
        TensorShape([1, 3, 4, 32])
    """

    def __init__(self, strides: int = 2, channels: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.strides = check_positive("strides", strides)
        self.channels = None if channels is None else check_positive("channels", channels)

    def build(self, input_shape):
        added = (self.channels or input_shape[-1]) - check_feature_map(self, input_shape)
        if added < 0 or added % 2:
            raise InvalidValueError(
                f"{self.name}: cannot pad {input_shape[-1]} channels to {self.channels} with as many zeros on "
                "each side; use an output width that is larger by an even number"
            )

    def call(self, x):
        channels = x.shape[-1]
        if self.strides > 1:
            x = ops.depthwise_conv(x, ops.ones((1, 1, channels, 1), dtype=x.dtype), strides=self.strides)
        side = ((self.channels or channels) - channels) // 2
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (side, side))) if side else x

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        height, width = (None if size is None else -(-size // self.strides) for size in (height, width))
        return batch, height, width, self.channels or channels

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: pixels are copied."""
        return 0

    def get_config(self):
        return super().get_config() | {"strides": self.strides, "channels": self.channels}
