"""From a Keras model to a float32 LiteRT file. TensorFlow's converter runs in a process apart (`kzoo.edge.worker`)."""

import bisect
import re
import tempfile
from pathlib import Path

import keras

from kzoo.apart import Apart
from kzoo.errors import ExportError, OutputError, explain

NO_ROOM = re.compile(r"No space left on device|File too large|variables_temp")
SCOPE = r"[A-Za-z0-9_.\\/>-]"  # the characters of a name scope of TensorFlow
_CONVERTER = Apart(Path(__file__).with_name("worker.py"))


def convert(model: keras.Model, input_shape: tuple[int, ...]) -> bytes:
    """Converts to a float32 LiteRT file with built-in ops and a static shape.

    Args:
        model: a functional model with one input.
        input_shape: (batch, height, width, channels), all of them numbers.

    Raises:
        ExportError: an op has no built-in counterpart, or the converter crashed; the message names the Keras layer.
            A layer has a name that TensorFlow does not take.
        OutputError: the folder for temporary files takes no more.
    """
    _check_names(model)
    if not re.fullmatch(rf"[A-Za-z0-9.]{SCOPE}*", model.name):
        model = keras.Model(model.inputs, model.outputs, name="model")
    content, failure = _try(model, input_shape)
    if content is not None:
        return content
    if NO_ROOM.search(failure.get("error", "")):
        raise OutputError(
            f"cannot write {model.name} to {tempfile.gettempdir()}, where it is converted: the disk is full, or files "
            "may not be so large; set TMPDIR to another folder"
        )
    layer = _named(model, failure.get("error", "")) or _first_that_fails(model, input_shape)
    raise ExportError(_explain(model, layer, **failure))


def _check_names(model: keras.Model) -> None:
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer) and not re.fullmatch(f"{SCOPE}+", layer.name):
            raise ExportError(
                f"cannot export {model.name}: TensorFlow does not take the layer name {layer.name!r}; build the model "
                "with names of letters, digits, '_', '-' and '.'"
            )
        if isinstance(layer, keras.Model):
            _check_names(layer)


def _try(model: keras.Model, input_shape: tuple[int, ...]) -> tuple[bytes | None, dict[str, str]]:
    """The file, or None and the converter's error or how it crashed."""
    _CONVERTER.start()
    signature = [keras.InputSpec(shape=input_shape, dtype="float32", name=re.sub(r"\W", "_", model.inputs[0].name))]
    with tempfile.TemporaryDirectory() as directory:
        saved_model, output = Path(directory, "saved_model"), Path(directory, "model.tflite")
        try:
            model.export(saved_model, verbose=False, input_signature=signature)
        except Exception as failure:  # of any layer's call
            return None, {"error": explain(failure)}
        answer = _CONVERTER.ask({"saved_model": str(saved_model), "output": str(output)})
        return None if answer else output.read_bytes(), answer


def _named(model: keras.Model, message: str) -> str:
    """The layer that the converter's error speaks of, or nothing."""
    scopes = {scope for place in re.findall(r'"([^"]+/[^"]+)@', message) for scope in place.split("/")}
    return next((layer.name for layer in model.layers if any(_is_scope_of(s, layer.name) for s in scopes)), "")


def _is_scope_of(scope: str, layer: str) -> bool:
    """Whether TensorFlow named `scope` after `layer`; it adds a number where the name was taken."""
    return re.fullmatch(rf"{re.escape(layer)}(_\d+)?", scope) is not None


def _first_that_fails(model: keras.Model, input_shape: tuple[int, ...]) -> str:
    """The first layer up to which the model cannot be converted, found by halving."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]

    def fails(last: int) -> bool:
        part = keras.Model(model.inputs, [layer.output for layer in layers[: last + 1]])
        return _try(part, input_shape)[0] is None

    return layers[bisect.bisect_left(range(len(layers) - 1), True, key=fails)].name  # all of them fail, it is known


def _explain(model: keras.Model, layer: str, error: str = "", crash: str = "") -> str:
    """One line about a failed conversion: the layer and what stood in the way."""
    ops = sorted(set(re.findall(r"'(tf\.\w+)' op", error)))
    if crash:
        what = f"makes TensorFlow's converter crash ({crash})"
    elif ops:
        what = f"needs {', '.join(ops)}, which has no LiteRT built-in"
    else:
        what = f"failed: {error.splitlines()[0]}"
    return f"cannot export {model.name}: layer {layer!r} {what}; replace the layer or export the part before it"
