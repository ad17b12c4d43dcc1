"""Local response normalisation, from the time before batch normalisation."""

import keras
import numpy as np
from keras import ops

from kzoo.layers.checks import check_feature_map, check_number, check_odd


@keras.saving.register_keras_serializable(package="kzoo")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides every value by the energy of its neighbours in the channels (AlexNet paper, section 3.3).

    `b_c = a_c / (k + alpha * sum_j a_j²)^beta`, where j runs over the `size` channels centred on c that exist
    (Krizhevsky, Sutskever and Hinton, 2012; used by GoogLeNet, arXiv:1409.4842). The defaults are the paper's.

    Caffe and torch divide alpha by the window's size and default to k = 1: `LocalResponseNormalization(size, k=k,
    alpha=alpha / size, beta=beta)` reproduces them, so GoogLeNet's layers are
    `LocalResponseNormalization(5, k=1.0, alpha=1e-4 / 5)`. TensorFlow's `depth_radius` is (size - 1) / 2, and its
    `bias` is k.

    The sum is a 1×1 convolution with a constant band matrix and the power an exponential: the delegate has no
    LOCAL_RESPONSE_NORMALIZATION and no POW. Half-precision maps are normalised in float32, because their
    squares would overflow from 256 on.

    Args:
        size: channels in the window, an odd number (n in the paper).
        k: the constant that keeps the denominator from zero.
        alpha: weight of the sum.
        beta: the exponent.

    Input and output shape: (batch, height, width, channels).

    Raises:
        InvalidValueError: an even size; k, alpha or beta that is not positive; an input that is no map.

    Example:
        >>> LocalResponseNormalization()(keras.ops.ones((2, 5, 7, 32))).shape
        TensorShape([2, 5, 7, 32])
    """

    def __init__(self, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, **kwargs):
        super().__init__(**kwargs)
        self.size = check_odd("size", size)
        accepted = "above 0; the paper has k=2, alpha=1e-4, beta=0.75"
        self.k, self.alpha, self.beta = (
            check_number(name, value, lambda value: value > 0, accepted)
            for name, value in (("k", k), ("alpha", alpha), ("beta", beta))
        )

    def build(self, input_shape):
        index = np.arange(check_feature_map(self, input_shape))
        self._band = np.abs(index[:, None] - index) <= self.size // 2  # (C, C)

    def call(self, x):
        dtype = keras.backend.result_type(x.dtype, "float32")
        wide = ops.cast(x, dtype)
        kernel = ops.cast(self.alpha * self._band[None, None], dtype)  # (1, 1, C, C)
        energy = self.k + ops.conv(ops.square(wide), kernel)
        return ops.cast(wide * ops.exp(-self.beta * ops.log(energy)), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: it is a normalisation, which the papers' tables leave out."""
        return 0

    def get_config(self):
        return super().get_config() | {"size": self.size, "k": self.k, "alpha": self.alpha, "beta": self.beta}
