"""One graph of a model, asked for neighbours whose values nobody else reads."""

import itertools
from collections.abc import Iterator

import keras

from kzoo import last_operation
from kzoo.graph import Graph, as_functional, has_graph, read_graph
from kzoo.taps import tap_names

DROPOUTS = tuple(getattr(keras.layers, name) for name in last_operation.DROPOUTS)
AVERAGES = (  # every value that they give is one of its channel, or an average of such
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.Identity,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling3D,
)
PADDINGS = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
RESHAPES = (keras.layers.Flatten, keras.layers.Reshape)


class Refused(Exception):
    """Why a layer stays as it is."""


class Level:
    """The graph of one model, without those of the models inside it.

    Args:
        model: a functional or Sequential model.
        training: whether it is called with training=True inside another.
        masked: whether it is called in a model through which Keras masks pass.

    Attributes:
        graph: calls of layers, and of plain operations such as x + y.
        operations: layers and plain operations by name.
        masked: whether Keras masks may pass through.
    """

    def __init__(self, model: keras.Model, training: bool = False, masked: bool = False):
        self.model = as_functional(model)
        self.training = training
        self.graph: Graph = read_graph(self.model)
        self.operations = {operation.name: operation for operation in self.model.operations}
        self.taps = set(tap_names(self.model))
        calls = itertools.chain.from_iterable(self.graph.calls.values())
        self.masked = masked or any(call.masks for call in calls) or any(map(_makes_masks, self.operations.values()))

    def models(self) -> Iterator[tuple[str, "Level"]]:
        """The functional and Sequential models inside."""
        for name, operation in self.operations.items():
            if has_graph(operation):
                yield name, Level(operation, self.trains(name), self.masked)

    def new_name(self, name: str) -> str:
        """A name for a layer to be added: `name`, or a longer one where a layer is called so already."""
        while name in self.operations:
            name += "_new"
        return name

    def trains(self, name: str) -> bool:
        """Whether some call of the layer asks for training mode, by itself or through the model around it."""
        modes = [call.training for call in self.graph.calls[name]]
        return any(self.training if mode is None else mode for mode in modes)

    def input_shape(self, name: str) -> tuple:
        """(batch, ..., channels) of the first tensor that the layer reads."""
        return self.graph.calls[name][0].input_shapes[0]

    def kind(self, name: str) -> str:
        """What the layer is, in words for a reason."""
        operation = self.operations[name]
        if isinstance(operation, keras.layers.InputLayer):
            return "an input"
        if isinstance(operation, keras.Model):
            return "a model, and nothing folds across its border"
        if not isinstance(operation, keras.Layer):
            return f"the plain operation {type(operation).__name__}"
        return f"of type {type(operation).__name__}"

    def source(self, name: str) -> str:
        """The layer whose output `name` reads first.

        Raises:
            Refused: there is none, or it has several outputs and this is not the first one.
        """
        sources = self.graph.calls[name][0].sources
        if not sources:
            raise Refused("no layer feeds it")
        source, _, tensor = sources[0]
        if tensor:
            raise Refused(f"it reads output {tensor + 1} of {source}, and a fold scales the first one")
        return source

    def check_before(self, name: str) -> None:
        """Only `name` reads the outputs of its source, so that their values may change.

        Raises:
            Refused: something else reads them, or `name` something else.
        """
        calls, source = self.graph.calls[name], self.source(name)
        theirs = self.graph.calls[source]
        if len(calls) != len(theirs):
            raise Refused(f"it is called {len(calls)} times and {source} before it {len(theirs)} times")
        if {(read[0], read[2]) for call in calls for read in call.sources} != {(source, 0)}:
            raise Refused(f"it is shared by {len(calls)} calls, and not all follow {source}")
        self._check_sole(source)

    def behind(self, name: str) -> str:
        """The layer that reads the outputs of `name`, whose values may change because nothing else does.

        Raises:
            Refused: there is none.
        """
        self._check_sole(name)
        calls = self.graph.calls[name]
        readers = [self.graph.consumers[name, index, 0][0] for index in range(len(calls))]
        reader = readers[0].layer
        if {call.layer for call in readers} != {reader} or len(self.graph.calls[reader]) != len(calls):
            raise Refused(f"{reader} behind it reads other layers too")
        if any(len(call.sources) != 1 for call in readers):
            raise Refused(f"{reader} behind it is {self.kind(reader)}, which reads several tensors")
        return reader

    def _check_sole(self, name: str) -> None:
        """One other layer alone reads the first output of `name`."""
        if name in self.taps:
            raise Refused(f"{name} is a tap, whose value would change")
        for index in range(len(self.graph.calls[name])):
            if (name, index, 0) in self.graph.outputs:
                raise Refused(f"the output of {name} is one of the model's too")
            if len(self.graph.consumers.get((name, index, 0), [])) != 1:
                raise Refused(f"the output of {name} is used elsewhere too")

    def check_no_mask(self, name: str) -> None:
        """Raises `Refused` if a Keras mask may come to the layer, which another in its place might not pass on."""
        if self.masked:
            raise Refused("Keras masks pass through the model, which may go another way without it")

    def commutes(self, name: str) -> bool:
        """Whether scaling and shifting channels behind this layer equals doing so before it."""
        layer = self.operations[name]
        if getattr(layer, "data_format", None) == "channels_first":
            return False
        if type(layer) in DROPOUTS:
            return not self.trains(name)
        if type(layer) is keras.layers.Activation:
            return layer.activation is keras.activations.linear
        if type(layer) is keras.layers.UpSampling2D:
            return layer.interpolation in ("nearest", "bilinear")
        if type(layer) in RESHAPES:
            return self.repeats(name) == 1
        return type(layer) in AVERAGES

    def repeats(self, name: str) -> int | None:
        """How often the channels stand one behind the other in what Flatten or Reshape give; None: they do not."""
        calls, layer = self.graph.calls[name], self.operations[name]
        if type(layer) not in RESHAPES or len(calls) != 1 or getattr(layer, "data_format", None) == "channels_first":
            return None
        before, after = calls[0].input_shapes[0][-1], layer.output.shape[-1]
        if before is None or after is None or after % before:
            return None
        return after // before


def _makes_masks(operation) -> bool:
    """Whether a layer gives its outputs a Keras mask."""
    if isinstance(operation, keras.layers.Embedding):
        return operation.mask_zero
    if isinstance(operation, keras.layers.Masking):
        return True
    own = getattr(type(operation), "compute_mask", None)
    return (
        own is not None
        and next(kind for kind in type(operation).__mro__ if "compute_mask" in vars(kind)).__module__.partition(".")[0]
        != "keras"
    )
