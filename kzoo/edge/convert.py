"""From a Keras model to a float32 LiteRT file. TensorFlow's converter runs in a process apart (`kzoo.edge.worker`)."""

import functools
import re
import tempfile
from pathlib import Path

import keras

from kzoo.apart import Apart
from kzoo.errors import ExportError, explain

WORKER = Path(__file__).with_name("worker.py")
SCOPE = r"[A-Za-z0-9_.\\/>-]"  # the characters of a name scope of TensorFlow


_CONVERTER = Apart(WORKER)


def convert(model: keras.Model, input_shape: tuple[int, ...]) -> bytes:
    """Converts to a float32 LiteRT file with built-in ops and a static shape.

    Args:
        model: a functional model with one input.
        input_shape: (batch, height, width, channels), all of them numbers.

    Raises:
        ExportError: an op has no built-in counterpart, or the converter crashed; the message names the Keras layer.
            A layer has a name that TensorFlow does not take.
    """
    _check_names(model)
    if not re.fullmatch(rf"[A-Za-z0-9.]{SCOPE}*", model.name):
        model = keras.Model(model.inputs, model.outputs, name="model")
    content, error, crash = _try(model, input_shape)
    if content is not None:
        return content
    layer = _named(model, error) or _first_that_fails(model, input_shape)
    raise ExportError(_explain(model, layer, error, crash))


def _check_names(model: keras.Model) -> None:
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer) and not re.fullmatch(f"{SCOPE}+", layer.name):
            raise ExportError(
                f"cannot export {model.name}: TensorFlow does not take the layer name {layer.name!r}; build the model "
                "with names of letters, digits, '_', '-' and '.'"
            )
        if isinstance(layer, keras.Model):
            _check_names(layer)


def _try(model: keras.Model, input_shape: tuple[int, ...]) -> tuple[bytes | None, str, str]:
    """The file, the converter's error, and how it crashed."""
    _CONVERTER.start()
    signature = [keras.InputSpec(shape=input_shape, dtype="float32", name=re.sub(r"\W", "_", model.inputs[0].name))]
    with tempfile.TemporaryDirectory() as directory:
        try:
            archive = keras.export.ExportArchive()
            archive.track(model)
            run = functools.partial(model.__call__, training=False)
            archive.add_endpoint("serve", run, input_signature=signature)
            archive.write_out(f"{directory}/saved_model", verbose=False)
        except Exception as failure:  # of any layer's call
            return None, explain(failure), ""
        output = Path(directory) / "model.tflite"
        answer = _CONVERTER.ask({"saved_model": str(Path(directory) / "saved_model"), "output": str(output)})
        error, crash = answer.get("error", ""), answer.get("crash", "")
        return None if answer else output.read_bytes(), error, crash


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
    good, bad = -1, len(layers) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        part = keras.Model(model.inputs, [layer.output for layer in layers[: middle + 1]])
        if _try(part, input_shape)[0] is None:
            bad = middle
        else:
            good = middle
    return layers[bad].name


def _explain(model: keras.Model, layer: str, error: str, crash: str) -> str:
    """One line about a failed conversion: the layer and what stood in the way."""
    ops = sorted(set(re.findall(r"'(tf\.\w+)' op", error)))
    if crash:
        what = f"makes TensorFlow's converter crash ({crash})"
    elif ops:
        what = f"needs {', '.join(ops)}, which has no LiteRT built-in"
    else:
        what = f"failed: {error.splitlines()[0]}"
    return f"cannot export {model.name}: layer {layer!r} {what}; replace the layer or export the part before it"
