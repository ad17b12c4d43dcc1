"""Attention that a file does not have: it starts so that the network computes what it did without.

A layer with a method `neutral` names weights that, at zero, make it multiply its input by a constant, the factor.
Gates are sigmoids, so that of SE is 1/2, that of CBAM 1/4, of a residual attention mask 3/2; a non-local block's
is 1. A gate that starts near 1 would be saturated, and one with another activation would be another architecture, of
which no `kzoo.build` of this name could load the files. So the gates stay as they are, and the weights around make up
for the factor: what gives the layer its input is divided by it (a batch normalisation's scale and offset, or a
convolution's kernel and bias), through layers that pass a factor on; where the map comes from further up, as through
the pool beside the convolutions of an Inception reduction, the kernels that read the output are divided instead.
Powers of two change no digit of what the network computes.
"""

import keras
import numpy as np

from kzoo.errors import WeightsError
from kzoo.graph import Graph, Tensor, read_graph
from kzoo.layers import DepthConcat
from kzoo.taps import TAP

PASS_ON = (  # f(c x) = c f(x) for every c above 0, of several inputs too
    keras.layers.AveragePooling2D,
    keras.layers.Concatenate,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.ZeroPadding2D,
    DepthConcat,
)
LINEAR = (keras.layers.Conv2D, keras.layers.Dense)


def attention_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model's `attention=` that can start as nothing."""
    return [layer for layer in model.layers if hasattr(layer, "neutral") and "attention" in layer.name]


def start_as_nothing(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Changes the arrays that are about to be loaded into a model, and adds those of its attention.

    Args:
        model: whose attention is new.
        arrays: variable path -> array of the network without attention.

    Raises:
        WeightsError: nothing around an attention can make up for its factor.
    """
    graph, layers = read_graph(model), {layer.name: layer for layer in model.layers}
    for layer in attention_layers(model):
        factor, weights = layer.neutral()
        arrays |= {weight.path: np.zeros(weight.shape, "float32") for weight in weights}
        if factor == 1:
            continue
        (call,) = graph.calls[layer.name]
        scaled = _giving(graph, layers, call.sources[0]) or _reading(graph, layers, (layer.name, 0, 0))
        if scaled is None:
            raise WeightsError(
                f"the file has no weights for {layer.name}, whose gates start at {factor:g}, and no weights before or "
                f"behind it can make up for that in {model.name}; build without the attention, or load with "
                "kzoo.load_weights(model, source, strict=False), which leaves it random"
            )
        for variable in scaled:
            if variable.path in arrays:  # others are random
                arrays[variable.path] = arrays[variable.path] / np.float32(factor)


def _giving(graph: Graph, layers: dict, tensor: Tensor) -> list[keras.Variable] | None:
    """The weights that a tensor is proportional to, if nothing else would notice; None where there are none."""
    name, layer = tensor[0], layers.get(tensor[0])
    if len(graph.consumers[tensor]) > 1 or graph.gives(name) or len(graph.calls.get(name, ())) != 1:
        return None
    if isinstance(layer, keras.layers.BatchNormalization):
        return [layer.gamma, layer.beta] if layer.scale and layer.center else None
    if isinstance(layer, LINEAR):
        return list(layer.weights) if layer.activation is keras.activations.linear else None
    if not isinstance(layer, PASS_ON):
        return None
    return _all([_giving(graph, layers, source) for source in graph.calls[name][0].sources])


def _reading(graph: Graph, layers: dict, tensor: Tensor) -> list[keras.Variable] | None:
    """The kernels of all that reads a tensor; None where something else does, or an output or a tap shows it."""
    if graph.gives(tensor[0]):
        return None
    found: list[list[keras.Variable] | None] = []
    for call in graph.consumers[tensor]:
        layer = layers.get(call.layer)
        if len(graph.calls[call.layer]) != 1:
            return None
        if isinstance(layer, LINEAR):
            found.append([layer.kernel])
        elif isinstance(layer, PASS_ON) and len(call.sources) == 1 and not TAP.fullmatch(call.layer):
            found.append(_reading(graph, layers, (call.layer, 0, 0)))
        else:
            return None
    return _all(found)


def _all(found: list[list[keras.Variable] | None]) -> list[keras.Variable] | None:
    """All of several lists, or None if one is."""
    return None if None in found else [variable for variables in found for variable in variables or ()]
