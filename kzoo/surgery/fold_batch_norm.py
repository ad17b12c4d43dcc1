"""Folding batch normalisation into the linear layer before it."""

import logging
from dataclasses import dataclass, field

import keras
import numpy as np

from kzoo.graph import Graph, read_graph

LINEAR = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
)
_log = logging.getLogger("kzoo")


@dataclass
class FoldPlan:
    """What `fold_batch_norm` will do to a model.

    Attributes:
        folds: batch normalisation -> the linear layer that takes it in.
        inside: layers with a batch normalisation of their own that they fold themselves.
        kept: batch normalisation that stays -> why.
    """

    folds: dict[str, str] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


def plan_folding(model: keras.Model) -> FoldPlan:
    """Decides for every batch normalisation of `model` whether it can be folded exactly, without changing it.

    One folds if a Conv2D, DepthwiseConv2D, Conv2DTranspose or Dense layer, or one with a method `absorb`, feeds
    it and nothing else, without an activation in between, and if it normalises the channels. Both may be called
    several times, always one after the other. Average pooling may stand in between layers that are called once.

    Raises:
        InvalidValueError: the model is not functional.
    """
    graph = read_graph(model)
    plan = FoldPlan()
    layers = {layer.name: layer for layer in model.layers}
    for name in graph.calls:
        layer = layers.get(name)  # None for a plain operation such as x + y
        if callable(getattr(layer, "folded", None)):
            plan.inside.append(name)
        elif isinstance(layer, keras.layers.BatchNormalization):
            linear, reason = _find_linear(layers, graph, layer)
            if reason:
                plan.kept[name] = reason
            else:
                plan.folds[name] = linear
        elif isinstance(layer, keras.Model) and any(
            isinstance(inner, keras.layers.BatchNormalization) for inner in layer.layers
        ):
            plan.kept[name] = "it is a model inside the model; fold it by itself"
    return plan


def _find_linear(layers: dict, graph: Graph, norm: keras.layers.BatchNormalization) -> tuple[str, str]:
    """The linear layer that can take `norm` in, or the reason why none can."""
    calls = graph.calls[norm.name]
    if not all(call.sources for call in calls):
        return "", "no layer feeds it"
    name = _before_pooling(layers, graph, calls[0].sources[0][0])
    linear = layers.get(name)
    rank = len(calls[0].input_shapes[0])
    if type(norm) is not keras.layers.BatchNormalization:
        return "", f"it is a {type(norm).__name__}, which may compute something else"
    absorbs = callable(getattr(linear, "absorb", None))
    if not absorbs and type(linear) not in LINEAR:  # a subclass may compute something else
        kind = "plain operation" if linear is None else type(linear).__name__
        return "", f"{name} before it is a {kind}, not a convolution or dense layer"
    if norm.axis not in (-1, rank - 1):
        return "", f"it normalises axis {norm.axis}, not the channels"
    if getattr(linear, "data_format", "channels_last") != "channels_last":
        return "", f"{name} is channels first"
    if not absorbs and linear.activation is not keras.activations.linear:
        return "", f"{name} before it has an activation, which is not linear"
    if len(calls) != len(graph.calls[name]):
        return "", f"it is called {len(calls)} times and {name} before it {len(graph.calls[name])} times"
    if len(calls) > 1 and {call.sources[0][0] for call in calls} != {name}:
        return "", f"it is shared by {len(calls)} calls, and not all follow {name}"
    if name in graph.outputs or any(len(graph.consumers[name, index]) != 1 for index in range(len(calls))):
        return "", f"the output of {name} is used elsewhere too"
    return name, ""


def _before_pooling(layers: dict, graph: Graph, name: str) -> str:
    """The layer in front of average pooling, which commutes with a scale and an offset for each channel."""
    while (
        type(layers.get(name)) is keras.layers.AveragePooling2D
        and len(graph.calls[name]) == len(graph.consumers[(name, 0)]) == 1
        and name not in graph.outputs
        and graph.calls[name][0].sources
    ):
        name = graph.calls[name][0].sources[0][0]
    return name


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Returns an equal model for inference whose batch normalisations are folded into the layers before them.

    `gamma * (W x + b - mean) / sqrt(var + eps) + beta` is `W' x + b'` with `W' = W * s`,
    `b' = (b - mean) * s + beta` and `s = gamma / sqrt(var + eps)` (arXiv:1502.03167). Layers that hold a batch
    normalisation of their own, such as CBAM, fold it themselves. What cannot be folded exactly stays, and is
    logged with its reason; `kzoo.surgery.plan_folding` lists it.

    Args:
        model: a functional model. It and its weights are left as they are.

    Returns:
        A new functional model with the same layer names but for the normalisations that went.

    Raises:
        InvalidValueError: the model is not functional.

    Example:
        >>> folded = kzoo.fold_batch_norm(kzoo.build("resnet50"))
        >>> [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
        []
    """
    plan = plan_folding(model)
    for name, reason in plan.kept.items():
        _log.warning("%s: %s stays: %s", model.name, name, reason)
    weights: dict[str, list[np.ndarray]] = {}
    norms = {linear: norm for norm, linear in plan.folds.items()}

    def clone(layer):
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.layers.Lambda):
            return layer  # nothing in it to copy, and a Lambda cannot be made from its config
        if layer.name in plan.inside:
            layer, weights[layer.name] = layer.folded()
            return layer
        if layer.name in norms and hasattr(layer, "absorb"):
            layer, weights[layer.name] = layer.absorb(*scale_and_offset(model.get_layer(norms[layer.name])))
            return layer
        config = layer.get_config()
        if layer.name in norms:
            config["use_bias"] = True
            weights[layer.name] = fold_weights(layer, model.get_layer(norms[layer.name]))
        elif layer.weights:
            weights[layer.name] = layer.get_weights()
        return type(layer).from_config(config)

    def call(layer, *args, **kwargs):
        return args[0] if layer.name in plan.folds else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in folded.layers:
        if layer.name in weights:
            layer.set_weights(weights[layer.name])
    return folded


def fold_weights(linear: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of `linear` with `norm` folded in, computed in float64."""
    scale, offset = scale_and_offset(norm)
    bias = np.asarray(keras.ops.convert_to_numpy(linear.bias), "float64") if linear.use_bias else 0.0
    kernel = np.asarray(keras.ops.convert_to_numpy(linear.kernel), "float64")
    if isinstance(linear, keras.layers.DepthwiseConv2D):
        kernel = kernel * scale.reshape(kernel.shape[-2:])  # (h, w, in, multiplier)
    elif isinstance(linear, keras.layers.Conv2DTranspose):
        kernel = kernel * scale[:, None]  # (h, w, out, in)
    else:
        kernel = kernel * scale
    return [kernel, bias * scale + offset]


def scale_and_offset(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """At inference `norm(x)` is `scale * x + offset`: both (channels,), in float64."""
    values = {weight.name: np.asarray(keras.ops.convert_to_numpy(weight), "float64") for weight in norm.weights}
    scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    return scale, values.get("beta", 0.0) - values["moving_mean"] * scale
