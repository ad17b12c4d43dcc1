"""A heat map as a second output: where in a picture a classifier sees each class."""

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.flatten import FlatGraph, Node
from kzoo.last_operation import DROPOUTS
from kzoo.surgery.level import Level
from kzoo.surgery.rewrite import rewrite

ANSWER, HEATMAP = "answer", "heatmap"
_SAME = {"Identity", "ActivityRegularization", "Cast", "StopGradient", "SideOutput", "Meaning", *DROPOUTS}
_ROWS = {"Flatten", "Reshape", "Squeeze"}  # of one row of numbers for each image, which they leave in order
_LAST = {"Activation", "Softmax", "LogSoftmax", "Sigmoid"}


def with_heatmap(model: keras.Model) -> keras.Model:
    """Adds class activation maps to a classifier that ends in global average pooling and one dense layer.

    The map of class c at (y, x) is `sum over k of w[k, c] f[y, x, k]` (Zhou et al. 2016, arXiv:1512.04150, eq. 2), of
    the last feature map f and the dense kernel w: a 1x1 convolution without bias. Its mean over y and x, plus the bias
    of the dense layer, is the logit of the class. So a map tells how much each place adds to a logit.

    Args:
        model: functional or Sequential classifier, from one image to one output (n, classes). Between pooling, dense
            layer and output there may be dropout, identities, reshaping of each image's row of numbers, an activation
            and names of classes (`kzoo.with_classes`).

    Returns:
        A new functional model with two outputs: `"answer"`, what the model gives, and `"heatmap"`, (n, height, width,
        classes) of the size of the last feature map. `model` is left as it is.

    Raises:
        InvalidValueError: the model does not end so; the message names what is in the way.

    Example:
        >>> model = kzoo.surgery.with_heatmap(kzoo.build("resnet50", weights="imagenet"))
        >>> outputs = model(images)
        >>> maps = outputs["heatmap"][0, :, :, int(keras.ops.argmax(outputs["answer"][0]))]  # (7, 7)
    """
    pooling, dense = _find_head(model)
    copied = rewrite(level := Level(model), lambda level: {})
    layers = {operation.name: operation for operation in copied.operations}
    kernel = keras.ops.convert_to_numpy(layers[dense].kernel)
    to_map = keras.layers.Conv2D(
        kernel.shape[1], 1, use_bias=False, name=level.new_name(HEATMAP), dtype=layers[dense].dtype_policy
    )
    outputs = {ANSWER: copied.outputs[0], HEATMAP: to_map(layers[pooling].input)}
    to_map.set_weights([kernel[np.newaxis, np.newaxis]])
    return keras.Model(copied.input, outputs, name=model.name)


def _find_head(model: keras.Model) -> tuple[str, str]:
    """Names of the pooling and of the dense layer."""
    if len(getattr(model, "outputs", None) or []) != 1 or isinstance(model.output, dict):
        raise _refused(model, "it has several outputs, or none (a subclassed model)")
    last = FlatGraph(model).outputs[0]
    dense = _back_to(model, last, keras.layers.Dense, _SAME | _ROWS | _LAST)
    pooling = _back_to(model, dense.sources[0], keras.layers.GlobalAveragePooling2D, _SAME | _ROWS)
    level = Level(model)
    for node in (pooling, dense):
        name = node.operation.name
        if level.operations.get(name) is not node.operation:
            raise _refused(model, f"{name!r} stands in a model inside it; give that one, or build both in one piece")
        if len(level.graph.calls[name]) > 1:
            raise _refused(model, f"{name!r} is called more than once")
    channels = level.input_shape(pooling.operation.name)[-1]
    if pooling.operation.data_format != "channels_last" or dense.operation.kernel.shape[0] != channels:
        raise _refused(model, f"{dense.operation.name!r} does not multiply the means of the {channels} channels")
    return pooling.operation.name, dense.operation.name


def _back_to(model: keras.Model, node: Node, kind: type, between: set[str]) -> Node:
    """The first layer of a kind before an output or layer, with nothing but `between` on the way."""
    while type(operation := node.operation) is not kind:
        name = type(operation).__name__
        known = type(operation).__module__.partition(".")[0] in ("keras", "kzoo")
        if node.call is None or not known or name not in between:
            raise _refused(model, f"{operation.name!r}, a {name}, stands where a {kind.__name__} must be")
        node = node.sources[0]
    return node


def _refused(model: keras.Model, reason: str) -> InvalidValueError:
    return InvalidValueError(
        f"{model.name} gives no heat map, which needs an end of global average pooling and one dense layer: {reason}"
    )
