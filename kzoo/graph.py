"""The graph of a functional model, read from its public config, and what it costs to run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import keras

from kzoo.errors import InvalidValueError

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)

Tensor = tuple[str, int, int]
"""Where a tensor comes from: a layer, the index of its call, and which of the tensors that the call gives."""


@dataclass(frozen=True)
class Call:
    """One call of a layer, with everything it was given.

    Attributes:
        layer: its name.
        sources: the tensors that it computes with, positional ones first, then those given by keyword, whatever lists
            and dicts they stand in; those of a dict in the order of its keys, as Keras counts them.
        masks: Keras masks that it was given as `mask=`, which tell what of the sources counts.
        input_shapes: of the sources.
        input_dtypes: of the sources.
        args: as the config writes them: tensors, numbers and slices are dicts.
        kwargs: the same by keyword.
    """

    layer: str
    sources: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    input_shapes: tuple[tuple, ...]
    input_dtypes: tuple[str, ...]
    args: tuple
    kwargs: dict

    @classmethod
    def of_node(cls, layer: str, node: dict) -> "Call":
        """From a layer's name and one of its `inbound_nodes`."""
        others = {name: value for name, value in node["kwargs"].items() if name != "mask"}
        tensors = list(_tensors([node["args"], *others.values()]))
        return cls(
            layer=layer,
            sources=tuple(tuple(tensor["keras_history"]) for tensor in tensors),
            masks=tuple(tuple(tensor["keras_history"]) for tensor in _tensors(node["kwargs"].get("mask"))),
            input_shapes=tuple(tuple(tensor["shape"]) for tensor in tensors),
            input_dtypes=tuple(tensor["dtype"] for tensor in tensors),
            args=tuple(node["args"]),
            kwargs=node["kwargs"],
        )

    @property
    def training(self) -> bool | None:
        """The mode that the call asks for itself, None where it takes that of the model."""
        return self.kwargs.get("training")


@dataclass
class Graph:
    """Calls in the order of the config, the calls that read a tensor, the inputs, and the tensors that it gives.

    Inputs and outputs stand in the order of `model.inputs` and `model.outputs`.

    The calls of a layer, of a model inside too, are counted from 0.
    """

    calls: dict[str, list[Call]] = field(default_factory=dict)
    consumers: dict[Tensor, list[Call]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def gives(self, layer: str) -> bool:
        """Whether some output of the model is one of the layer's."""
        return any(name == layer for name, _, _ in self.outputs)


def has_graph(layer) -> bool:
    """Whether `layer` is a functional or Sequential model and computes what its graph says."""
    if not isinstance(layer, keras.Model):
        return False
    calls = next(kind for kind in type(layer).__mro__ if "call" in vars(kind))
    if calls.__module__.partition(".")[0] != "keras":
        return False
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")


def as_functional(model: keras.Model) -> keras.Model:
    """`model` itself, or a plain functional model of the same layers where it is Sequential or of a class of its own.

    Raises:
        InvalidValueError: a Sequential model that has not been built, so its layers are not connected.
    """
    if isinstance(model, keras.Sequential):
        if not model.built or not model.layers:
            raise InvalidValueError(
                f"{model.name} is a Sequential model without an input; add keras.Input or build it"
            )
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if has_graph(model) and type(model).__module__.partition(".")[0] != "keras":
        return keras.Model(model.input, model.output, name=model.name)  # its own config may say anything
    return model


def read_graph(model: keras.Model) -> Graph:
    """Reads the graph of a functional or Sequential model.

    Raises:
        InvalidValueError: the model is not functional, so it has no graph to read.
    """
    if not has_graph(model):
        raise InvalidValueError(f"{model.name} is a subclassed model; only functional models have a graph to read")
    model = as_functional(model)
    config = model.get_config()
    # among outputs the config counts the making of a functional model inside as its first call, among sources not
    made = {
        operation.name
        for operation in model.operations
        if isinstance(operation, keras.Model)
        and not isinstance(operation, keras.Sequential)
        and hasattr(operation, "operations")
    }
    graph = Graph(
        inputs=[name for name, _, _ in _histories(config["input_layers"])],
        outputs=[(name, call - (name in made), i) for name, call, i in _histories(config["output_layers"])],
    )
    for layer in config["layers"]:
        for node in layer["inbound_nodes"]:
            call = Call.of_node(layer["name"], node)
            graph.calls.setdefault(layer["name"], []).append(call)
            for source in (*call.sources, *call.masks):
                graph.consumers.setdefault(source, []).append(call)
    return graph


def _tensors(node) -> Iterator[dict]:
    """Every serialized Keras tensor inside the arguments of a node."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]
            return
        node = _values(node)
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _tensors(item)


def _histories(outputs) -> Iterator[tuple]:
    """Every [layer, call, tensor] triple in a nested output description."""
    if isinstance(outputs, dict):
        outputs = _values(outputs)
    if isinstance(outputs, (list, tuple)):
        if len(outputs) == 3 and isinstance(outputs[0], str):
            yield tuple(outputs)
            return
        for item in outputs:
            yield from _histories(item)


def _values(items: dict) -> list:
    """What a dict holds, in the order of its keys: so Keras counts tensors, whoever wrote the dict in which order."""
    return [items[key] for key in sorted(items, key=lambda key: (type(key).__name__, key))]


def count_macs(model: keras.Model) -> int:
    """Multiply-adds of one image through the layers of `model` that multiply by weights, and through attention.

    Counted are 2-D convolutions, `Dense`, `EinsumDense`, `MultiHeadAttention` and `GroupQueryAttention` of Keras, and
    the layers of kzoo. Additions, normalisations, activations and pooling are left out, as in the tables of the
    papers. So are 1-D and 3-D convolutions, recurrent layers, `Attention` and `AdditiveAttention` of Keras, plain
    operations such as `keras.ops.matmul`, and layers of others, unless they have a method `macs(input_shape)`.

    Raises:
        InvalidValueError: the model has maps of unknown size.
    """
    return sum(macs_of_layers(model).values())


def macs_of_layers(model: keras.Model) -> dict[str, int]:
    """Multiply-adds of one image in each layer of `model`, all its calls together, by name; as `count_macs`.

    Raises:
        InvalidValueError: the model has maps of unknown size.

    Example:
        >>> macs_of_layers(kzoo.build("resnet50"))["stem_conv"]
        118013952
    """
    found: dict[str, int] = {}
    layers = {layer.name: layer for layer in model.layers}
    for name, calls in read_graph(model).calls.items():
        layer = layers.get(name)  # None for a plain operation such as x + y
        for call in calls:
            if isinstance(layer, ATTENTION):
                found[name] = found.get(name, 0) + _attention_macs(layer, call)
            elif layer is not None and call.input_shapes:
                found[name] = found.get(name, 0) + _layer_macs(layer, call.input_shapes[0])
    return found


def _layer_macs(layer: keras.layers.Layer, input_shape: tuple) -> int:
    if hasattr(layer, "macs"):
        _check_static(layer, input_shape)
        return layer.macs(input_shape)
    if isinstance(layer, keras.Model):
        return count_macs(layer)
    if isinstance(layer, keras.layers.TimeDistributed):
        _check_static(layer, input_shape)
        return input_shape[1] * _layer_macs(layer.layer, (input_shape[0], *input_shape[2:]))
    if isinstance(layer, keras.layers.Wrapper):
        return _layer_macs(layer.layer, input_shape)
    if isinstance(layer, keras.layers.Dense):
        _check_static(layer, input_shape)
        return math.prod(input_shape[1:]) * layer.units
    if isinstance(layer, keras.layers.EinsumDense):
        _check_static(layer, input_shape)
        read, kernel = layer.equation.split("->")[0].split(",")
        sizes = zip(kernel, layer.kernel.shape, strict=True)
        return math.prod(input_shape[1:]) * math.prod(size for index, size in sizes if index not in read)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        # every input pixel meets the whole kernel
        _check_static(layer, input_shape)
        return math.prod(input_shape[1:3]) * math.prod(layer.kernel.shape)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        _check_static(layer, input_shape)
        return _positions(layer, input_shape) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.SeparableConv2D):
        _check_static(layer, input_shape)
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return _positions(layer, input_shape) * sum(math.prod(kernel.shape) for kernel in kernels)
    return 0


def _attention_macs(layer: keras.layers.Layer, call: Call) -> int:
    """Multiply-adds of the projections, each at the places of what it reads, and of the two products of attention."""
    given = dict(zip(("query", "value", "key"), call.args, strict=False)) | call.kwargs
    query, value = (tuple(keras.saving.deserialize_keras_object(given[name]).shape) for name in ("query", "value"))
    _check_static(layer, query)
    _check_static(layer, value)
    places, values = math.prod(query[1:-1]), math.prod(value[1:-1])
    macs = 0
    for weight in layer.weights:
        *_, projection, name = weight.path.split("/")
        if name == "kernel":
            macs += (values if projection in ("key", "value") else places) * math.prod(weight.shape)
    if isinstance(layer, keras.layers.MultiHeadAttention):
        seen = math.prod(value[axis] for axis in layer.attention_axes)
        return macs + places * seen * layer.num_heads * (layer.key_dim + layer.value_dim)
    return macs + places * values * layer.num_query_heads * 2 * layer.head_dim


def _positions(layer: keras.layers.Layer, input_shape: tuple) -> int:
    """Number of pixels of the map that a convolution gives."""
    _, *shape = layer.compute_output_shape(input_shape)
    return math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _check_static(layer: keras.layers.Layer, input_shape: tuple) -> None:
    if None in input_shape[1:]:
        raise InvalidValueError(f"{layer.name} reads maps of unknown size {input_shape}; build with an input_shape")
