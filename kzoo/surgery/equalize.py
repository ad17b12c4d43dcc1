"""Cross-layer range equalisation: equal models whose kernels round with a smaller error."""

import logging
from dataclasses import dataclass, field

import keras
import numpy as np

from kzoo.graph import Graph, as_functional, read_graph
from kzoo.surgery.fake_quantization import CHANNEL_AXES, check_folded
from kzoo.surgery.level import Level
from kzoo.surgery.linear import linear_reason
from kzoo.surgery.rewrite import copy_layer
from kzoo.surgery.same_outputs import unless_changed

# linear layers -> the axis of their kernel that counts input channels
_INPUT_AXIS = {
    keras.layers.Conv1D: -2,
    keras.layers.Conv2D: -2,
    keras.layers.DepthwiseConv2D: -2,
    keras.layers.Conv2DTranspose: -1,
    keras.layers.Dense: -2,
}
# f(s x) = s f(x) for s > 0 in each channel
_COMMUTES = (
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.LeakyReLU,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalAveragePooling2D,
)
_HOMOGENEOUS = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
_MAX_SWEEPS, _CONVERGED = 200, 1e-4  # of the largest change of a scale in one sweep over all pairs
_log = logging.getLogger("kzoo")


@dataclass
class EqualizationPlan:
    """What `equalize_ranges` will do to a model.

    Attributes:
        pairs: (layer whose output channels are divided, layer whose input channels are multiplied), in order.
        refused: linear layer that is first of no pair -> the reason.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def plan_equalization(model: keras.Model) -> EqualizationPlan:
    """Decides for every linear layer of `model` whether its channels can be rescaled, without changing it.

    They can if one other linear layer alone reads them, through nothing but positively homogeneous functions of
    each channel: ReLU, leaky ReLU, pooling, padding, flattening. Both layers must be called once.

    Raises:
        InvalidValueError: the model is not functional, has a model inside or batch normalisation.
    """
    graph, plan = read_graph(model), EqualizationPlan()
    check_folded(model, "equalisation")
    layers = {layer.name: layer for layer in model.layers}
    for name in graph.calls:
        if type(layers.get(name)) in CHANNEL_AXES:
            second, reason = _find_second(layers, graph, name)
            if reason:
                plan.refused[name] = reason
            else:
                plan.pairs.append((name, second))
    return plan


def _find_second(layers: dict, graph: Graph, first: str) -> tuple[str, str]:
    """The linear layer that alone reads the channels of `first`, or the reason why there is none."""
    if reason := linear_reason(layers[first]):
        return "", reason
    name = first
    while True:
        if graph.gives(name):
            return "", f"{name} is an output of the model"
        if len(graph.calls[name]) != 1:
            return "", f"{name} is called {len(graph.calls[name])} times"
        reason = _not_homogeneous(layers.get(name))
        if reason:
            return "", f"{name} {reason}"
        readers = graph.consumers.get((name, 0, 0), [])
        if len(readers) != 1:
            return "", f"the output of {name} is used {len(readers)} times"
        name = readers[0].layer
        if type(layers.get(name)) in CHANNEL_AXES:
            break
    second = layers[name]
    if len(graph.calls[name]) != 1:
        return "", f"{name} is called {len(graph.calls[name])} times"
    if reason := linear_reason(second):
        return "", reason
    if getattr(second, "groups", 1) != 1:
        return "", f"{name} is a grouped convolution"
    return name, ""


def _not_homogeneous(layer) -> str:
    """Why a layer does not commute with a positive scale of each channel; empty if it does."""
    if getattr(layer, "data_format", None) == "channels_first":
        return "is channels first, and takes other values for channels"
    if type(layer) is keras.layers.ReLU:
        if layer.max_value is not None:
            return f"clips at {float(layer.max_value):g}, whatever the scale"
        return f"has its threshold at {float(layer.threshold):g}, whatever the scale" if layer.threshold else ""
    if type(layer) in (*CHANNEL_AXES, keras.layers.Activation):
        if layer.activation in _HOMOGENEOUS:
            return ""
        return f"has the activation {layer.activation.__name__}, which is not positively homogeneous"
    if type(layer) in _COMMUTES:
        return ""
    return f"is a {'plain operation' if layer is None else type(layer).__name__}, which may mix channels or scales"


def equalize_ranges(model: keras.Model) -> keras.Model:
    """Returns an equal model in which the ranges of neighbouring kernels agree channel by channel.

    Output channel i of a layer is divided by s_i and input channel i of the next multiplied by it, with
    `s_i = sqrt(r1_i * r2_i) / r2_i` and r the largest magnitude in the channel of a kernel (arXiv:1906.04721,
    equation 11), over all pairs in turn until nothing moves. It helps where a kernel has one scale for all of its
    channels. Outputs stay; maps inside, taps among them, are scaled. Layers that are refused are logged at level
    INFO; `kzoo.surgery.plan_equalization` lists them with the reason.

    Args:
        model: functional or Sequential model without batch normalisation (`kzoo.fold_batch_norm`). It stays as it is.

    Returns:
        A new model with the same layers.

    Raises:
        InvalidValueError: the model is not functional, has a model inside or batch normalisation.

    Example:
        >>> equal = equalize_ranges(kzoo.fold_batch_norm(kzoo.build("vgg16_bn")))
    """
    model, plan = as_functional(model), plan_equalization(model)
    for name, reason in plan.refused.items():
        _log.info("%s: %s is not equalized: %s", model.name, name, reason)
    equal = keras.models.clone_model(model, clone_function=copy_layer)
    involved = {name for pair in plan.pairs for name in pair}
    weights = {name: [weight.astype("float64") for weight in model.get_layer(name).get_weights()] for name in involved}
    pairs = [(model.get_layer(first), model.get_layer(second)) for first, second in plan.pairs]
    for _ in range(_MAX_SWEEPS):
        changes = [_equalize(first, second, weights) for first, second in pairs]
        if max(changes, default=0) < _CONVERGED:
            break
    for layer in model.layers:
        if layer.weights:
            equal.get_layer(layer.name).set_weights(weights.get(layer.name) or layer.get_weights())
    return unless_changed(Level(model), equal)


def _equalize(first, second, weights: dict[str, list[np.ndarray]]) -> float:
    """Rescales one pair in place; returns the largest change of a scale."""
    kernel, *bias = weights[first.name]
    axes = CHANNEL_AXES[type(first)]
    next_kernel = weights[second.name][0]
    first_range = _range(kernel, axes)
    if isinstance(second, keras.layers.Dense):  # after a Flatten every pixel has its own rows
        next_kernel = next_kernel.reshape(-1, first_range.size, next_kernel.shape[-1])  # a view
    next_axes = (_INPUT_AXIS[type(second)],)
    next_range = _range(next_kernel, next_axes)
    live = (first_range > 0) & (next_range > 0)
    scale = np.where(live, np.sqrt(first_range / np.where(live, next_range, 1)), 1.0)
    kernel /= _along(scale, kernel, axes)
    for values in bias:
        values /= scale
    next_kernel *= _along(scale, next_kernel, next_axes)
    return float(np.abs(np.log(scale)).max())


def _range(kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Largest magnitude in each channel: (channels,)."""
    others = tuple(axis for axis in range(-kernel.ndim, 0) if axis not in axes)
    return np.abs(kernel).max(axis=others).ravel()


def _along(values: np.ndarray, kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Values of each channel in a shape that broadcasts against the kernel."""
    return values.reshape([kernel.shape[axis] if axis in axes else 1 for axis in range(-kernel.ndim, 0)])
