"""The graph of a model with the models inside it opened, at any depth.

A model may stand inside another as a layer, in a Sequential model, or in a wrapper. A question about what a model
computes is asked of its calls here, so that the answer does not depend on how its layers were put together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import keras

from kzoo.graph import Call, as_functional, has_graph, read_graph


@dataclass(frozen=True, eq=False)
class Node:
    """One call of a layer or of a plain operation, anywhere in a model.

    Attributes:
        operation: a layer that is no functional or Sequential model, or a plain operation such as x + y.
        call: what it was called with; None for an input of the whole model.
    """

    operation: keras.layers.Layer | keras.Operation
    call: Call | None
    _level: "_Level" = field(repr=False)

    @property
    def sources(self) -> list["Node"]:
        """The calls whose outputs this one reads, in order."""
        return [node for node, _ in self.tensors]

    @property
    def tensors(self) -> list[tuple["Node", int]]:
        """The sources, each with which of its tensors is read."""
        return [self._level.tensor(*source) for source in self.call.sources] if self.call else []

    @property
    def path(self) -> str:
        """Name of the operation behind those of the models that it stands in: "backbone/stem_conv"."""
        names, level = [self.operation.name], self._level
        while level.place is not None:
            names.append(level.place.operation.name)
            level = level.place._level
        return "/".join(reversed(names))


class FlatGraph:
    """The calls of a model and of all models inside it, as if it had been built in one piece.

    Args:
        model: functional or Sequential.

    Raises:
        InvalidValueError: the model is subclassed, or a Sequential one that has not been built.

    Example:
        >>> [node.operation.name for node in FlatGraph(keras.Sequential([image, kzoo.build("vgg16")])).outputs]
        ['head_activation']
    """

    def __init__(self, model: keras.Model):
        self._level = _Level(model)

    @property
    def outputs(self) -> list[Node]:
        """The calls that give the outputs of the model, in order."""
        return [self._level.tensor(*history)[0] for history in self._level.outputs]

    @property
    def output_tensors(self) -> list[tuple[Node, int]]:
        """The outputs, each as a call and which of its tensors it is."""
        return [self._level.tensor(*history) for history in self._level.outputs]

    def nodes(self) -> Iterator[Node]:
        """Every call but the inputs; those of a model that is called twice come twice."""
        yield from self._level.nodes()


class _Level:
    """The graph of one model in the place where it is called, and the way to what it is called on."""

    def __init__(self, model: keras.Model, place: Node | None = None):
        model = as_functional(model)
        graph = read_graph(model)
        self.calls, self.inputs, self.outputs = graph.calls, graph.inputs, graph.outputs
        self.operations = {operation.name: operation for operation in model.operations}
        self.named = not isinstance(model.input, dict)  # Keras takes a dict for a list of inputs by their names
        self.place = place
        self._inner: dict[tuple[str, int], _Level] = {}
        self._nodes: dict[tuple[str, int], Node] = {}  # each call is one node, whoever asks for it

    def tensor(self, name: str, call: int, tensor: int) -> tuple[Node, int]:
        """What really gives a tensor, as which: models are entered by their outputs and left by their inputs."""
        operation = self.operations[name]
        if has_graph(operation):
            inner = self._open(name, call)
            return inner.tensor(*inner.outputs[tensor])
        if name in self.inputs and self.place is not None and self.place.call is not None:
            return self.place.tensors[self._input_index(name, self.place.call)]
        return self._node(name, call), tensor

    def _input_index(self, name: str, call: Call) -> int:
        """Which of the tensors that the model is called on is the one for an input."""
        given = call.args[0] if call.args else call.kwargs["inputs"]
        if self.named and isinstance(given, dict) and given.get("class_name") != "__keras_tensor__":
            return sorted(given).index(name)
        return self.inputs.index(name)

    def nodes(self) -> Iterator[Node]:
        for name, calls in self.calls.items():
            for index in range(len(calls)):
                if has_graph(self.operations[name]):
                    yield from self._open(name, index).nodes()
                else:
                    yield self._node(name, index)

    def _node(self, name: str, call: int) -> Node:
        if (name, call) not in self._nodes:
            found = self.calls[name][call] if name in self.calls else None
            self._nodes[name, call] = Node(self.operations[name], found, self)
        return self._nodes[name, call]

    def _open(self, name: str, call: int) -> "_Level":
        if (name, call) not in self._inner:
            self._inner[name, call] = _Level(self.operations[name], self._node(name, call))
        return self._inner[name, call]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model, of the models inside it, and what wrappers hold, each once; no model among them.

    Works on subclassed models too, whose attributes are looked through instead of a graph.
    """
    found: dict[int, keras.layers.Layer] = {}

    def collect(layer):
        if isinstance(layer, keras.Model):
            for inner in layer.layers:
                collect(inner)
        elif id(layer) not in found:
            found[id(layer)] = layer
            if isinstance(layer, keras.layers.Wrapper):
                collect(layer.layer)

    collect(model)
    return list(found.values())
