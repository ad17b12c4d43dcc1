"""Copies of functional models with other layers in the place of some."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.surgery.level import Level

Replacement = list[tuple[keras.layers.Layer, list[np.ndarray]]]
"""Layers that take the place of one, one after the other, with their weights; none of them if it goes."""
Edits = dict[str, Replacement]


class _Substitute(NamedTuple):
    """What takes the place of a layer of some kind."""

    kind: type
    parts: list[keras.layers.Layer]


def rewrite(level: Level, edits: Callable[[Level], Edits]) -> keras.Model:
    """Copies a model, its weights and the models inside it.

    Args:
        level: the graph of the model.
        edits: function that says of the graph of the model, or of one inside, what takes the place of which layer.

    Returns:
        A new functional model. All other layers keep their names and weights, and every call all of its arguments. A
        layer that is replaced by one of its own kind hands over what it was called with; others, which have to
        compute with one tensor alone, hand over that.

    Raises:
        InvalidValueError: a layer cannot be made again from its configuration.
    """
    replaced = edits(level)
    inside = dict(level.models())
    weights: Replacement = []

    def clone(layer):
        if layer.name in replaced:
            weights.extend(replaced[layer.name])
            return _Substitute(type(layer), [new for new, _ in replaced[layer.name]])
        if layer.name in inside:
            return rewrite(inside[layer.name], edits)
        copy = copy_layer(layer)
        if copy is not layer and layer.weights:
            weights.append((copy, layer.get_weights()))
        return copy

    def call(layer, *args, **kwargs):
        if not isinstance(layer, _Substitute):
            return layer(*args, **kwargs)
        if [type(part) for part in layer.parts] == [layer.kind]:  # it takes all that the other one was given
            return layer.parts[0](*args, **kwargs)
        x = _first_tensor(args, kwargs)
        for part in layer.parts:
            x = part(x)
        return x

    inputs = {id(layer.output): copy_layer(layer).output for layer in _input_layers(level.model)}
    copied = keras.models.clone_model(
        level.model,
        input_tensors=keras.tree.map_structure(lambda x: inputs[id(x)], level.model.input),
        clone_function=clone,
        call_function=call,
    )
    for layer, values in weights:
        layer.set_weights(values)
    return copied


def _first_tensor(args: tuple, kwargs: dict) -> keras.KerasTensor:
    """What a call computes with, where that is one tensor; it may come second, as in 1 - x, or by keyword."""
    others = [value for name, value in kwargs.items() if name != "mask"]
    return next(arg for arg in keras.tree.flatten([args, others]) if isinstance(arg, keras.KerasTensor))


def _input_layers(model: keras.Model) -> list[keras.layers.InputLayer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]


def copy_layer(layer):
    """A layer of the same config with new weights; a plain operation or a Lambda as it is.

    Raises:
        InvalidValueError: the layer cannot be made again from its config.
    """
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.layers.Lambda):
        return layer  # nothing in it to copy, and a Lambda cannot be made from its config
    try:
        return type(layer).from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidValueError(
            f"{layer.name} is a {type(layer).__name__} that its get_config and from_config cannot make again: {error}"
        ) from error
