"""Channel attention: squeeze-and-excitation, and the channel half of CBAM."""

import keras
from keras import ops

from kzoo.errors import check_choice
from kzoo.layers import checks
from kzoo.layers.checks import check_feature_map, check_flag, check_number, check_positive
from kzoo.layers.maximum import maximum

DESCRIPTORS = ("avg", "max", "both")


@keras.saving.register_keras_serializable(package="kzoo")
class ChannelAttention(keras.layers.Layer):
    """Scales every channel by a gate computed from the whole map (CBAM, arXiv:1807.06521, equation 2).

    `M_c(F) = sigmoid(W1(relu(W0(avg(F)))) + W1(relu(W0(max(F)))))`, and the output is `M_c(F) * F`. The two
    descriptors are stacked, so the shared MLP runs once.

    Args:
        reduction: the hidden layer has C / reduction units (r in the paper).
        descriptor: `"avg"`, `"max"` or `"both"`: how a channel's map becomes one number.
        activation: between the two dense layers.
        gate_activation: of the sum, giving the gates.
        use_bias: whether the dense layers have biases.
        divisor: the hidden width is C / reduction rounded to the nearest multiple of `divisor` (halves up),
            and at least `divisor`.

    Input and output shape: (batch, height, width, channels).

    Raises:
        InvalidValueError: a reduction or divisor below 1, an unknown descriptor, an input that is no map.

    Example:
        >>> ChannelAttention(reduction=8)(keras.ops.ones((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(
        self,
        reduction: float = 16,
        descriptor: str = "both",
        activation="relu",
        gate_activation="sigmoid",
        use_bias: bool = False,
        divisor: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("descriptor", descriptor, DESCRIPTORS)
        self.reduction = check_number("reduction", reduction, lambda value: value >= 1, "of at least 1")
        self.descriptor = descriptor
        self.activation = checks.activation("activation", activation)
        self.gate_activation = checks.activation("gate_activation", gate_activation)
        self.use_bias = check_flag("use_bias", use_bias)
        self.divisor = check_positive("divisor", divisor)

    def hidden_units(self, channels: int) -> int:
        """Width of the MLP's hidden layer for a map of `channels`."""
        rounded = int(channels / self.reduction + self.divisor / 2) // self.divisor * self.divisor
        return max(self.divisor, rounded)

    def build(self, input_shape):
        channels = check_feature_map(self, input_shape)
        hidden = self.hidden_units(channels)
        options = dict(use_bias=self.use_bias, dtype=self.dtype_policy)
        self.reduce = keras.layers.Dense(
            hidden, activation=self.activation, kernel_initializer="he_normal", name="reduce", **options
        )
        self.expand = keras.layers.Dense(channels, name="expand", **options)
        self.reduce.build((None, None, 1, channels))
        self.expand.build((None, None, 1, hidden))

    def gates(self, x, training=None):
        """The gates M_c of a map: (batch, height, width, channels) -> (batch, 1, 1, channels)."""
        descriptors = []
        if self.descriptor != "max":
            descriptors.append(ops.mean(x, axis=(1, 2), keepdims=True))
        if self.descriptor != "avg":
            descriptors.append(maximum(x, axis=(1, 2), training=training))
        stacked = descriptors[0] if len(descriptors) == 1 else ops.concatenate(descriptors, axis=1)  # (B, 1|2, 1, C)
        logits = self.expand(self.reduce(stacked))
        if len(descriptors) == 2:
            logits = ops.sum(logits, axis=1, keepdims=True)  # (B, 1, 1, C)
        return self.gate_activation(logits)

    def call(self, x, training=None):
        return x * self.gates(x, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds of the MLP for one image."""
        channels = check_feature_map(self, input_shape)
        descriptors = 2 if self.descriptor == "both" else 1
        return descriptors * 2 * channels * self.hidden_units(channels)

    def neutral(self) -> tuple[float, list[keras.Variable]]:
        """(factor, weights): with these weights at zero the layer multiplies its input by the factor."""
        return float(self.gate_activation(ops.zeros(()))), list(self.expand.weights)

    def get_config(self):
        return super().get_config() | {
            "reduction": self.reduction,
            "descriptor": self.descriptor,
            "activation": keras.activations.serialize(self.activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "use_bias": self.use_bias,
            "divisor": self.divisor,
        }


@keras.saving.register_keras_serializable(package="kzoo")
class SqueezeExcite(ChannelAttention):
    """Squeeze-and-excitation (arXiv:1709.01507, equations 2 to 4): `x * sigmoid(W2 relu(W1 avg(x)))`.

    It is `ChannelAttention` on the average alone, with biases; the arguments are the same. The hidden width
    is rounded to a multiple of 8 and is at least 8, as in the checkpoints that are in use.

    Example:
        >>> SqueezeExcite(reduction=16)(keras.ops.ones((2, 5, 7, 64))).shape
        TensorShape([2, 5, 7, 64])
    """

    def __init__(
        self,
        reduction: float = 16,
        descriptor: str = "avg",
        activation="relu",
        gate_activation="sigmoid",
        use_bias: bool = True,
        divisor: int = 8,
        **kwargs,
    ):
        super().__init__(reduction, descriptor, activation, gate_activation, use_bias, divisor, **kwargs)
