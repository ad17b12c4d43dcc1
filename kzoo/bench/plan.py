"""What `kzoo bench` measures, checked before any work."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from kzoo.errors import InvalidValueError, check_choice
from kzoo.needs import need_tensorflow_backend
from kzoo.precisions import PRECISIONS
from kzoo.registry import lookup, select_models

KERAS_APPLICATIONS = "keras.applications"
COUNTERPARTS = {  # model of the zoo -> constructor in keras.applications
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "resnet50_v1": "ResNet50",
    "resnet101_v1": "ResNet101",
    "resnet152_v1": "ResNet152",
    "resnet50_v2": "ResNet50V2",
    "resnet101_v2": "ResNet101V2",
    "resnet152_v2": "ResNet152V2",
    "inception_v3": "InceptionV3",
    "inception_v3_keras": "InceptionV3",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and for how long."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME...")]
    """Models, or shell-style patterns of them such as "resnet50*" (quote them)."""
    precisions: tuple[str, ...] = tuple(name for name, precision in PRECISIONS.items() if not precision.slow)
    """Precisions of the LiteRT files; default: those that LiteRT has fast kernels for."""
    threads: tuple[int, ...] = tuple(dict.fromkeys((1, os.cpu_count() or 1)))
    """Numbers of threads of the LiteRT interpreter and of the matrix product that is its ceiling. TensorFlow takes all
    cores."""
    keras: bool = True
    """Whether to time Keras too: plain and folded, TensorFlow's graph and XLA."""
    batch_size: int = 8
    """Number of images that Keras takes at once, beside one."""
    input_size: int | None = None
    """Height and width of the images; default: the model's own."""
    against: tuple[str, ...] = ()
    """Rivals of the LiteRT files: "keras.applications", exported the same way, or .tflite files."""
    rounds: int = 30
    """Number of times that each is measured."""
    seconds: float | None = None
    """Time for a model in seconds, after which no other round begins; default: no limit."""

    @property
    def models(self) -> list[str]:
        """The names that the patterns match.

        Raises:
            InvalidValueError: no pattern.
            UnknownNameError: one that matches nothing.
        """
        return select_models(self.names)

    def image_shape(self, name: str) -> tuple[int, int, int]:
        """(height, width, channels) of the images of a model."""
        shape = lookup(name).input_shape
        return shape if self.input_size is None else (self.input_size, self.input_size, shape[2])

    def check(self) -> None:
        """Refuses what cannot be measured, before anything is built for long.

        Raises:
            InvalidValueError, UnknownNameError: what was given, and what is accepted.
            BackendError: Keras does not compute with TensorFlow.
        """
        import keras

        from kzoo.zoo import build

        names = self.models
        need_tensorflow_backend("kzoo bench")
        for field in ("precisions", "threads"):
            if not getattr(self, field):
                raise InvalidValueError(f"{field}=() gives nothing to measure; give one or more")
        for field in ("precisions", "threads", "against"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise InvalidValueError(f"{field}={values} holds one of them twice")
        for precision in self.precisions:
            check_choice("precision", precision, PRECISIONS)
        for threads in self.threads:
            check_choice("threads", threads, range(1, (os.cpu_count() or 1) + 1))
        for field in ("rounds", "batch_size"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise InvalidValueError(f"{field}={value!r} must be an integer, 1 or more")
        if self.seconds is not None and not self.seconds > 0:
            raise InvalidValueError(f"seconds={self.seconds!r} must be above 0")
        for rival in self.against:
            self._check_against(rival, names)
        if self.input_size is not None:
            for name in names:  # a model knows which sizes it takes
                build(name, input_shape=self.image_shape(name))
                keras.backend.clear_session()

    def _check_against(self, rival: str, names: list[str]) -> None:
        from kzoo.edge import LiteRTModel

        if rival == KERAS_APPLICATIONS:
            without = [name for name in names if name not in COUNTERPARTS]
            if without:
                raise InvalidValueError(
                    f"keras.applications has no counterpart of {', '.join(without)}; "
                    f"it has one of {', '.join(COUNTERPARTS)}"
                )
            return
        if Path(rival).suffix != ".tflite":
            raise InvalidValueError(f"against={rival!r} must be 'keras.applications' or a .tflite file")
        shape = LiteRTModel(rival).input_shape
        for name in names:
            wanted = (1, *self.image_shape(name))
            if sorted(shape) != sorted(wanted):  # channels may come first
                raise InvalidValueError(f"{rival} takes images of shape {shape}, and {name} of shape {wanted}")
