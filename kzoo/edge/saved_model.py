"""SavedModel folders of TensorFlow: written by Keras' own exporter, run by TensorFlow without Keras."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from kzoo.edge.convert import signature_of
from kzoo.errors import ExportError, OutputError, explain

PARTS = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}


def check_folder(path: Path) -> None:
    """Raises `OutputError` for a folder that holds anything but a SavedModel, which would be written over."""
    if path.exists() and not (path.is_dir() and {part.name for part in path.iterdir()} <= PARTS):
        raise OutputError(f"{path} is there and no SavedModel; give a folder that is new or empty")


def write_saved_model(model: keras.Model, batch_size: int | None, path: Path) -> None:
    """Writes a SavedModel, whose endpoints `serve` and `serving_default` are the model in inference.

    Args:
        model: functional model with names that TensorFlow takes.
        batch_size: number of images per call; None for any.
        path: of the folder.

    Raises:
        ExportError: TensorFlow cannot trace the model.
    """
    try:
        model.export(path, verbose=False, input_signature=signature_of(model, batch_size))
    except Exception as error:  # of any layer's call
        raise ExportError(f"cannot export {model.name} as SavedModel: {explain(error)}") from error


class SavedModel:
    """A SavedModel, run by TensorFlow.

    Args:
        path: of the folder.

    Attributes:
        inputs, outputs: name -> shape (None for a batch of any size) and type.

    Example:
        >>> SavedModel("model").run({"image": images})["output_0"].shape
        (360, 10)
    """

    signature = "serving_default"

    def __init__(self, path: str | Path):
        import tensorflow as tf

        self._loaded = tf.saved_model.load(str(path))
        self._run = self._loaded.signatures[self.signature]
        self.inputs = {name: _detail(name, spec) for name, spec in self._run.structured_input_signature[1].items()}
        self.outputs = {name: _detail(name, spec) for name, spec in self._run.structured_outputs.items()}
        self.ops: dict[str, int] = {}
        self.runtime = f"TensorFlow {tf.__version__}"

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Output name -> array, for one batch of the size that the folder takes, input name -> array."""
        import tensorflow as tf

        outputs = self._run(**{name: tf.constant(array) for name, array in batch.items()})
        return {name: output.numpy() for name, output in outputs.items()}


def _detail(name: str, spec) -> dict:
    return {"name": name, "shape": list(spec.shape), "dtype": np.float32, "quantization": (0.0, 0)}
