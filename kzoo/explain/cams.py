"""Class activation maps: a feature map, weighted by what its channels add to a score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.gradients import score_and_gradient
from kzoo.explain.layers import explained_place, over_image
from kzoo.explain.replay import Place, Replay
from kzoo.explain.targets import Score, Target, score_of


class Features(NamedTuple):
    """A feature map (n, height, width, channels) of images, and the gradient of their scores in it.

    Sums over its channels are maps when `over_image` has taken away what lies over padding.
    """

    maps: np.ndarray
    gradients: np.ndarray
    scores: np.ndarray
    over_image: Callable[[np.ndarray], np.ndarray]


def grad_cam(model: keras.Model, images: np.ndarray, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Where a model sees what it answers: channels weighted by their mean gradient.

    `L = sum over k of a_k A_k` with `a_k = mean over y, x of dS / dA_k` (Selvaraju et al. 2017, arXiv:1610.02391, eq.
    1 and 2), without the ReLU around it: what is negative speaks against the target. Where a model ends in global
    average pooling and one dense layer it is the class activation map over the number of places.

    Args:
        model: functional or Sequential model of one image; models may stand inside it. Of several outputs the first
            that is (n, units) is explained; for another one make `keras.Model(model.input, that)`.
        images: (n, height, width, channels), as the model takes them.
        target: what is explained: index of a class, one for all images or one for each, a
            `kzoo.explain.Difference` of classes, a `kzoo.explain.Region` of a mask, of a detector a
            `kzoo.explain.Box`, one for all images or one for each, or a function from logits to scores (n,). Default:
            the most probable class. Scores are of logits: a last softmax or sigmoid is taken off.
        layer: name of the feature map, or its path in models inside, "backbone/p5"; a tap, say. Default:
            `kzoo.explain.explained_layer`.

    Returns:
        (n, height, width) of the feature map, signed and not normalised. Each image is explained by itself. What lies
        over the padding of a detector is left out, so that the map lies over the image.

    Raises:
        InvalidValueError: a subclassed model, a layer that gives no map or on which the answer does not depend, images
            of another shape, or a class that does not exist.
        UnknownNameError: no such layer.

    Example:
        >>> maps = kzoo.grad_cam(kzoo.build("resnet50", weights="imagenet"), images, target=386)
        >>> maps.shape
        (8, 7, 7)
    """
    found = features(model, images, target, layer)
    weights = found.gradients.mean(axis=(1, 2), keepdims=True)
    return found.over_image((weights * found.maps).sum(axis=-1))


def hires_cam(model: keras.Model, images: np.ndarray, target: Target = None, layer: str | None = None) -> np.ndarray:
    """The product of feature map and gradient, place by place: `sum over k of dS / dA_k · A_k`.

    Draelos and Carin 2020 (arXiv:2011.08891, eq. 6). Unlike Grad-CAM's it shows only places that the score was
    computed from; before global average pooling both are the same. Takes and raises what `grad_cam` does.

    Example:
        >>> hires_cam(model, images, layer="p4").shape
        (8, 14, 14)
    """
    found = features(model, images, target, layer)
    return found.over_image((found.gradients * found.maps).sum(axis=-1))


def layer_cam(model: keras.Model, images: np.ndarray, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Each place weighted by its own positive gradient: `sum over k of relu(dS / dA_k) · A_k`.

    Jiang et al. 2021 (LayerCAM, IEEE TIP 30, eq. 3 and 4), made for fine maps of early layers. Takes and raises what
    `grad_cam` does.

    Example:
        >>> layer_cam(model, images, layer="p2").shape
        (8, 56, 56)
    """
    found = features(model, images, target, layer)
    return found.over_image((np.maximum(found.gradients, 0) * found.maps).sum(axis=-1))


def grad_cam_plus_plus(
    model: keras.Model, images: np.ndarray, target: Target = None, layer: str | None = None
) -> np.ndarray:
    """Grad-CAM for several objects of a class: places count by how sure their gradient is.

    With g the gradient of the score and Y = exp(S): `a = g² / (2 g² + g³ sum over y, x of A)` and the weight of a
    channel is `sum over y, x of a relu(g)` (Chattopadhay et al. 2018, arXiv:1710.11063, eq. 10 and 19; the factor Y
    is the same everywhere and left out). Takes and raises what `grad_cam` does.

    Example:
        >>> grad_cam_plus_plus(model, images).shape
        (8, 7, 7)
    """
    found = features(model, images, target, layer)
    squares = found.gradients**2
    below = 2 * squares + found.gradients * squares * found.maps.sum(axis=(1, 2), keepdims=True)
    shares = np.divide(squares, below, out=np.zeros_like(below), where=below != 0)
    weights = (shares * np.maximum(found.gradients, 0)).sum(axis=(1, 2), keepdims=True)
    return found.over_image((weights * found.maps).sum(axis=-1))


def eigen_cam(model: keras.Model, images: np.ndarray, layer: str | None = None) -> np.ndarray:
    """What stands out in a feature map, whatever the answer: its projection on its first principal component.

    Muhammad and Yeasin 2020 (arXiv:2008.00299, section III). Channels are centred, and the sign is the one with which
    the map is larger where the activations are. No gradient is needed. Args and errors are those of `grad_cam`.

    Example:
        >>> eigen_cam(model, images).shape
        (8, 7, 7)
    """
    replay = Replay(model)
    place = map_place(replay, layer)
    (maps,) = replay.run(as_tensor(model, images), [place])
    found = np.stack([_first_component(each) for each in as_maps(maps, replay, place)])
    return over_image(found, replay, place)


def features(model: keras.Model, images: np.ndarray, target: Target, layer: str | None) -> Features:
    """The feature map of images at a layer, and the gradient of their scores in it."""
    replay = Replay(model)
    place = map_place(replay, layer, target)
    tensor = as_tensor(model, images)
    (maps,) = replay.run(tensor, [place])
    found = as_maps(maps, replay, place)
    if not replay.leads_to_outputs(place):
        raise InvalidValueError(f"the answer of {model.name} does not depend on {place[0].path}; give another layer")
    score = score_of(target, logits_of(replay, tensor), model.name)
    scores, gradients = score_and_gradient(behind(replay, tensor, place, score), maps)
    return Features(found, as_maps(gradients, replay, place), scores, lambda each: over_image(each, replay, place))


def behind(replay: Replay, images: Any, place: Place, score: Score) -> Callable[[Any], Any]:
    """The function from the tensor at a place to scores (n,); what does not come through it stays as it is."""
    return lambda tensor: score(answer_of(replay.logits(images, {place: tensor})))


def logits_of(replay: Replay, images: Any) -> np.ndarray:
    """The logits of the answer as an array."""
    return keras.ops.convert_to_numpy(answer_of(replay.logits(images))).astype("float32")


def map_place(replay: Replay, layer: str | None, target: Target = None) -> Place:
    """Where the feature map is."""
    return explained_place(replay, target) if layer is None else replay.place(layer)


def as_tensor(model: keras.Model, images: np.ndarray) -> Any:
    """Images as the model takes them; raises `InvalidValueError` for another shape, none at all, or no numbers."""
    array = as_array(images)
    shape = tuple(model.inputs[0].shape[1:])
    fits = array.ndim == len(shape) + 1 and len(array) > 0
    if not fits or any(own not in (None, given) for own, given in zip(shape, array.shape[1:], strict=True)):
        raise InvalidValueError(
            f"images have shape {array.shape}; {model.name} takes (n, {', '.join(map(str, shape))})"
        )
    return keras.ops.convert_to_tensor(array.astype(number_type(model)))


def number_type(model: keras.Model) -> str:
    """Type of the images that are computed with; float32 for a model of integers, which have no gradients."""
    dtype = keras.backend.standardize_dtype(model.inputs[0].dtype)
    return dtype if "float" in dtype else "float32"


def as_array(images: Any) -> np.ndarray:
    """Images as an array; raises `InvalidValueError` for images of several sizes, and for NaN and infinite pixels."""
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise InvalidValueError(f"images are no array: {error}; resize them to one size") from error
    real = np.issubdtype(array.dtype, np.number) and not np.issubdtype(array.dtype, np.complexfloating)
    if not (real or array.dtype == bool):
        raise InvalidValueError(f"images are of type {array.dtype}; numbers are needed, as kzoo.images reads them")
    if not np.isfinite(array).all():
        raise InvalidValueError("images hold NaN or infinite pixels")
    return array


def as_maps(tensor: Any, replay: Replay, place: Place) -> np.ndarray:
    """(n, height, width, channels) in float32; tokens (n, height · width, channels) of a square are unfolded."""
    array = keras.ops.convert_to_numpy(tensor).astype("float32")
    if array.ndim == 3:
        side = int(array.shape[1] ** 0.5)
        if side**2 == array.shape[1] - 1 and side > 0:
            array = array[:, 1:]  # a class token comes first
        if side**2 == array.shape[1]:
            array = array.reshape(len(array), side, side, -1)
    if array.ndim != 4:
        raise InvalidValueError(
            f"{place[0].path} of {replay.name} gives {array.shape}, no map (n, height, width, channels); give another "
            "layer"
        )
    return array


def answer_of(outputs: list) -> Any:
    """The output that scores are of: the only one, or the first with a number for each class."""
    if len(outputs) == 1:
        return outputs[0]
    return next((output for output in outputs if len(output.shape) == 2), outputs[0])


def _first_component(maps: np.ndarray) -> np.ndarray:
    rows = maps.reshape(-1, maps.shape[-1])
    rows = rows - rows.mean(axis=0)
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    projected = rows @ directions[0]
    if projected @ rows.sum(axis=1) < 0:
        projected = -projected
    return projected.reshape(maps.shape[:-1])
