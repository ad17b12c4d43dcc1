"""What detectors are trained by: losses of classes, boxes and centerness at the places, with torchvision's sums."""

import dataclasses
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import keras
from keras import ops

from kzoo.detection.assignment import IGNORED, match_anchors, matched, sample_centres
from kzoo.detection.coding import centerness, decode_deltas, decode_distances, encode_deltas, encode_distances
from kzoo.detection.overlaps import generalized_overlap
from kzoo.errors import InvalidValueError, check_choice
from kzoo.places import Level, Places

BoxLoss = Literal["l1", "giou"]
Parts = dict[str, Any]  # scalars by name: "classes", "boxes", "centerness"


def focal_loss(targets, logits, alpha: float = 0.25, gamma: float = 2.0):
    """Cross-entropy of each class by itself, in which what is told well already counts little.

    Args:
        targets: 1 where the class is there and 0 where it is not, of the shape of `logits`.
        logits: (...), before the sigmoid.
        alpha: weight of a class that is there; one that is not has `1 - alpha`. Below 0: both have 1.
        gamma: power of the probability that is missing. 0 gives cross-entropy.

    Returns:
        The loss of each, of the shape of `logits`.

    Reference: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """
    right = logits * (2 * targets - 1)  # the logit of what is true
    # with sigmoid(-right) = exp(-softplus(right)) nothing overflows, and the gradient is whole at any logit
    loss = ops.exp(-gamma * ops.softplus(right)) * ops.softplus(-right)
    if alpha < 0:
        return loss
    return loss * (alpha * targets + (1 - alpha) * (1 - targets))


@keras.saving.register_keras_serializable("kzoo")
class FocalLoss(keras.losses.Loss):
    """Sigmoid focal loss of logits, the sum over classes of `focal_loss` for each example or place.

    Args:
        alpha: weight of a class that is there, see `focal_loss`.
        gamma: power of the probability that is missing.

    Call arguments:
        y_true: 0 and 1, (..., classes).
        y_pred: logits (..., classes).

    Example:
        >>> model.compile("sgd", loss=FocalLoss(alpha=0.25, gamma=2.0))
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, name: str = "focal_loss", **options):
        super().__init__(name=name, **options)
        _check_focal(alpha, gamma)
        self.alpha, self.gamma = alpha, gamma

    def call(self, y_true, y_pred):
        return ops.sum(focal_loss(y_true, y_pred, self.alpha, self.gamma), axis=-1)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}


def _check_focal(alpha: float, gamma: float) -> None:
    if not (isinstance(alpha, Real) and isinstance(gamma, Real) and alpha <= 1 and gamma >= 0):
        raise InvalidValueError(
            f"alpha={alpha!r}, gamma={gamma!r}; alpha is at most 1, below 0 for none; gamma from 0"
        )


def _places_of(config: dict[str, Any]) -> Places:
    """The places that `dataclasses.asdict` made this of."""
    levels = []
    for level in config["levels"]:
        grid, spacing = tuple(level["grid"]), tuple(level["spacing"])
        levels.append(Level(level["stride"], grid, spacing, tuple(map(tuple, level["shapes"]))))
    return Places(tuple(config["image"]), tuple(levels))


class _DetectionLoss(keras.losses.Loss):
    """What the losses of both detectors share: they take dicts, compute in float32, and are the sum of their parts."""

    _parts: Callable[[Any, Any, Parts], Parts]  # of boxes in pixels, their classes, and the outputs

    def __init__(self, places: Places | dict, alpha: float, gamma: float, name: str, **options):
        super().__init__(name=name, **{"reduction": None, **options})
        _check_focal(alpha, gamma)
        self.places = _places_of(places) if isinstance(places, dict) else places
        if not isinstance(self.places, Places):
            raise InvalidValueError(f"places={places!r:.80} must be kzoo.places.Places, as Places.of gives them")
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise InvalidValueError(f"sample weights are not accepted: {self.name} counts boxes, not images")
        return self.call(y_true, y_pred)

    def call(self, y_true, y_pred):
        return sum(self.parts(y_true, y_pred).values())

    def parts(self, y_true, y_pred) -> Parts:
        """The sums that the loss is made of, scalars in float32 by name."""
        boxes = ops.cast(y_true["boxes"], "float32") * self.places.scale
        classes = ops.cast(y_true["classes"], "int32")
        if boxes.shape[1] == 0:  # no image has a box, and the largest overlap is one of something
            boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
            classes = ops.pad(classes, ((0, 0), (0, 1)), constant_values=-1)
        outputs = {name: ops.cast(output, "float32") for name, output in y_pred.items()}
        return self._parts(boxes, classes, outputs)

    def _focal(self, classes, matches, found, logits):
        """Focal loss (n, places), summed over classes."""
        labels = ops.where(found, matched(classes, matches), -1)
        targets = ops.one_hot(labels, logits.shape[-1], dtype="float32")  # nothing but zeros below 0
        return ops.sum(focal_loss(targets, logits, self.alpha, self.gamma), axis=-1)

    def get_config(self):
        config = {key: value for key, value in super().get_config().items() if key != "reduction"}
        return {**config, "places": dataclasses.asdict(self.places), "alpha": self.alpha, "gamma": self.gamma}


@keras.saving.register_keras_serializable("kzoo")
class RetinaNetLoss(_DetectionLoss):
    """RetinaNet's loss of raw outputs: focal loss of classes and a loss of the boxes of anchors that have one.

    Of each image both sums are divided by the number of its anchors that have a box, at least 1; the loss is the mean
    over images, as torchvision's is.

    Args:
        places: of the model, whose anchors are assigned by `match_anchors`.
        box_loss: `"l1"`, the distance of the deltas (torchvision's first RetinaNet), or `"giou"`, one minus the
            generalised overlap (its second).
        alpha: of `focal_loss`.
        gamma: of `focal_loss`.
        foreground: of `match_anchors`.
        background: of `match_anchors`.
        low_quality: of `match_anchors`.

    Call arguments:
        y_true: dict of `boxes` (n, most, 4), relative to the image, and `classes` (n, most), below 0 for no box.
        y_pred: dict of `logits` (n, places, classes) and `offsets` (n, places, 4), the deltas.

    Reference: Lin et al. 2017, arXiv:1708.02002, sections 3 and 4.

    Example:
        >>> loss = RetinaNetLoss(places, box_loss="giou")
        >>> loss.parts(truth, raw(images))  # {"classes": ..., "boxes": ...}
    """

    def __init__(
        self,
        places: Places | dict,
        box_loss: BoxLoss = "l1",
        alpha: float = 0.25,
        gamma: float = 2.0,
        foreground: float = 0.5,
        background: float = 0.4,
        low_quality: bool = True,
        name: str = "retinanet_loss",
        **options,
    ):
        super().__init__(places, alpha, gamma, name, **options)
        check_choice("box_loss", box_loss, ("l1", "giou"))
        numbers = isinstance(foreground, Real) and isinstance(background, Real)
        if not (numbers and 0 <= background <= foreground <= 1):
            raise InvalidValueError(
                f"foreground={foreground!r} and background={background!r} must be overlaps from 0 to 1, of which the "
                "second is not larger"
            )
        self.box_loss = box_loss
        self.matching = dict(foreground=foreground, background=background, low_quality=low_quality)

    def _parts(self, boxes, classes, outputs) -> Parts:
        anchors = ops.convert_to_tensor(self.places.anchors)
        matches = match_anchors(boxes, classes, anchors, **self.matching)
        found = matches >= 0
        counts = ops.maximum(ops.sum(ops.cast(found, "float32"), axis=1), 1)
        focal = self._focal(classes, matches, found, outputs["logits"])
        # an anchor without a box has itself for one, whose logarithms are finite; it counts for nothing
        targets = ops.where(found[..., None], matched(boxes, matches), anchors)
        if self.box_loss == "l1":
            apart = ops.sum(ops.abs(outputs["offsets"] - encode_deltas(targets, anchors)), axis=-1)
        else:
            apart = 1 - generalized_overlap(decode_deltas(outputs["offsets"], anchors), targets)
        terms = {"classes": ops.where(matches == IGNORED, 0, focal), "boxes": ops.where(found, apart, 0)}
        return {name: ops.mean(ops.sum(term, axis=1) / counts) for name, term in terms.items()}

    def get_config(self):
        return {**super().get_config(), "box_loss": self.box_loss, **self.matching}


@keras.saving.register_keras_serializable("kzoo")
class FCOSLoss(_DetectionLoss):
    """FCOS' loss of raw outputs: focal loss of classes, generalised overlap of boxes, cross-entropy of centerness.

    All three sums over the batch are divided by the number of its points that have a box, at least 1, as
    torchvision's are.

    Args:
        places: of the model, whose centres are assigned by `sample_centres`.
        alpha: of `focal_loss`.
        gamma: of `focal_loss`.
        radius: of `sample_centres`.

    Call arguments:
        y_true: dict of `boxes` (n, most, 4), relative to the image, and `classes` (n, most), below 0 for no box.
        y_pred: dict of `logits` (n, places, classes), `offsets` (n, places, 4), the distances in strides, from 0 on,
            and `centerness` (n, places, 1), before the sigmoid.

    Reference: Tian et al. 2019, arXiv:1904.01355, equation 2; the loss of boxes is GIoU as in arXiv:2006.09214.

    Example:
        >>> FCOSLoss(places).parts(truth, raw(images))  # {"classes": ..., "boxes": ..., "centerness": ...}
    """

    def __init__(
        self,
        places: Places | dict,
        alpha: float = 0.25,
        gamma: float = 2.0,
        radius: float = 1.5,
        name: str = "fcos_loss",
        **options,
    ):
        super().__init__(places, alpha, gamma, name, **options)
        self.radius = radius

    def _parts(self, boxes, classes, outputs) -> Parts:
        points, strides = (ops.convert_to_tensor(array) for array in (self.places.centres, self.places.strides))
        matches = sample_centres(boxes, classes, points, strides, self.places.level_of, self.radius)
        found = matches >= 0
        count = ops.maximum(ops.sum(ops.cast(found, "float32")), 1)
        targets = matched(boxes, matches)
        predicted = decode_distances(outputs["offsets"], points, strides)
        middle = centerness(encode_distances(targets, points, strides))
        logits = outputs["centerness"][..., 0]
        terms = {
            "boxes": 1 - generalized_overlap(predicted, targets),
            "centerness": ops.softplus(logits) - logits * middle,
        }
        sums = {name: ops.sum(ops.where(found, term, 0)) for name, term in terms.items()}
        sums = {"classes": ops.sum(self._focal(classes, matches, found, outputs["logits"])), **sums}
        return {name: total / count for name, total in sums.items()}

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}


LOSSES: dict[str, type[FCOSLoss] | type[RetinaNetLoss]] = {
    "fcos": FCOSLoss,
    "retinanet": RetinaNetLoss,
}  # by kind of detector
