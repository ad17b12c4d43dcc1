"""Copies of functional models with other layers in the place of some."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.graph import Tensor
from kzoo.surgery.level import Level

Replacement = list[tuple[keras.layers.Layer, list[np.ndarray]]]
"""Layers that take the place of one, one after the other, with their weights; none of them if it goes."""
Edits = dict[str, Replacement]
Copies = dict[tuple[str, int], str]
"""Layer and number of a call -> name of a copy of the layer that takes its place in this call."""


class _Substitute(NamedTuple):
    """What takes the place of a layer of some kind."""

    kind: type
    parts: list[keras.layers.Layer]


class _Parted(NamedTuple):
    """A layer, and copies of it by the number of the call that they serve."""

    layer: keras.layers.Layer
    copies: dict[int, keras.layers.Layer]


def rewrite(
    level: Level, edits: Callable[[Level], Edits], copies: Callable[[Level], Copies] = lambda level: {}
) -> keras.Model:
    """Copies a model, its weights and the models inside it.

    Args:
        level: the graph of the model.
        edits: function that says of the graph of the model, or of one inside, what takes the place of which layer.
        copies: function that says the same of single calls of layers.

    Returns:
        A new functional model. All other layers keep their names and weights, and every call all of its arguments. A
        layer that is replaced by one of its own kind hands over what it was called with; others, which have to
        compute with one tensor alone, hand over that.

    Raises:
        InvalidValueError: a layer cannot be made again from its configuration.
    """
    replaced, copied_calls = edits(level), copies(level)
    parted = {name for name, _ in copied_calls}
    origins = _Origins(level)
    inside = dict(level.models())
    weights: Replacement = []

    def clone(layer):
        if layer.name in replaced:
            weights.extend(replaced[layer.name])
            return _Substitute(type(layer), [new for new, _ in replaced[layer.name]])
        if layer.name in inside:
            return rewrite(inside[layer.name], edits, copies)
        if layer.name in parted:
            names = {index: own for (name, index), own in copied_calls.items() if name == layer.name}
            every = [copy_layer(layer), *(copy_layer(layer, own) for own in names.values())]
            called = every[len(names) == len(level.graph.calls[layer.name]) :]  # the first one serves no call then
            weights.extend((copy, layer.get_weights()) for copy in called)
            return _Parted(every[0], dict(zip(names, every[1:], strict=True)))
        copy = copy_layer(layer)
        if copy is not layer and layer.weights:
            weights.append((copy, layer.get_weights()))
        return copy

    def call(layer, *args, **kwargs):
        if not parted:
            return call_one(layer, *args, **kwargs)
        name = layer.layer.name if isinstance(layer, _Parted) else layer.name
        index = origins.call_of(name, args, kwargs)
        if isinstance(layer, _Parted):
            layer = layer.copies.get(index, layer.layer)
        outputs = call_one(layer, *args, **kwargs)
        origins.add(name, index, outputs)
        return outputs

    def call_one(layer, *args, **kwargs):
        if not isinstance(layer, _Substitute):
            return layer(*args, **kwargs)
        if [type(part) for part in layer.parts] == [layer.kind]:  # it takes all that the other one was given
            return layer.parts[0](*args, **kwargs)
        x = _first_tensor(args, kwargs)
        for part in layer.parts:
            x = part(x)
        return x

    inputs = {id(layer.output): copy_layer(layer).output for layer in _input_layers(level.model)}
    for layer in _input_layers(level.model):
        origins.add(layer.name, 0, inputs[id(layer.output)])
    copied = keras.models.clone_model(
        level.model,
        input_tensors=keras.tree.map_structure(lambda x: inputs[id(x)], level.model.input),
        clone_function=clone,
        call_function=call,
    )
    for layer, values in weights:
        layer.set_weights(values)
    return copied


class _Origins:
    """Which tensor of a graph each tensor of its copy stands for, so that a call of the copy knows its number.

    Keras makes the calls of a copy in another order than those of the model were made.
    """

    def __init__(self, level: Level):
        self._calls = level.graph.calls
        self._found: dict[int, Tensor] = {}
        self._kept: list = []  # as long as its id is asked for
        self._taken: set[tuple[str, int]] = set()

    def add(self, name: str, index: int, outputs) -> None:
        """Call `index` of the layer gave `outputs`."""
        for number, tensor in enumerate(keras.tree.flatten(outputs)):
            self._kept.append(tensor)
            self._found[id(tensor)] = (name, index, number)

    def call_of(self, name: str, args: tuple, kwargs: dict) -> int:
        """The number of the call that is given these arguments."""
        others = {key: value for key, value in kwargs.items() if key != "mask"}
        given = [each for each in keras.tree.flatten([args, others]) if isinstance(each, keras.KerasTensor)]
        sources = tuple(self._found[id(tensor)] for tensor in given)
        for index, each in enumerate(self._calls[name]):
            if each.sources == sources and (name, index) not in self._taken:
                self._taken.add((name, index))
                return index
        raise AssertionError(f"{name} has no call on {sources}")


def _first_tensor(args: tuple, kwargs: dict) -> keras.KerasTensor:
    """What a call computes with, where that is one tensor; it may come second, as in 1 - x, or by keyword."""
    others = [value for name, value in kwargs.items() if name != "mask"]
    return next(arg for arg in keras.tree.flatten([args, others]) if isinstance(arg, keras.KerasTensor))


def _input_layers(model: keras.Model) -> list[keras.layers.InputLayer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]


def copy_layer(layer, name: str | None = None):
    """A layer of the same config with new weights, called `name` if given; a plain operation or a Lambda as it is.

    Raises:
        InvalidValueError: the layer cannot be made again from its config.
    """
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.layers.Lambda):
        return layer  # nothing in it to copy, and a Lambda cannot be made from its config
    try:
        return type(layer).from_config(layer.get_config() | ({} if name is None else {"name": name}))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidValueError(
            f"{layer.name} is a {type(layer).__name__} that its get_config and from_config cannot make again: {error}"
        ) from error
