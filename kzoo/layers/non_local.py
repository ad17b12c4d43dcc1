"""The non-local block: every position of a map attends to all others."""

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers.checks import check_feature_map, check_flag, check_positive
from kzoo.layers.dot_product import tokens

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


@keras.saving.register_keras_serializable(package="kzoo")
class NonLocal(keras.layers.Layer):
    """Adds to every position a weighted mean over all positions (arXiv:1711.07971, equations 1 to 6).

    `z_i = W_z y_i + x_i` (equation 6) with `y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)` (equation 1). The pairwise
    function f is one of (section 3.2)

    - `"gaussian"`: `exp(x_i · x_j)` (equation 2),
    - `"embedded_gaussian"`: `exp(theta(x_i) · phi(x_j))` (equation 3),
    - `"dot_product"`: `theta(x_i) · phi(x_j)` (equation 4),
    - `"concatenation"`: `relu(w_f · [theta(x_i), phi(x_j)])` (equation 5).

    For the first two C(x) is the sum of f over j, which makes a softmax of unscaled dot products; for the
    others it is the number of positions j. theta, phi, g and W_z are 1×1 convolutions with biases. A new block
    is the identity (section 4.1): batch normalisation after W_z starts with gamma zero, and without it W_z
    starts at zero.

    Args:
        pairwise: the function f.
        reduction: theta, phi and g have C / reduction channels, rounded down and at least 1.
        subsample: whether 2×2 max-pooling follows phi and g (section 3.3), so that j runs over a quarter of
            the positions. An odd last row or column is dropped. `"gaussian"` has no phi and pools x.
        use_batch_norm: whether batch normalisation follows W_z.

    Input and output shape: (batch, height, width, channels).

    Raises:
        InvalidValueError: an unknown pairwise function, a reduction that is no positive integer, an input that
            is no map, a map too small to be pooled.

    Example:
        >>> NonLocal("dot_product")(keras.ops.ones((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(
        self,
        pairwise: str = "embedded_gaussian",
        reduction: int = 2,
        subsample: bool = True,
        use_batch_norm: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("pairwise", pairwise, PAIRWISE)
        self.pairwise = pairwise
        self.reduction = check_positive("reduction", reduction)
        self.subsample = check_flag("subsample", subsample)
        self.use_batch_norm = check_flag("use_batch_norm", use_batch_norm)

    def inner_channels(self, channels: int) -> int:
        """Channels of theta, phi and g for a map of `channels`."""
        return max(1, channels // self.reduction)

    def build(self, input_shape):
        channels = self._check_input(input_shape)
        inner = self.inner_channels(channels)

        def convolution(filters, name, kernel_initializer):
            return keras.layers.Conv2D(
                filters, 1, kernel_initializer=kernel_initializer, name=name, dtype=self.dtype_policy
            )

        def small():  # the authors' choice; larger kernels saturate the softmax of unscaled products
            return keras.initializers.RandomNormal(stddev=0.01)

        if self.pairwise != "gaussian":
            self.theta = convolution(inner, "theta", small())
            self.phi = convolution(inner, "phi", small())
            self.theta.build(input_shape)
            self.phi.build(input_shape)
        if self.pairwise == "concatenation":
            self.w_f = self.add_weight(shape=(2 * inner, 1), initializer=small(), name="w_f_kernel")
        self.g = convolution(inner, "g", small())
        self.g.build(input_shape)
        self.out = convolution(channels, "out", small() if self.use_batch_norm else "zeros")
        self.out.build((*input_shape[:3], inner))
        if self.use_batch_norm:
            self.batch_norm = keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, gamma_initializer="zeros", name="batch_norm", dtype=self.dtype_policy
            )
            self.batch_norm.build(input_shape)

    def _check_input(self, shape) -> int:
        channels = check_feature_map(self, shape)
        height, width = shape[1:3]
        if self.subsample and 1 in (height, width):
            raise InvalidValueError(
                f"{type(self).__name__} {self.name!r} cannot pool a map of {height}×{width} positions by 2×2; "
                "use subsample=False"
            )
        return channels

    def attention_weights(self, x):
        """The weights f(x_i, x_j) / C(x): (batch, height, width, channels) -> (batch, height · width, keys).

        The keys j are all positions, or the floor(height / 2) · floor(width / 2) pooled ones.
        """
        queries, keys = (x, x) if self.pairwise == "gaussian" else (self.theta(x), self.phi(x))
        # in float32 at least: products of large activations overflow half precision, and exp turns the rounding of
        # a logit into a relative error
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        queries = ops.cast(tokens(queries), dtype)  # (B, N, d)
        keys = ops.cast(self._keys(keys), dtype)  # (B, K, d)
        if self.pairwise in ("gaussian", "embedded_gaussian"):
            logits = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
            return ops.cast(ops.softmax(logits, axis=-1), self.compute_dtype)
        if self.pairwise == "dot_product":
            f = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
        else:  # w_f · [theta, phi] = w_theta · theta + w_phi · phi
            w_theta, w_phi = ops.split(ops.cast(self.w_f, dtype), 2)
            from_keys = ops.transpose(ops.matmul(keys, w_phi), (0, 2, 1))  # (B, 1, K)
            f = ops.relu(ops.matmul(queries, w_theta) + from_keys)
        return ops.cast(f / ops.cast(ops.shape(keys)[1], dtype), self.compute_dtype)

    def _keys(self, x):
        """(B, H, W, d) -> (B, K, d), pooled if there is subsampling."""
        return tokens(ops.max_pool(x, 2, 2, padding="valid") if self.subsample else x)

    def call(self, x):
        self._check_input(x.shape)
        return self.mix(self.attention_weights(x), x)

    def mix(self, weights, x):
        """What the layer makes of a map with these weights, (batch, height · width, keys)."""
        _, height, width, channels = ops.shape(x)
        y = ops.matmul(weights, self._keys(self.g(x)))  # (B, N, inner)
        z = self.out(ops.reshape(y, (-1, height, width, self.inner_channels(channels))))
        if self.use_batch_norm:
            z = self.batch_norm(z)
        return x + z

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds of the convolutions and the products of all pairs, for one image."""
        channels = check_feature_map(self, input_shape, static=True)
        _, height, width, _ = input_shape
        inner, positions = self.inner_channels(channels), height * width
        keys = (height // 2) * (width // 2) if self.subsample else positions
        convolutions = 2 if self.pairwise == "gaussian" else 4
        pairs = positions * keys * (channels if self.pairwise == "gaussian" else inner)
        if self.pairwise == "concatenation":
            pairs = (positions + keys) * inner
        return convolutions * positions * channels * inner + pairs + positions * keys * inner

    def folded(self) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """An equal layer without batch normalisation, and the weights to set once it is built."""
        weights = [np.asarray(weight) for weight in self.get_weights()]
        if self.use_batch_norm:  # its weights are the last
            *weights, kernel, bias, gamma, beta, mean, variance = (weight.astype("float64") for weight in weights)
            scale = gamma / np.sqrt(variance + self.batch_norm.epsilon)
            weights += [kernel * scale, (bias - mean) * scale + beta]
        return type(self).from_config(self.get_config() | {"use_batch_norm": False}), weights

    def neutral(self) -> tuple[float, list[keras.Variable]]:
        """(factor, weights): with these weights at zero the layer multiplies its input by the factor, which is 1."""
        norm = self.batch_norm if self.use_batch_norm else None
        return 1.0, [norm.gamma, norm.beta] if norm else list(self.out.weights)

    def get_config(self):
        return super().get_config() | {
            "pairwise": self.pairwise,
            "reduction": self.reduction,
            "subsample": self.subsample,
            "use_batch_norm": self.use_batch_norm,
        }
