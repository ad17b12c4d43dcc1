"""Muon, for kernels of convolutions too."""

import math
import re

import keras
from keras import ops

from kzoo.train.decay import is_kernel


@keras.saving.register_keras_serializable("kzoo")
class Muon(keras.optimizers.Muon):
    """Muon for the kernels of a network, with AdamW for all else and for the head.

    A kernel is a matrix from all that it reads to what it gives, as the author has it (Jordan 2024, "Muon: An
    optimizer for hidden layers in neural networks"): that of a convolution is (height · width · inputs, outputs).
    `keras.optimizers.Muon` leaves convolutions to AdamW. Steps are scaled as in arXiv:2502.16982, section 2.2.

    Example:
        >>> Muon(learning_rate=0.01, exclude_layers=["head"])
    """

    def _should_use_adamw(self, variable) -> bool:
        if any(re.search(pattern, variable.path) for pattern in self.exclude_layers):
            return True
        return not is_kernel(variable) or variable.shape[-1] == 1

    def lr_adjust(self, x):
        inputs, outputs = math.prod(x.shape[:-1]), x.shape[-1]
        return x * (self.rms_rate * math.sqrt(max(inputs, outputs)))

    def zeropower_via_newtonschulz5(self, x, steps: int):
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape)
