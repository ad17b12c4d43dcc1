"""Stochastic depth: residual branches that are missing at random during training."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_number, is_integer


@keras.saving.register_keras_serializable(package="kzoo")
class DropPath(keras.layers.Layer):
    """Drops a residual branch for whole samples (stochastic depth, arXiv:1603.09382, equation 2).

    In training every sample is multiplied by `b / (1 - rate)`, with b = 0 at probability `rate` and 1 otherwise;
    put the layer after a residual branch, before the addition. The paper draws b once for a mini-batch and
    multiplies by the survival probability at inference (equation 5); here each sample has its own b, and the
    division in training keeps the expectation, so that at inference, or at rate 0, the layer does nothing. A frozen
    layer, `trainable = False`, does nothing in training either, as a frozen `BatchNormalization` infers.

    Args:
        rate: the probability of dropping a sample, 1 - p_l in the paper; at least 0 and below 1.
        seed: an integer makes the sequence of masks repeat.

    Input and output shape: (batch, ...), any rank.

    Raises:
        InvalidValueError: a rate outside [0, 1).

    Example:
        >>> branch = keras.ops.ones((1000, 5, 7, 32))
        >>> float(keras.ops.max(DropPath(0.5, seed=1)(branch, training=True)))
        2.0
    """

    def __init__(self, rate: float = 0.0, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_number("rate", rate, lambda value: 0 <= value < 1, "of at least 0 and below 1, such as 0.1")
        if seed is not None and not is_integer(seed, 0):
            raise InvalidValueError(f"seed={seed!r} must be an integer of at least 0, or None")
        self.seed = None if seed is None else int(seed)
        self.supports_masking = True
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(self.seed)

    def call(self, x, training=False):
        if not (training and self.trainable) or self.rate == 0:
            return x
        keep = 1 - self.rate
        draws = keras.random.uniform((ops.shape(x)[0], *[1] * (len(x.shape) - 1)), seed=self.seed_generator)
        return x * (ops.cast(draws < keep, x.dtype) / keep)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds: at inference it does nothing."""
        return 0

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
