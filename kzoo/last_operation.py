"""What the last operation of a graph gives: a softmax, sigmoids, logits, or something that nobody knows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import keras
import numpy as np

from kzoo.arithmetic import operation_scale_and_offset
from kzoo.flatten import FlatGraph, Node
from kzoo.graph import Call, has_graph
from kzoo.layers.meaning import Meaning

Values = Literal["softmax", "sigmoid", "logits", "unknown"]
SOFTMAX: Final = "softmax"
SIGMOID: Final = "sigmoid"
LOGITS: Final = "logits"
UNKNOWN: Final = "unknown"
BOXES, SCORES = "boxes", "scores"  # what a detector gives, by name

# Layers and plain operations of Keras and kzoo, by the names of their classes: the graph tells operations by no other.
DROPOUTS = {  # layers of Keras that change numbers in training alone
    *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
}
SAME = {  # in inference each number is what it was
    *("Identity", "ActivityRegularization", "Cast", "StopGradient", "SideOutput", "FakeQuantize", "Meaning"),
    *DROPOUTS,
}
AVERAGES = {  # over places, each class by itself: probabilities stay probabilities
    *("AveragePooling1D", "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D", "Resizing", "Resize", "Upsample", "MatchSize"),
}
MOVES = {"Flatten", "Reshape", "RepeatVector", "Squeeze", "ExpandDims", "Permute", "Transpose", "GetItem"}
ROWS_KEPT = {"Flatten", "Reshape", "RepeatVector", "Squeeze"}  # those that keep rows whose width is the same
# What keeps each kind of values; of several tensors all must be of one kind.
JOINS: dict[str, set[Values]] = {
    "Average": {SOFTMAX, SIGMOID, LOGITS},
    "Concatenate": {SIGMOID, LOGITS},
    "Add": {LOGITS},
    "BatchNormalization": {LOGITS},  # trained with what reads it, as the weights before it are
}
SCALES = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Rescaling"}  # with constants: a temperature, say
LINEAR = (  # what multiplies by weights and then activates
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
ACTIVATIONS: dict[Callable, Values] = {
    keras.activations.softmax: SOFTMAX,
    keras.activations.sigmoid: SIGMOID,
    keras.activations.linear: LOGITS,
    keras.activations.log_softmax: LOGITS,  # its softmax is that of the logits
}


def last_values(model: keras.Model) -> Values:
    """What the only output of a model with a graph is: `"softmax"` along the last axis, `"sigmoid"`, `"logits"` or
    `"unknown"`.

    Example:
        >>> last_values(keras.Sequential([kzoo.build("vgg16", classifier_activation=None), keras.layers.Dropout(0.1)]))
        'logits'
    """
    return _of_node(FlatGraph(model).outputs[0], tuple(model.outputs[0].shape))


def is_of_detector(shapes: Mapping[str, Sequence]) -> bool:
    """Whether outputs of these names and shapes are a detector's: (n, places, 4) and (n, places, classes)."""
    boxes, scores = tuple(shapes.get(BOXES, ())), tuple(shapes.get(SCORES, ()))
    return len(boxes) == len(scores) == 3 and boxes[1:] == (scores[1], 4) and bool(scores[2])


def scores_of(model: keras.Model) -> keras.Model | None:
    """A detector up to its scores, which tell of its classes; None for any other model."""
    outputs = getattr(model, "output", None) if has_graph(model) else None
    if not isinstance(outputs, Mapping) or not all(hasattr(output, "shape") for output in outputs.values()):
        return None
    if not is_of_detector({name: output.shape for name, output in outputs.items()}):
        return None
    return keras.Model(model.input, outputs[SCORES], name=model.name)


def carried_meaning(model: keras.Model) -> Meaning | None:
    """The layer that tells what the only output of a model means, or of a detector its scores, if nothing but
    identities comes behind it."""
    model = scores_of(model) or model
    node = FlatGraph(model).outputs[0] if has_graph(model) and len(model.outputs) == 1 else None
    while node is not None and node.call is not None:
        if isinstance(node.operation, Meaning):
            return node.operation
        if _name(node.operation) not in SAME or not _is_known(node.operation):
            break
        node = node.sources[0]
    return None


def _of_node(node: Node, shape: tuple) -> Values:
    """What the output of a call is, which has this shape."""
    moved = False  # whether numbers of one softmax may stand apart
    while (call := node.call) is not None:
        operation = _unwrapped(node.operation)
        found: Values | None
        if has_graph(operation):  # in a wrapper
            found = last_values(operation)
        elif not _is_known(operation):
            return UNKNOWN
        else:
            found = _given_by(operation, shape)
        if found is None and len(node.sources) == 1 and _name(operation) in SCALES:
            found = _scaled(node, call, operation, shape)
        elif found is None and _name(operation) in JOINS:
            found = _joined(node, call, _name(operation), shape)
        if found is not None:
            return UNKNOWN if moved and found == SOFTMAX else found
        before = tuple(call.input_shapes[0]) if call.input_shapes else ()
        if _name(operation) in MOVES:
            moved |= _name(operation) not in ROWS_KEPT or before[-1] != shape[-1]
        elif not _passes(operation):
            return UNKNOWN
        node, shape = node.sources[0], before
    return UNKNOWN


def _given_by(operation, shape: tuple) -> Values | None:
    """What an operation makes of anything; None where it depends on what it reads."""
    if isinstance(operation, (*LINEAR, keras.layers.Activation)):
        activation = operation.activation
        if isinstance(activation, keras.layers.Layer):
            return _given_by(activation, shape) or UNKNOWN
        if activation is keras.activations.linear and isinstance(operation, keras.layers.Activation):
            return None
        return ACTIVATIONS.get(activation, UNKNOWN)
    if _name(operation) in ("Softmax", "LogSoftmax"):
        axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
        along_last = len(axes) == 1 and axes[0] in (-1, len(shape) - 1)
        if not along_last:
            return UNKNOWN
        return SOFTMAX if _name(operation) == "Softmax" else LOGITS
    return SIGMOID if _name(operation) == "Sigmoid" else None


def _scaled(node: Node, call: Call, operation, shape: tuple) -> Values:
    """Logits, if they are what a call scales and shifts by constants, each unit by itself; no scale turns its sign."""
    if _name(operation) == "Rescaling":
        scale = np.asarray(operation.scale, "float64")
    else:
        affine = operation_scale_and_offset(operation, call.args)
        scale = np.asarray(affine[0] if affine else 0.0)
    before = tuple(call.input_shapes[0])
    if not (np.isfinite(scale) & (scale > 0)).all() or before[-1:] != shape[-1:]:
        return UNKNOWN
    return LOGITS if _of_node(node.sources[0], before) == LOGITS else UNKNOWN


def _joined(node: Node, call: Call, name: str, shape: tuple) -> Values:
    """What sums and averages of tensors are, or tensors side by side, if all of them are of one kind."""
    shapes = [tuple(before) for before in call.input_shapes]
    if name != "Concatenate" and any(before[-1:] != shape[-1:] for before in shapes):
        return UNKNOWN  # one unit is added to several
    found = {_of_node(source, before) for source, before in zip(node.sources, shapes, strict=True)}
    return found.pop() if len(found) == 1 and found <= JOINS[name] else UNKNOWN


def _passes(operation) -> bool:
    """Whether what goes in comes out, or its averages."""
    if _name(operation) == "Cast":
        return "float" in operation.dtype
    if _name(operation) in AVERAGES:
        return (
            getattr(operation, "interpolation", "nearest") in ("nearest", "bilinear")
            and getattr(operation, "data_format", "channels_last") in ("channels_last", None)
            and not getattr(operation, "pad_to_aspect_ratio", False)
        )
    return _name(operation) in SAME or isinstance(operation, keras.layers.Activation)  # a linear one


def _unwrapped(operation):
    while isinstance(operation, keras.layers.Wrapper) and _is_known(operation):
        operation = operation.layer
    return operation


def _is_known(operation) -> bool:
    """Whether Keras or kzoo wrote what it computes, so that the name of its class tells."""
    owner = next(kind for kind in type(operation).__mro__ if "call" in vars(kind))
    return owner.__module__.partition(".")[0] in ("keras", "kzoo")


def _name(operation) -> str:
    return type(operation).__name__
