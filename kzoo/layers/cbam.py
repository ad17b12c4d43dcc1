"""Spatial attention and the convolutional block attention module (CBAM)."""

import keras
import numpy as np
from keras import ops

from kzoo.errors import check_choice
from kzoo.layers import checks
from kzoo.layers.checks import check_feature_map, check_flag, check_odd
from kzoo.layers.column_convolution import column_convolution
from kzoo.layers.maximum import maximum
from kzoo.layers.squeeze_excite import DESCRIPTORS, ChannelAttention

ORDERS = ("channel_spatial", "spatial_channel", "parallel")


@keras.saving.register_keras_serializable(package="kzoo")
class SpatialAttention(keras.layers.Layer):
    """Scales every position by a gate computed from its neighbourhood (arXiv:1807.06521, equation 3).

    `M_s(F) = sigmoid(f([avg(F); max(F)]))` with average and maximum over the channels and f a k×k
    convolution to one channel; the output is `M_s(F) * F`. As in the authors' code, batch normalisation
    follows the convolution.

    Args:
        kernel_size: k, an odd number; the paper compares 3 and 7 (Table 2).
        descriptor: `"avg"`, `"max"` or `"both"`: how the channels at a position become one number.
        gate_activation: of the convolution's output.
        use_batch_norm: whether batch normalisation follows the convolution, which then has no bias.

    Input and output shape: (batch, height, width, channels).

    Raises:
        InvalidValueError: an even kernel size, an unknown descriptor, an input that is no map.

    Example:
        >>> SpatialAttention(kernel_size=3)(keras.ops.ones((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(
        self,
        kernel_size: int = 7,
        descriptor: str = "both",
        gate_activation="sigmoid",
        use_batch_norm: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("descriptor", descriptor, DESCRIPTORS)
        self.kernel_size = check_odd("kernel_size", kernel_size)
        self.descriptor = descriptor
        self.gate_activation = checks.activation("gate_activation", gate_activation)
        self.use_batch_norm = check_flag("use_batch_norm", use_batch_norm)
        self.conv = keras.layers.Conv2D(
            1, kernel_size, padding="same", use_bias=not use_batch_norm, name="conv", dtype=self.dtype_policy
        )
        self.batch_norm = None
        if use_batch_norm:
            self.batch_norm = keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name="batch_norm", dtype=self.dtype_policy
            )

    def build(self, input_shape):
        check_feature_map(self, input_shape)
        self.conv.build((*input_shape[:3], 2 if self.descriptor == "both" else 1))
        if self.batch_norm:
            self.batch_norm.build((*input_shape[:3], 1))

    def gates(self, x, training=None):
        """The gates M_s of a map: (batch, height, width, channels) -> (batch, height, width, 1)."""
        descriptors = []
        if self.descriptor != "max":
            descriptors.append(ops.mean(x, axis=-1, keepdims=True))
        if self.descriptor != "avg":
            descriptors.append(maximum(x, axis=-1, training=training))
        x = descriptors[0] if len(descriptors) == 1 else ops.concatenate(descriptors, axis=-1)
        logits = column_convolution(x, self.conv.kernel, self.conv.bias)
        if self.batch_norm:
            logits = self.batch_norm(logits)
        return self.gate_activation(logits)

    def call(self, x, training=None):
        return x * self.gates(x, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds of the convolution for one image."""
        check_feature_map(self, input_shape)
        _, height, width, _ = input_shape
        return height * width * self.kernel_size**2 * (2 if self.descriptor == "both" else 1)

    def folded(self) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """An equal layer without batch normalisation, and the weights to set once it is built."""
        weights = [np.asarray(weight) for weight in self.get_weights()]
        if self.batch_norm:
            kernel, gamma, beta, mean, variance = (weight.astype("float64") for weight in weights)
            scale = gamma / np.sqrt(variance + self.batch_norm.epsilon)
            weights = [kernel * scale, beta - mean * scale]
        return type(self).from_config(self.get_config() | {"use_batch_norm": False}), weights

    def neutral(self) -> tuple[float, list[keras.Variable]]:
        """(factor, weights): with these weights at zero the layer multiplies its input by the factor."""
        norm = self.batch_norm
        weights = [norm.gamma, norm.beta] if norm else list(self.conv.weights)
        return float(self.gate_activation(ops.zeros(()))), weights

    def get_config(self):
        return super().get_config() | {
            "kernel_size": self.kernel_size,
            "descriptor": self.descriptor,
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "use_batch_norm": self.use_batch_norm,
        }


@keras.saving.register_keras_serializable(package="kzoo")
class CBAM(keras.layers.Layer):
    """Convolutional block attention module (arXiv:1807.06521, equation 1): channel, then spatial attention.

    `F' = M_c(F) * F`, `F'' = M_s(F') * F'`. The paper also tries (Table 3) the opposite order and both in
    parallel, which here means `F'' = M_c(F) * M_s(F) * F`: both gates see the same input.

    Args:
        reduction: of the channel attention's MLP, whose hidden layer has max(1, C / reduction) units, rounded.
        kernel_size: of the spatial attention, an odd number.
        order: `"channel_spatial"`, `"spatial_channel"` or `"parallel"`.
        descriptor: `"avg"`, `"max"` or `"both"`, of both attentions.
        gate_activation: of both attentions.
        use_bias: whether the MLP has biases.
        use_batch_norm: whether batch normalisation follows the spatial convolution.

    Input and output shape: (batch, height, width, channels).

    Raises:
        InvalidValueError: an unknown order or descriptor, an even kernel size, an input that is no map.

    Example:
        >>> CBAM(order="parallel")(keras.ops.ones((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(
        self,
        reduction: float = 16,
        kernel_size: int = 7,
        order: str = "channel_spatial",
        descriptor: str = "both",
        gate_activation="sigmoid",
        use_bias: bool = False,
        use_batch_norm: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("order", order, ORDERS)
        self.order = order
        self.channel = ChannelAttention(
            reduction, descriptor, "relu", gate_activation, use_bias, name="channel", dtype=self.dtype_policy
        )
        self.spatial = SpatialAttention(
            kernel_size, descriptor, gate_activation, use_batch_norm, name="spatial", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        check_feature_map(self, input_shape)
        self.channel.build(input_shape)
        self.spatial.build(input_shape)

    def call(self, x, training=None):
        if self.order == "channel_spatial":
            return self.spatial(self.channel(x))
        if self.order == "spatial_channel":
            return self.channel(self.spatial(x))
        return x * self.channel.gates(x, training=training) * self.spatial.gates(x, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds for one image."""
        return self.channel.macs(input_shape) + self.spatial.macs(input_shape)

    def folded(self) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """An equal layer without batch normalisation, and the weights to set once it is built."""
        _, spatial_weights = self.spatial.folded()
        layer = type(self).from_config(self.get_config() | {"use_batch_norm": False})
        return layer, [*self.channel.get_weights(), *spatial_weights]

    def neutral(self) -> tuple[float, list[keras.Variable]]:
        """(factor, weights): with these weights at zero the layer multiplies its input by the factor."""
        (channel, of_channel), (spatial, of_spatial) = self.channel.neutral(), self.spatial.neutral()
        return channel * spatial, of_channel + of_spatial

    def get_config(self):
        spatial, channel = self.spatial.get_config(), self.channel
        return super().get_config() | {
            "reduction": channel.reduction,
            "kernel_size": self.spatial.kernel_size,
            "order": self.order,
            "descriptor": channel.descriptor,
            "gate_activation": spatial["gate_activation"],
            "use_bias": channel.use_bias,
            "use_batch_norm": self.spatial.use_batch_norm,
        }
