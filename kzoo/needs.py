"""What needs TensorFlow says so in one error, before any work; all else goes without, on another backend of Keras."""

import importlib.util

from kzoo.errors import BackendError


def need_tensorflow(work: str, instead: str = "") -> None:
    """Raises unless TensorFlow is installed; it is looked for, and not imported.

    Args:
        work: what needs it, as the message begins, such as "exporting".
        instead: what else would do, as the message ends.

    Raises:
        BackendError: it is not installed.

    Example:
        >>> need_tensorflow("reading the TFDS set 'cifar10'")
        BackendError: reading the TFDS set 'cifar10' needs TensorFlow, which is not installed; pip install tensorflow
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise BackendError(f"{work} needs TensorFlow, which is not installed; pip install tensorflow{instead}")


def need_tensorflow_backend(work: str) -> None:
    """Raises unless Keras computes with TensorFlow.

    Args:
        work: what needs it, as the message begins.

    Raises:
        BackendError: it is not installed, or Keras computes with another backend.
    """
    import keras

    need_tensorflow(work, instead=", and set KERAS_BACKEND=tensorflow")
    if keras.backend.backend() != "tensorflow":
        raise BackendError(f"{work} needs KERAS_BACKEND=tensorflow, and it is {keras.backend.backend()!r}")
