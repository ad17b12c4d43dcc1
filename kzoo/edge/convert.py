"""From a Keras model to a float32 LiteRT file. TensorFlow's converter runs in a process apart (`kzoo.edge.worker`)."""

import bisect
import re
import tempfile
from pathlib import Path

import keras

from kzoo.apart import Apart
from kzoo.edge.interface import in_order
from kzoo.edge.tensors import input_names, inputs_of, outputs_by_name, outputs_of
from kzoo.errors import ExportError, OutputError, explain

NO_ROOM = re.compile(r"No space left on device|File too large|variables_temp")
SCOPE = r"[A-Za-z0-9_.\\/>-]"  # the characters of a name scope of TensorFlow
_CONVERTER = Apart(Path(__file__).with_name("worker.py"))


def convert(model: keras.Model, batch_size: int = 1) -> bytes:
    """Converts to a float32 LiteRT file with built-in ops and static shapes, inputs and outputs in the model's order.

    Args:
        model: a functional model whose inputs have static shapes but for the batch.
        batch_size: number of images of the file.

    Raises:
        ExportError: an op has no built-in counterpart, or the converter crashed; the message names the Keras layer.
            A layer has a name that TensorFlow does not take.
        OutputError: the folder for temporary files takes no more.
    """
    model = named_for_tensorflow(model)
    content, failure = _try(model, batch_size)
    if content is not None:
        return in_order(content, input_names(model), tuple(outputs_by_name(model)))
    if NO_ROOM.search(failure.get("error", "")):
        raise OutputError(
            f"cannot write {model.name} to {tempfile.gettempdir()}, where it is converted: the disk is full, or files "
            "may not be so large; set TMPDIR to another folder"
        )
    layer = _named(model, failure.get("error", "")) or _first_that_fails(model, batch_size)
    raise ExportError(_explain(model, layer, **failure))


def named_for_tensorflow(model: keras.Model) -> keras.Model:
    """The model, called "model" where TensorFlow does not take its name.

    Raises:
        ExportError: a layer has a name that TensorFlow does not take.
    """
    _check_names(model)
    if re.fullmatch(rf"[A-Za-z0-9.]{SCOPE}*", model.name):
        return model
    return keras.Model(inputs_of(model), outputs_of(model), name="model")


def signature_of(model: keras.Model, batch_size: int | None) -> list:
    """The `input_signature` of Keras' exporter, for batches of a size, or of any."""
    specs = [
        keras.InputSpec(shape=(batch_size, *tensor.shape[1:]), dtype="float32", name=name)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    ]
    return [keras.tree.pack_sequence_as(inputs_of(model), specs)]


def _check_names(model: keras.Model) -> None:
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer) and not re.fullmatch(f"{SCOPE}+", layer.name):
            raise ExportError(
                f"cannot export {model.name}: TensorFlow does not take the layer name {layer.name!r}; build the model "
                "with names of letters, digits, '_', '-' and '.'"
            )
        if isinstance(layer, keras.Model):
            _check_names(layer)


def _try(model: keras.Model, batch_size: int) -> tuple[bytes | None, dict[str, str]]:
    """The file, or None and the converter's error or how it crashed."""
    _CONVERTER.start()
    with tempfile.TemporaryDirectory() as directory:
        saved_model, output = Path(directory, "saved_model"), Path(directory, "model.tflite")
        try:
            model.export(saved_model, verbose=False, input_signature=signature_of(model, batch_size))
        except Exception as failure:  # of any layer's call
            return None, {"error": explain(failure)}
        answer = _CONVERTER.ask({"saved_model": str(saved_model), "output": str(output)})
        return None if answer else output.read_bytes(), answer


def _named(model: keras.Model, message: str) -> str:
    """The layer that the converter's error speaks of, or nothing."""
    scopes = {scope for place in re.findall(r'"([^"]+/[^"]+)@', message) for scope in place.split("/")}
    return next((layer.name for layer in model.layers if any(is_scope_of(s, layer.name) for s in scopes)), "")


def is_scope_of(scope: str, layer: str) -> bool:
    """Whether TensorFlow named `scope` after `layer`; it adds a number where the name was taken."""
    return re.fullmatch(rf"{re.escape(layer)}(_\d+)?", scope) is not None


def _first_that_fails(model: keras.Model, batch_size: int) -> str:
    """The first layer up to which the model cannot be converted, found by halving."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]

    def fails(last: int) -> bool:
        part = keras.Model(inputs_of(model), [layer.output for layer in layers[: last + 1]])
        return _try(part, batch_size)[0] is None

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
