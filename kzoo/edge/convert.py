"""Export to LiteRT: static batch, built-in ops only, checked against Keras before the file is kept."""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from kzoo.edge.quantize import quantize_int8, quantize_int8_dynamic
from kzoo.edge.runtime import LiteRTModel
from kzoo.errors import ExportError, InvalidValueError, check_choice
from kzoo.files import atomic_path, ensure_writable
from kzoo.models.inception import without_auxiliary

# precision -> largest accepted norm of the error over the norm of Keras' output. Float files differ by
# rounding; integers are coarse, and the bound only rejects files that are broken.
PRECISIONS = {"float32": 1e-4, "int8": 0.5, "int8_dynamic": 0.5}
VERIFY_IMAGES = 16


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """A file that `export` wrote and checked.

    Attributes:
        path: of the file.
        precision: a name in `PRECISIONS`.
        size_bytes: of the file.
        input_shape: static (batch, height, width, channels).
        ops: built-in op -> how often it stands in the file.
        xnnpack_partitions: pieces in which the delegate runs it; 1 is best.
        max_abs_error: largest absolute difference to Keras' outputs.
        max_rel_error: the same over the largest absolute output.
        verified_on: what was compared: calibration images or noise, and how many.
    """

    path: str
    precision: str
    size_bytes: int
    input_shape: tuple[int, ...]
    ops: dict[str, int]
    xnnpack_partitions: int
    max_abs_error: float
    max_rel_error: float
    verified_on: str


def export(
    model: keras.Model,
    path: str | Path,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    batch_size: int = 1,
) -> ExportReport:
    """Writes `model` as a LiteRT file and proves that it computes what Keras computes.

    The file has a static batch and TFLite built-in ops only. `"int8"` quantizes weights, activations, input
    and output; where the calibration images span 0 to 255, its input is the pixel minus 128. `"int8_dynamic"`
    quantizes the weights of linear layers and, as they run, what these multiply; the rest stays float.

    Args:
        model: any functional model with one image input and one output; fold it first
            (`kzoo.fold_batch_norm`) to be sure that no normalisation is left. Auxiliary heads, which serve
            training alone, are left out.
        path: ends in `.tflite`. An existing file is replaced once the new one has passed.
        precision: `"float32"`, `"int8"` or `"int8_dynamic"`.
        calibration: images (n, height, width, channels) of 0 to 255, needed for `"int8"`, which takes the
            ranges of its activations from them: 100 or more from the training set. The first 16 also serve
            to compare the file with Keras; without any, noise does.
        batch_size: images per invocation.

    Returns:
        An `ExportReport`.

    Raises:
        InvalidValueError: unknown precision, no `.tflite` suffix, calibration images of the wrong shape,
            range or number.
        OutputError: the directory cannot be written.
        ExportError: the model needs another op, or the file disagrees with Keras. No file is left.

    Example:
        >>> report = kzoo.export(model, "resnet50.tflite", precision="int8", calibration=train_images[:200])
        >>> report.xnnpack_partitions, report.size_bytes
    """
    path = Path(path)
    model = without_auxiliary(model)
    shape = _check(model, path, precision, calibration, batch_size)
    ensure_writable(path.parent, need_bytes=4 * model.count_params())
    content = convert(model, (batch_size, *shape))
    if precision == "int8":
        content = quantize_int8(content, np.asarray(calibration, "float32"))
    elif precision == "int8_dynamic":
        content = quantize_int8_dynamic(content)

    if calibration is None:
        images = _noise(shape)
        verified_on = f"{VERIFY_IMAGES} images of noise"
    else:
        images = np.asarray(calibration[:VERIFY_IMAGES], "float32")
        verified_on = f"{len(images)} calibration images"
    lite = LiteRTModel(content)
    expected = keras.ops.convert_to_numpy(model(images, training=False)).astype("float32")
    error = np.abs(lite.predict(images) - expected)
    _judge(model, precision, error, expected, verified_on)

    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return ExportReport(
        path=str(path),
        precision=precision,
        size_bytes=len(content),
        input_shape=lite.input_shape,
        ops=lite.op_histogram(),
        xnnpack_partitions=lite.xnnpack_partitions(),
        max_abs_error=float(error.max()),
        max_rel_error=float(error.max() / max(np.abs(expected).max(), 1e-30)),
        verified_on=verified_on,
    )


def _noise(shape: tuple[int, int, int]) -> np.ndarray:
    """Random pixels of rising contrast: on full contrast alone a trained classifier is sure, whatever the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (VERIFY_IMAGES, *shape))
    contrast = np.linspace(0, 1, VERIFY_IMAGES)[:, None, None, None]
    return (127.5 + (pixels - 127.5) * contrast).astype("float32")


def _check(model, path: Path, precision: str, calibration, batch_size: int) -> tuple[int, int, int]:
    """Checks every argument before any work; returns the image shape."""
    check_choice("precision", precision, PRECISIONS)
    if keras.backend.backend() != "tensorflow":
        raise ExportError(f"export needs KERAS_BACKEND=tensorflow, and it is {keras.backend.backend()!r}")
    if path.suffix != ".tflite":
        raise InvalidValueError(f"path={str(path)!r} must end in .tflite")
    if type(batch_size) is not int or batch_size < 1:
        raise InvalidValueError(f"batch_size={batch_size!r} must be a positive integer")
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if len(inputs) != 1 or len(outputs) != 1 or isinstance(getattr(model, "output", None), (dict, list, tuple)):
        raise ExportError(
            f"{model.name} has {len(inputs)} inputs and {len(outputs)} outputs (a subclassed model has none); "
            "a functional model with one tensor of each is exported"
        )
    trained = (layer for layer in model.layers if layer.weights)
    half = next((layer for layer in trained if layer.compute_dtype in ("float16", "bfloat16")), None)
    if half is not None:
        raise ExportError(
            f"layer {half.name!r} of {model.name} computes in {half.compute_dtype}; build the model again under "
            "keras.config.set_dtype_policy('float32') and give it these weights with set_weights"
        )
    shape = tuple(inputs[0].shape[1:])
    if len(shape) != 3 or None in shape:
        raise ExportError(
            f"{model.name} takes inputs of shape {shape}; a file needs a static (height, width, channels): "
            "build with input_shape=(height, width, channels)"
        )
    if calibration is None:
        if precision == "int8":
            raise InvalidValueError("precision='int8' needs calibration images: 100 or more from the training set")
        return shape
    calibration = np.asarray(calibration)
    if calibration.ndim != 4 or len(calibration) == 0 or calibration.shape[1:] != shape:
        raise InvalidValueError(f"calibration has shape {calibration.shape}; images of shape (n, {shape}) are needed")
    if not np.isfinite(calibration).all():
        raise InvalidValueError("calibration holds NaN or infinite pixels")
    if "preprocessing" in (layer.name for layer in model.layers):
        low, high = float(calibration.min()), float(calibration.max())
        if low < 0 or high > 255 or high <= 1:
            raise InvalidValueError(f"calibration pixels are {low:g} to {high:g}; the model eats pixels of 0 to 255")
    return shape


def convert(model: keras.Model, input_shape: tuple[int, ...]) -> bytes:
    """Converts to a float32 LiteRT file with built-in ops and a static shape.

    Raises:
        ExportError: an op has no built-in counterpart; the message names the Keras layer.
    """
    import tensorflow as tf

    signature = [keras.InputSpec(shape=input_shape, dtype="float32", name=model.inputs[0].name)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.tflite"
        try:
            with _quiet_stderr():
                model.export(
                    path,
                    format="litert",
                    verbose=False,
                    input_signature=signature,
                    target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
                )
        except Exception as error:  # the converter raises its own type, which is not public
            raise ExportError(_explain(model, str(error))) from error
        return path.read_bytes()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silences the converter's log, which its C++ half writes to file descriptor 2 whatever Python says."""
    kept = os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _explain(model: keras.Model, message: str) -> str:
    """One line about a failed conversion: the layer and the op that stood in the way."""
    scopes = {scope for place in re.findall(r'"([^"]+/[^"]+)@', message) for scope in place.split("/")}
    named = [layer.name for layer in model.layers if any(_is_scope_of(scope, layer.name) for scope in scopes)]
    ops = sorted(set(re.findall(r"'(tf\.\w+)' op", message)))
    where = f"layer {named[0]!r}" if named else "a layer that the converter does not name"
    what = f"needs {', '.join(ops)}, which has no LiteRT built-in" if ops else f"failed: {message.splitlines()[0]}"
    return f"cannot export {model.name}: {where} {what}; replace the layer or export the part before it"


def _is_scope_of(scope: str, layer: str) -> bool:
    """Whether TensorFlow named `scope` after `layer`; it adds a number where the name was taken."""
    return re.fullmatch(rf"{re.escape(layer)}(_\d+)?", scope) is not None


def _judge(model, precision: str, error: np.ndarray, expected: np.ndarray, verified_on: str) -> None:
    """Raises `ExportError` unless the file agrees with Keras."""
    relative = float(np.linalg.norm(error) / max(np.linalg.norm(expected), 1e-30))
    if not relative <= PRECISIONS[precision]:  # a NaN fails too
        raise ExportError(
            f"the {precision} file of {model.name} disagrees with Keras: relative error {relative:.2g} on "
            f"{verified_on}, accepted {PRECISIONS[precision]:g}; nothing was written"
        )
