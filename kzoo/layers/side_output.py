"""Keeping a branch in a model that its output does not need."""

import keras

from kzoo.errors import InvalidValueError


@keras.saving.register_keras_serializable(package="kzoo")
class SideOutput(keras.layers.Layer):
    """Passes on its first input; the others stay in the model, where `kzoo.pyramid` finds them by name.

    A functional model holds the layers alone that its output follows from. This one lets a branch beside the
    trunk be among them. What computes the branch costs nothing once the model is compiled or exported, as
    nothing reads it.

    Input shape: a list, the trunk's tensor first. Output shape: the trunk's.

    Raises:
        InvalidValueError: an input that is no list of two tensors or more.

    Example:
        >>> trunk, branch = keras.ops.ones((2, 5, 7, 32)), keras.ops.ones((2, 1, 1, 32))
        >>> SideOutput()([trunk, branch]).shape
        TensorShape([2, 5, 7, 32])
    """

    def build(self, input_shape):
        if len(input_shape) < 2 or not isinstance(input_shape[0], (tuple, list)):
            raise InvalidValueError(
                f"{self.name}: SideOutput takes a list, the trunk and then its side outputs, got shape {input_shape}"
            )

    def call(self, inputs):
        return inputs[0]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def macs(self, input_shape: tuple) -> int:
        """No multiply-adds."""
        return 0
