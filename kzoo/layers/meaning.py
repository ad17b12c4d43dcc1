"""The identity that carries what a model's output means, through saving, cloning and folding."""

from collections.abc import Mapping
from typing import Any

import keras

from kzoo.errors import InvalidValueError


@keras.saving.register_keras_serializable("kzoo")
class Meaning(keras.layers.Identity):
    """Gives back what it gets, and carries what that means; `kzoo.with_classes` puts it behind the last layer.

    A plain Keras model has no place for anything but layers, so that what has to be in every copy and file of a model
    is the config of one. It costs nothing: an exported file does not have it.

    Args:
        output: fields of the `kzoo.output.Output` of the model, as JSON values.
        pixels: fields of the `kzoo.images.Pixels` that make the model's input of a picture, as JSON values; None
            where nobody told.

    Raises:
        InvalidValueError: fields that are no dict.

    Call arguments:
        inputs: tensor of any shape and type.

    Returns:
        `inputs`.

    Example:
        >>> model = kzoo.with_classes(kzoo.build("cifar_resnet20", num_classes=2), ["cat", "dog"])
        >>> model.layers[-1].output_fields["class_names"]
        ['cat', 'dog']
    """

    def __init__(self, output: Mapping[str, Any], pixels: Mapping[str, Any] | None = None, **options):
        for field, value in (("output", output), ("pixels", {} if pixels is None else pixels)):
            if not isinstance(value, Mapping):
                raise InvalidValueError(f"{field}={value!r} must be a dict of fields; kzoo.with_classes makes it")
        super().__init__(
            **{"name": "meaning"} | options | {"autocast": False}
        )  # probabilities stay float32 in half precision
        self.output_fields = dict(output)
        self.pixel_fields = None if pixels is None else dict(pixels)

    def macs(self, input_shape: tuple[int, ...]) -> int:
        """Multiply-adds: none."""
        return 0

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"output": self.output_fields, "pixels": self.pixel_fields}
