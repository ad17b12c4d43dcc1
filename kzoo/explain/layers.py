"""Which feature map of a model is explained, where nobody says."""

import re
from itertools import accumulate
from typing import Any

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.boxes import as_boxes
from kzoo.explain.replay import Place, Replay, leading_to, tensor_shape

# From the answer back to the map that it is read from: what works on every place by itself, or enlarges.
POINTWISE = {
    *("Activation", "Softmax", "LogSoftmax", "Sigmoid", "Identity", "Meaning", "Cast", "Dropout", "SpatialDropout2D"),
    *("Resize", "Resizing", "UpSampling2D", "Upsample", "MatchSize", "Cropping2D"),
}

ROW = re.compile(r"head_logits_p(\d+)")  # of a detector: what its class head gives on one level, place by place
PADDED = "image_pad"  # where a detector pads its image at the right and at the bottom
HEAD = "head_"  # what the names of all layers behind the pyramid begin with

GLOBAL = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def explained_layer(model: keras.Model, target: Any = None) -> str:
    """Path of the feature map that maps are made of by default: the last one that still has places.

    Of a classifier this is what global pooling, or flattening, reads: in ResNet the sum of the last block, in VGG the
    last pooled map, in Swin and NAT the final normalisation, never the first one of a block, whose map shows the
    background. Of a model for segmentation it is what the last convolution, of 1×1, reads. Of a detector it is the map
    of the pyramid on which the box stands that is the target.

    Args:
        model: functional or Sequential model of one image.
        target: what is explained, as in `kzoo.grad_cam`; of detectors alone it is asked.

    Raises:
        InvalidValueError: no feature map on the way; of a detector no box, or boxes on several maps.

    Example:
        >>> explained_layer(kzoo.build("swin_tiny"))
        'head_norm'
    """
    return explained_place(Replay(model), target)[0].path


def explained_place(replay: Replay, target: Any = None) -> Place:
    """As `explained_layer`, of a model that is open."""
    if levels := pyramid_levels(replay):
        return _map_of_boxes(levels, target, replay.name)
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


def pyramid_levels(replay: Replay) -> list[tuple[int, Place]]:
    """Of each level of a detector the number of its places and its map of the pyramid, the finest first.

    Of other models there are none.
    """
    rows = {int(found[1]): node for node in replay.nodes if (found := ROW.fullmatch(node.operation.name))}
    levels = []
    for _, row in sorted(rows.items()):
        place: Place = (row, 0)
        while place[0].operation.name.startswith(HEAD):
            place = place[0].tensors[0]
        levels.append((int(tensor_shape((row, 0))[2] or 0), place))
    return levels


def over_image(maps: np.ndarray, replay: Replay, place: Place) -> np.ndarray:
    """Maps (n, height, width) without the rows and columns that lie over the padding of a detector's image.

    Places are counted whole: of 8.3 columns over the image 8 stay.
    """
    pad = next((node for node in leading_to([place[0]]) if node.operation.name == PADDED), None)
    if pad is None:
        return maps
    own, padded = (tensor_shape(each)[1:3] for each in (pad.tensors[0], (pad, 0)))
    rows, columns = (
        max(1, round(have * (side or 1) / (whole or 1)))
        for have, side, whole in zip(maps.shape[1:], own, padded, strict=True)
    )
    return maps[:, :rows, :columns]


def _map_of_boxes(levels: list[tuple[int, Place]], target: Any, model: str) -> Place:
    """The map on which boxes stand."""
    names = ", ".join(place[0].path for _, place in levels)
    if not (boxes := as_boxes(target)):
        raise InvalidValueError(
            f"{model} finds boxes on several maps; give a kzoo.explain.Box as target, whose map is taken, or as layer "
            f"one of {names}"
        )
    ends = list(accumulate(count for count, _ in levels))
    found = {next((level for level, end in enumerate(ends) if box.place < end), -1) for box in boxes}
    if len(found) > 1:
        raise InvalidValueError(
            f"the boxes stand on maps of several sizes; explain those of one map at a time, or give as layer one of "
            f"{names}"
        )
    return levels[found.pop()][1]


def _is_pointwise(operation) -> bool:
    if isinstance(operation, keras.layers.Conv2D) and type(operation) is keras.layers.Conv2D:
        return set(operation.kernel_size) == {1}
    return type(operation).__name__ in POINTWISE


def _rank(place: Place) -> int:
    return len(tensor_shape(place))


def _loses_places(node) -> bool:
    return _rank((node, 0)) < _rank(node.tensors[0])


def _before_pooling(place: Place) -> Place:
    """The map that was pooled, where layers read what global pooling left of it, one place, before it is flattened."""
    inside = place
    while inside[0].tensors and tensor_shape(inside)[1:3] == (1, 1):
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
