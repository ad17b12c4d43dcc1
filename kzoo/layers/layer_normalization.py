"""Layer normalisation of the channels, as files compute it best."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_number


@keras.saving.register_keras_serializable(package="kzoo")
class LayerNormalization(keras.layers.LayerNormalization):
    """`gamma * (x - mean) / √(variance + epsilon) + beta` over the channels (arXiv:1607.06450, equation 4).

    Keras computes `x * (gamma / σ) + (beta - mean * gamma / σ)`: one more product of the size of the map, and one of a
    map of one channel with a vector, which mobile GPU delegates refuse (`kzoo.edge.gpu`). Arguments, weights and
    results are those of `keras.layers.LayerNormalization`.

    Args:
        axis: -1, the channels.
        epsilon: added to the variance, above 0.

    Input and output shape: (..., channels).

    Raises:
        InvalidValueError: another axis, `rms_scaling`, or an epsilon that is not above 0.

    Example:
        >>> LayerNormalization(epsilon=1e-5)(keras.ops.ones((2, 5, 7, 16))).shape
        TensorShape([2, 5, 7, 16])
    """

    def __init__(self, axis: int | list[int] = -1, epsilon: float = 1e-3, **kwargs):
        check_number("epsilon", epsilon, lambda value: value > 0, "above 0, such as 1e-5")
        super().__init__(axis=-1, epsilon=epsilon, **kwargs)
        if not isinstance(axis, (int, list)) or axis not in (-1, [-1]) or self.rms_scaling:
            raise InvalidValueError(
                f"LayerNormalization {self.name!r}: axis={axis!r} and rms_scaling={self.rms_scaling} are not "
                "accepted, the channels alone are; use keras.layers.LayerNormalization"
            )

    def call(self, x):
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))  # squares of large ones overflow half precision
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        if self.gamma is not None:
            x = x * ops.cast(self.gamma, x.dtype)
        if self.beta is not None:
            x = x + ops.cast(self.beta, x.dtype)
        return ops.cast(x, self.compute_dtype)

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds are counted: two for a value, as of every normalisation."""
        return 0
