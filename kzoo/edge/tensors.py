"""Inputs and outputs of a Keras model by the names that its files give them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kzoo.errors import ExportError
from kzoo.last_operation import SCORES, carried_meaning, scores_of


def input_names(model: keras.Model) -> tuple[str, ...]:
    """Names of the inputs in the order of `model.inputs`, with `_` for what is no letter, digit or `_`."""
    return tuple(re.sub(r"\W", "_", tensor.name) for tensor in model.inputs)


def inputs_of(model: keras.Model) -> Any:
    """The symbolic inputs as the model takes them: a tensor, or a list or dict of some."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def outputs_of(model: keras.Model) -> Any:
    """The symbolic outputs as the model gives them."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def outputs_by_name(model: keras.Model) -> dict[str, Any]:
    """Name -> symbolic tensor, in the model's order: the keys of a dict; else output_0, output_1 and so on.

    Raises:
        ExportError: outputs within outputs.

    Example:
        >>> list(outputs_by_name(kzoo.pyramid(kzoo.build("resnet18"), ["p3", "p4"])))
        ['p3', 'p4']
    """
    outputs = _by_name(outputs_of(model))
    if any(isinstance(output, (dict, list, tuple)) for output in outputs.values()):
        raise ExportError(f"{model.name} has outputs within outputs; a tensor, or a dict or list of them, is exported")
    return outputs


def run(model: keras.Model, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What Keras gives for a batch, arrays in the order of `model.inputs`, as output name -> array of float32."""
    outputs = model(keras.tree.pack_sequence_as(inputs_of(model), list(arrays)), training=False)
    return {name: keras.ops.convert_to_numpy(output).astype("float32") for name, output in _by_name(outputs).items()}


def answer_of(model: keras.Model) -> str | None:
    """Name of the output that answers what is in a picture, of a model with several: one that carries names of
    classes (`kzoo.with_classes`), of a detector its scores, else the first of a number for each class; None if there
    is none.
    """
    outputs = outputs_by_name(model)
    if scores_of(model) is not None:
        return SCORES
    for name in outputs:
        if carried_meaning(only(model, name)):
            return name
    return next((name for name, output in outputs.items() if len(output.shape) == 2), None)


def only(model: keras.Model, name: str) -> keras.Model:
    """The model up to one of its outputs."""
    return keras.Model(inputs_of(model), outputs_by_name(model)[name], name=model.name)


def _by_name(outputs: Any) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return {f"output_{index}": output for index, output in enumerate(listed)}
