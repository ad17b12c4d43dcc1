"""Every kind of map by a short name, with what it needs and tells; all maps of one picture."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, check_choice
from kzoo.explain.boxes import Box
from kzoo.explain.cams import eigen_cam, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam
from kzoo.explain.layers import explained_layer, explained_place, pyramid_levels
from kzoo.explain.perturbation import box_outputs, finds_boxes, occlusion, rise, score_cam, scorers
from kzoo.explain.places import attending
from kzoo.explain.replay import Replay
from kzoo.explain.rollout import attention_rollout
from kzoo.explain.saliency import integrated_gradients, smooth_grad
from kzoo.last_operation import SCORES

TARGET, LAYER = "target", "layer"


@dataclass(frozen=True)
class Method:
    """A kind of map.

    Attributes:
        title: what it is called.
        tells: what the numbers are, in a sentence.
        maps: function from a model and images to maps.
        takes: what else it takes: a target, a layer.
        of_files: whether it needs nothing but answers, so that LiteRT files have it too.
        check: raises `InvalidValueError` for a model that cannot have it.
        many_passes: whether the model is computed dozens of times or more for a map.
    """

    title: str
    tells: str
    maps: Callable[..., np.ndarray]
    takes: tuple[str, ...] = (TARGET,)
    of_files: bool = False
    check: Callable[[Replay], Any] = lambda replay: None
    many_passes: bool = False


def _check_attending(replay: Replay) -> None:
    levels = [place[0] for _, place in pyramid_levels(replay)]
    attending(replay, levels or [explained_place(replay)[0]])


BOTH = (TARGET, LAYER)
METHODS = {
    "gradcam": Method("Grad-CAM", "A feature map, its channels weighted by their mean gradient.", grad_cam, BOTH),
    "hirescam": Method("HiResCAM", "A feature map times its gradient, place by place.", hires_cam, BOTH),
    "layercam": Method("LayerCAM", "A feature map, each place weighted by its positive gradient.", layer_cam, BOTH),
    "gradcam++": Method("Grad-CAM++", "As Grad-CAM, for several objects of a class.", grad_cam_plus_plus, BOTH),
    "eigencam": Method(
        "Eigen-CAM", "What stands out in a feature map, whatever the answer: no class is asked.", eigen_cam, (LAYER,)
    ),
    "scorecam": Method(
        "Score-CAM", "A feature map, its channels weighted by the score of the picture seen through them.",
        score_cam, BOTH, many_passes=True,
    ),
    "rollout": Method(
        "Attention rollout", "Where the last feature map comes from, by attention's weights: no class is asked.",
        attention_rollout, (), check=_check_attending,
    ),
    "gradrollout": Method(
        "Attention rollout with gradients", "Attention's weights as far as they speak for the class, handed down.",
        partial(attention_rollout, gradients=True), check=_check_attending,
    ),
    "ig": Method(
        "Integrated gradients",
        "What each pixel adds to the score on the way from black to this picture.",
        integrated_gradients, many_passes=True,
    ),
    "smoothgrad": Method(
        "SmoothGrad", "Gradient in the pixels: red where a brighter pixel would raise the score.",
        smooth_grad, many_passes=True,
    ),
    "occlusion": Method(
        "Occlusion", "How much the score falls where a grey square hides the picture.",
        occlusion, of_files=True, many_passes=True,
    ),
    "rise": Method(
        "RISE", "How the score depends on what random masks leave to be seen.",
        rise, of_files=True, many_passes=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Map:
    """A map of one picture.

    Attributes:
        method: key of `METHODS`.
        target: index of the class that is explained, or a detection; None for a method that asks none.
        layer: path of the feature map that was asked for; None for a method of pixels, and where each detection is
            explained on the map on which it stands.
        values: (rows, columns), signed.
        score: score of the class, None without one: a logit; what the file gives, of a LiteRT file; of a detection
            its score.
        seconds: time that the map took.
        stands_on: path of the map on which a detection stands, where it is explained on this.
    """

    method: str
    target: int | Box | None
    layer: str | None
    values: np.ndarray
    score: float | None
    seconds: float
    stands_on: str | None = None


def check_methods(
    model: keras.Model | LiteRTModel, methods: Sequence[str], layers: Sequence[str], name: str
) -> tuple[list[str], list[str]]:
    """Methods and layers that can be computed, each once, with the defaults of `model` where none are given.

    Args:
        model: what is explained.
        methods: keys of `METHODS`; none: Grad-CAM, of detectors HiResCAM, of LiteRT files occlusion.
        layers: feature maps, as in `kzoo.grad_cam`; none: `kzoo.explain.explained_layer`.
        name: what the model is called, for errors.

    Raises:
        InvalidValueError: no such method, one that the model cannot have, or layers where no method takes them.
        UnknownNameError: no such layer.
    """
    is_file = isinstance(model, LiteRTModel)
    chosen = list(dict.fromkeys(methods)) or [_usual(model)]
    for method in chosen:
        check_choice("method", method, METHODS)
        if is_file and not METHODS[method].of_files:
            able = " and ".join(key for key, each in METHODS.items() if each.of_files)
            raise InvalidValueError(
                f"{name} is a LiteRT file, which has no gradients and no layers to read, and {method} needs them; it "
                f"can have {able}, and its .keras file all"
            )
    takes_layer = any(LAYER in METHODS[method].takes for method in chosen)
    if layers and not takes_layer:
        raise InvalidValueError(f"{' and '.join(chosen)}: no method here takes a layer; leave it out")
    if isinstance(model, LiteRTModel):
        return chosen, []
    replay = Replay(model)  # refuses what cannot be explained at all
    for method in chosen:
        METHODS[method].check(replay)
    if levels := pyramid_levels(replay):
        _check_of_boxes(chosen, layers, [place[0].path for _, place in levels], name)
    if not takes_layer or (levels and not layers):
        return chosen, []
    return chosen, list(dict.fromkeys(replay.place(layer)[0].path for layer in layers)) or [explained_layer(model)]


def _usual(model: keras.Model | LiteRTModel) -> str:
    """The method where nobody says which; means of gradients do not tell one box of a class from another."""
    if isinstance(model, LiteRTModel):
        return "occlusion"
    return "hirescam" if finds_boxes(model) else "gradcam"


def _check_of_boxes(methods: Sequence[str], layers: Sequence[str], levels: Sequence[str], name: str) -> None:
    """Raises `InvalidValueError` for methods that ask for no detection, and so know no map on which it stands."""
    for method in methods:
        if TARGET not in METHODS[method].takes and not (layers and LAYER in METHODS[method].takes):
            able = f"give a layer, such as {levels[0]}" if LAYER in METHODS[method].takes else "take gradrollout"
            raise InvalidValueError(
                f"{method} asks for no box, and {name} finds them on {len(levels)} maps: {able}, or another method"
            )


def maps_of(
    model: keras.Model | LiteRTModel,
    image: np.ndarray,
    targets: Sequence[int] | Sequence[Box],
    methods: Sequence[str] = ("gradcam",),
    layers: Sequence[str] = (),
) -> list[Map]:
    """The maps of one image: of each method, each of its layers, and each target.

    Args:
        model: a Keras model, or a LiteRT file.
        image: (height, width, channels), as the model takes it.
        targets: indices of classes, or detections.
        methods: keys of `METHODS`.
        layers: feature maps, for the methods that take one; none: `kzoo.explain.explained_layer`, of each detection
            its own.

    Raises:
        InvalidValueError: what `check_methods` and the methods raise, or a map with numbers that are not finite.

    Example:
        >>> [each.score for each in maps_of(model, image, [3, 5], ["gradcam", "rise"])]
        [9.2, 4.1, 9.2, 4.1]
    """
    methods, layers = check_methods(model, methods, layers, "the model")
    batch = np.asarray(image)[None]
    scores = {target: _score(model, batch, target) for target in targets}
    found = []
    for name in methods:
        method = METHODS[name]
        for layer in layers if layers and LAYER in method.takes else [None]:
            for target in targets if TARGET in method.takes else [None]:
                given = {TARGET: target, LAYER: layer}
                start = time.perf_counter()
                (values,) = method.maps(model, batch, **{key: given[key] for key in method.takes})
                seconds = time.perf_counter() - start
                if not np.isfinite(values).all():
                    raise InvalidValueError(
                        f"{method.title} gives numbers that are not finite; the weights of the model may be damaged"
                    )
                own = explained_layer(model, target) if LAYER in method.takes and layer is None else None
                score = None if target is None else scores[target]
                found.append(Map(name, target, layer, values, score, seconds, own))
    return found


def _score(model: keras.Model | LiteRTModel, batch: np.ndarray, target: int | Box) -> float:
    if isinstance(target, Box):
        return float(box_outputs(model)(batch)[SCORES][0, target.place, target.class_index])
    ((image, scored),) = scorers(model, batch, target)
    return float(scored(image[None])[0])
