"""Which feature map of a model is explained, where nobody says."""

import keras

from kzoo.errors import InvalidValueError
from kzoo.explain.replay import Place, Replay

# From the answer back to the map that it is read from: what works on every place by itself, or enlarges.
POINTWISE = {
    *("Activation", "Softmax", "LogSoftmax", "Sigmoid", "Identity", "Meaning", "Cast", "Dropout", "SpatialDropout2D"),
    *("Resize", "Resizing", "UpSampling2D", "Upsample", "MatchSize", "Cropping2D"),
}

GLOBAL = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def explained_layer(model: keras.Model) -> str:
    """Path of the feature map that maps are made of by default: the last one that still has places.

    Of a classifier this is what global pooling, or flattening, reads: in ResNet the sum of the last block, in VGG the
    last pooled map, in Swin and NAT the final normalisation, never the first one of a block, whose map shows the
    background. Of a model for segmentation it is what the last convolution, of 1×1, reads.

    Raises:
        InvalidValueError: no feature map on the way.

    Example:
        >>> explained_layer(kzoo.build("swin_tiny"))
        'head_norm'
    """
    return explained_place(Replay(model))[0].path


def explained_place(replay: Replay) -> Place:
    """As `explained_layer`, of a model that is open."""
    place = replay.outputs[0]
    maps = _rank(place) == 4
    while place[0].call is not None:
        node = place[0]
        if maps and not _is_pointwise(node.operation) and _rank(place) == 4:
            return place
        before = [source for source in node.tensors if _rank(source) in (3, 4)] if not maps else node.tensors
        if not maps and before and _loses_places(node):
            return _before_pooling(_unfold(before[0]))
        if not node.tensors:
            break
        place = node.tensors[0]
    raise InvalidValueError(f"{replay.name} has no feature map before its output; give layer=, a map's name")


def _is_pointwise(operation) -> bool:
    if isinstance(operation, keras.layers.Conv2D) and type(operation) is keras.layers.Conv2D:
        return set(operation.kernel_size) == {1}
    return type(operation).__name__ in POINTWISE


def _rank(place: Place) -> int:
    return len(_shape(place))


def _shape(place: Place) -> tuple[int | None, ...]:
    node, tensor = place
    return tuple(keras.tree.flatten(node.operation.output)[tensor].shape)


def _loses_places(node) -> bool:
    return _rank((node, 0)) < _rank(node.tensors[0])


def _before_pooling(place: Place) -> Place:
    """The map that was pooled, where layers read what global pooling left of it, one place, before it is flattened."""
    inside = place
    while inside[0].tensors and _shape(inside)[1:3] == (1, 1):
        pooled = isinstance(inside[0].operation, GLOBAL)
        inside = inside[0].tensors[0]
        if pooled:
            return _unfold(inside)
    return place


def _unfold(place: Place) -> Place:
    """The map itself, where an identity, dropout or another order of axes stands between it and what pools it."""
    between = ("Identity", "Dropout", "SpatialDropout2D", "Permute")
    while type(place[0].operation).__name__ in between and place[0].tensors:
        place = place[0].tensors[0]
    return place
