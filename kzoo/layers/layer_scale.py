"""A learned factor for every channel of a residual branch."""

import keras
from keras import ops

from kzoo.layers.checks import check_feature_map, check_number


@keras.saving.register_keras_serializable(package="kzoo")
class LayerScale(keras.layers.Layer):
    """Multiplies every channel by a learned factor that starts small (arXiv:2103.17239, section 2, equation 2).

    At the end of a residual branch it makes a new block almost the identity, so that deep transformers train.

    Args:
        initial: what every factor starts as.

    Input and output shape: (batch, height, width, channels).

    Raises:
        InvalidValueError: an initial factor of 0 or less, an input that is no map.

    Example:
        >>> LayerScale(0.1)(keras.ops.ones((2, 5, 7, 32)))[0, 0, 0, 0]  # 0.1
    """

    def __init__(self, initial: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.initial = check_number("initial", initial, lambda value: value > 0, "above 0, such as 1e-5")
        self.supports_masking = True

    def build(self, input_shape):
        self.scale = self.add_weight(
            name="scale",
            shape=(check_feature_map(self, input_shape),),
            initializer=keras.initializers.Constant(self.initial),
        )

    def call(self, x):
        return x * ops.cast(self.scale, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """None counted: one product for each value, as in a normalisation."""
        return 0

    def get_config(self):
        return super().get_config() | {"initial": self.initial}
