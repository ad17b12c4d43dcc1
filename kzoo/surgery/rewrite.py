"""Copies of functional models with other layers in the place of some."""

from collections.abc import Callable

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.surgery.level import Level

Replacement = list[tuple[keras.layers.Layer, list[np.ndarray]]]
"""Layers that take the place of one, one after the other, with their weights; none of them if it goes."""
Edits = dict[str, Replacement]


def rewrite(level: Level, edits: Callable[[Level], Edits]) -> keras.Model:
    """Copies a model, its weights and the models inside it.

    Args:
        level: the graph of the model.
        edits: says for the graph of the model, and of every model inside, what takes the place of which layer.

    Returns:
        A new functional model. All other layers keep their names and weights.

    Raises:
        InvalidValueError: a layer cannot be made again from its configuration.
    """
    replaced = edits(level)
    inside = dict(level.models())
    weights: Replacement = []

    def clone(layer):
        if layer.name in replaced:
            weights.extend(replaced[layer.name])
            return [new for new, _ in replaced[layer.name]]
        if layer.name in inside:
            return rewrite(inside[layer.name], edits)
        copy = copy_layer(layer)
        if copy is not layer and layer.weights:
            weights.append((copy, layer.get_weights()))
        return copy

    def call(layer, *args, **kwargs):
        if not isinstance(layer, list):
            return layer(*args, **kwargs)
        if len(layer) == 1 and all(isinstance(arg, keras.KerasTensor) for arg in keras.tree.flatten(args)):
            return layer[0](*args)  # it may read several
        x = next(arg for arg in args if isinstance(arg, keras.KerasTensor))  # it may come second, as in 1 - x
        for part in layer:
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
