"""A model computed call by call, so that any tensor inside, at any depth, can be read, or given in its place."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.flatten import FlatGraph, Node
from kzoo.last_operation import LINEAR, scores_of
from kzoo.layers import CenternessScores

Place = tuple[Node, int]  # a call, and which of its tensors
Compute = Callable[[list, dict[str, Any]], Any]  # what a call gives, of its arguments
SOFTMAXES = {"Softmax", "LogSoftmax", "Sigmoid"}  # what turns logits into probabilities and keeps their order
PASSED = {"Identity", "Meaning", "Cast", "Reshape", "Flatten", "Activation", "Dropout"}  # behind probabilities
PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid, keras.activations.log_softmax)
MARKER = "__keras_tensor__"


class Replay:
    """The calls of a model and of all models inside it, in an order in which they can be computed.

    Of a detector it is what leads to its scores.

    Args:
        model: functional or Sequential, with one input.

    Raises:
        InvalidValueError: no Keras model, a subclassed one, several inputs, or Keras masks inside.

    Example:
        >>> replay = Replay(model)
        >>> (features,) = replay.run(images, [replay.place("backbone/p5")])
    """

    def __init__(self, model: keras.Model):
        if not isinstance(model, keras.Model):
            raise InvalidValueError(
                f"{model!r} is no Keras model; of a LiteRT file occlusion and rise make maps, which need no gradients"
            )
        self.name = model.name
        flat = FlatGraph(scores_of(model) or model)
        self.outputs = flat.output_tensors
        self.nodes = list(_in_order([node for node, _ in self.outputs]))
        inputs = [node for node in self.nodes if node.call is None]
        if len(inputs) != 1:
            raise InvalidValueError(f"{self.name} has {len(inputs)} inputs; a model of one image is explained")
        if any(node.call is not None and node.call.masks for node in self.nodes):
            raise InvalidValueError(f"{self.name} passes Keras masks on, which are not explained")
        self.input: Place = (inputs[0], 0)
        self._trains = {node for node in self.nodes if _has_training(node.operation)}
        self._ends = [_before_activation(place) for place in self.outputs]

    def place(self, layer: str) -> Place:
        """The output of a layer, by its name, or by a path such as "backbone/stage4_block2_out".

        Of a layer that is called more than once it is the last call.

        Raises:
            UnknownNameError: no such layer before the output, or several of this name.
        """
        if not isinstance(layer, str):
            raise InvalidValueError(f"layer={layer!r} must be the name of a layer, or its path in models inside")
        found = [node for node in self.nodes if node.path == layer or node.path.endswith(f"/{layer}")]
        if not found:
            if inside := [node.path for node in self.nodes if f"/{layer}/" in f"/{node.path}"]:
                raise UnknownNameError(
                    f"{layer!r} is a model inside {self.name}; give a layer of it, such as {inside[-1]}"
                )
            near = list(dict.fromkeys(node.path for node in self.nodes if layer.rsplit("/", 1)[-1] in node.path))[:10]
            hint = f"; similar are {', '.join(near)}" if near else f"; the last are {', '.join(self._last_names())}"
            raise UnknownNameError(f"{self.name} has no layer {layer!r} before its output{hint}")
        if len(paths := {node.path for node in found}) > 1:
            raise UnknownNameError(
                f"{self.name} has several layers {layer!r}: {', '.join(sorted(paths))}; give one path"
            )
        return found[-1], 0

    def run(
        self,
        images: Any,
        wanted: Sequence[Place],
        given: Mapping[Place, Any] | None = None,
        instead: Mapping[Node, Compute] | None = None,
    ) -> list:
        """The tensors `wanted`, for images (n, height, width, channels).

        Args:
            images: what the model takes.
            wanted: places in it.
            given: place -> tensor that stands there instead of what is computed.
            instead: call -> function that computes it, of its positional arguments and those by name.
        """
        known: dict[Node, Any] = {self.input[0]: [images]}
        given = dict(given or {})
        needed = set(leading_to([node for node, _ in wanted], {place[0] for place in given}))
        for node in self.nodes:
            if node in needed and node not in known:
                known[node] = self._call(node, known, given, (instead or {}).get(node))
        return [given[place] if place in given else known[place[0]][place[1]] for place in wanted]

    def logits(
        self, images: Any, given: Mapping[Place, Any] | None = None, instead: Mapping[Node, Compute] | None = None
    ) -> list:
        """The outputs, each before a last softmax or sigmoid, and in its own shape; takes what `run` takes."""
        found = self.run(images, [place for place, _ in self._ends], given, instead)
        logits = [x if layer is None else layer(x) for x, (_, layer) in zip(found, self._ends, strict=True)]
        return [_shaped(x, place) for x, place in zip(logits, self.outputs, strict=True)]

    def arguments(self, images: Any, nodes: Sequence[Node]) -> list[tuple[list, dict[str, Any]]]:
        """What calls are made with: positional arguments and those by name."""
        tensors = iter(self.run(images, [place for node in nodes for place in node.tensors]))
        return [self._arguments(node, [next(tensors) for _ in node.tensors]) for node in nodes]

    def leads_to_outputs(self, place: Place) -> bool:
        """Whether some logit depends on the tensor at `place`."""
        return place[0] in set(leading_to([node for (node, _), _ in self._ends]))

    def _call(
        self, node: Node, known: Mapping[Node, Any], given: Mapping[Place, Any], instead: Compute | None
    ) -> list:
        sources = [given[place] if place in given else known[place[0]][place[1]] for place in node.tensors]
        args, kwargs = self._arguments(node, sources)
        try:
            return keras.tree.flatten(instead(args, kwargs) if instead else node.operation(*args, **kwargs))
        except Exception as error:
            shapes = ", ".join(str(tuple(source.shape)) for source in sources)
            raise InvalidValueError(
                f"{node.path} of {self.name} cannot be computed of {shapes}: {_first_line(error)}"
            ) from error

    def _arguments(self, node: Node, sources: Sequence) -> tuple[list, dict[str, Any]]:
        assert node.call is not None
        tensors = iter(sources)
        args = [_filled(value, tensors) for value in node.call.args]
        kwargs = {name: _filled(value, tensors) for name, value in node.call.kwargs.items() if name != "mask"}
        if node in self._trains:
            kwargs["training"] = False  # as a model tells all its layers, whatever their calls were made with
        return args, kwargs

    def _last_names(self) -> list[str]:
        return [node.path for node in self.nodes[-8:]]


def _in_order(ends: Sequence[Node]) -> Iterator[Node]:
    """The nodes that lead to `ends`, each behind those that it reads; deep graphs need no recursion."""
    done: set[Node] = set()
    stack = [(node, False) for node in reversed(ends)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done.add(node)
            yield node
            continue
        stack.append((node, True))
        stack += [(source, False) for source in node.sources if source not in done]


def leading_to(ends: Sequence[Node], given: Iterable[Node] = ()) -> Iterator[Node]:
    """The nodes that `ends` are computed of, and these, without what comes before those that are given."""
    seen: set[Node] = set()
    stack = [node for node in ends if node not in given]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack += [source for source in node.sources if source not in given]


def _first_line(error: Exception) -> str:
    """What an error says, in short and without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return (lines or [type(error).__name__])[0][:200]


def _has_training(operation) -> bool:
    return isinstance(operation, keras.layers.Layer) and "training" in inspect.signature(operation.call).parameters


def _filled(value: Any, sources: Iterator) -> Any:
    """An argument as a call's config has it, with tensors for their descriptions, in the same order."""
    if isinstance(value, dict):
        kind = value.get("class_name")
        if kind == MARKER:
            return next(sources)
        if kind is not None:
            return keras.saving.deserialize_keras_object(value)
        names = sorted(value, key=lambda name: (type(name).__name__, name))
        filled = {name: _filled(value[name], sources) for name in names}
        return {name: filled[name] for name in value}
    if isinstance(value, (list, tuple)):
        return [_filled(item, sources) for item in value]
    return value


def _before_activation(place: Place) -> tuple[Place, keras.layers.Layer | None]:
    """Where logits are read: a place, and a layer without activation that makes them of what is there."""
    node = place[0]
    while node.call is not None and node.tensors:
        if isinstance(node.operation, CenternessScores):
            return node.tensors[0], None
        if len(node.tensors) > 1:
            break
        operation, kind = node.operation, type(node.operation).__name__
        if kind in SOFTMAXES or (isinstance(operation, keras.layers.Activation) and _squashes(operation)):
            return node.tensors[0], None
        if isinstance(operation, LINEAR) and _squashes(operation):
            return node.tensors[0], _linear(operation)
        if kind not in PASSED:
            break
        node = node.tensors[0][0]
    return place, None


def _shaped(logits: Any, place: Place) -> Any:
    """Logits with the axes of the output, where the model reshapes it behind its activation."""
    shape = tensor_shape(place)
    if len(logits.shape) == len(shape) or None in shape[1:]:
        return logits
    return keras.ops.reshape(logits, (-1, *shape[1:]))


def tensor_shape(place: Place) -> tuple[int | None, ...]:
    """Shape of the tensor at a place, as the model knows it."""
    node, tensor = place
    return tuple(keras.tree.flatten(node.operation.output)[tensor].shape)


def _squashes(operation) -> bool:
    return operation.activation in PROBABILITIES


def _linear(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A copy of a layer that multiplies by weights, without activation."""
    copy = type(layer).from_config(layer.get_config() | {"activation": "linear"})
    copy.build(layer.input.shape)
    copy.set_weights(layer.get_weights())
    return copy
