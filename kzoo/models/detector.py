"""What `fcos` and `retinanet` share: a pyramid on any backbone, heads that all its levels share, boxes and scores.

The image is padded with zeros to multiples of 32 at the right and at the bottom behind its normalisation, as
torchvision does; boxes stay relative to the image without padding.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.flatten import all_layers
from kzoo.layers import CenternessScores, DecodeBoxes
from kzoo.layers.checks import check_positive, is_integer
from kzoo.models.backbone import BackboneConfig, backbone_maps, choose_levels
from kzoo.models.blocks import batch_norm, precise_dtype
from kzoo.models.fpn import FPNConfig, pyramid_maps
from kzoo.places import ANCHOR_SIZE, PADDED_TO, RATIOS, SCALES, Places

# Lin et al. 2017 (arXiv:1708.02002, section 4.1); torchvision and detectron2 have both for FCOS too
KERNEL_DEVIATION = 0.01  # of the heads' normal kernels
PRIOR = 0.01  # probability of every class at every place before training: a bias of -4.595
RAW = ("logits", "offsets", "centerness")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(BackboneConfig):
    """What detectors on a pyramid have in common.

    Attributes:
        levels: taps of the backbone; None for p3, p4 and p5, or all if the backbone has one or none of them.
        channels: of every map of the pyramid and of the heads.
        extra_levels: how many coarser maps follow, by 3×3 convolutions with stride 2 and ReLU between them: two for
            P6 and P7, none for P3 to P5.
        extra: what the first of them reads: `"stride"`: the backbone's last map (C5); `"stride_fpn"`: the pyramid's
            (P5).
        head_depth: 3×3 convolutions of each head before the last one.
        head_norm: behind these: `None`, `"group"`: group normalisation, or `"batch"`: batch normalisation with
            weights of its own for each level, as levels have statistics of their own.
        head_groups: groups of the group normalisation, a divisor of `channels`.
    """

    kind: ClassVar[str]

    backbone: str = "resnet50"
    channels: int = 256
    extra_levels: int = 2
    extra: str = "stride_fpn"
    head_depth: int = 4
    head_norm: str | None = None
    head_groups: int = 32

    def __post_init__(self):
        super().__post_init__()
        if self.backbone is None:
            raise InvalidValueError("backbone=None is not accepted; a detector stands on one, such as 'resnet50'")
        check_choice("extra", self.extra, ("stride", "stride_fpn"))
        check_choice("head_norm", self.head_norm, (None, "group", "batch"))
        for name in ("channels", "head_groups"):
            check_positive(name, getattr(self, name))
        for name in ("extra_levels", "head_depth"):
            if not is_integer(getattr(self, name), 0):
                raise InvalidValueError(f"{name}={getattr(self, name)!r} must be an integer, 0 or more")
        if self.head_norm == "group" and self.channels % self.head_groups:
            raise InvalidValueError(
                f"head_groups={self.head_groups} do not divide channels={self.channels}; use a divisor"
            )

    @property
    def head_bias(self) -> bool:
        """Whether the heads' convolutions have biases; in front of batch normalisation training cannot feel them."""
        return self.head_norm != "batch"

    @property
    def anchors(self) -> dict[str, Any]:
        """Anchors at each position, as `Places.of` takes them; of points none."""
        return {}

    @property
    def anchors_at_position(self) -> int:
        """How many there are."""
        return 1


@dataclass(frozen=True, kw_only=True)
class FCOSConfig(DetectorConfig):
    """FCOS: Tian et al. 2019 (arXiv:1904.01355), as torchvision builds it.

    Distances go through ReLU and count in strides, and group normalisation has 32 groups (arXiv:2006.09214).
    """

    kind = "fcos"

    head_norm: str | None = "group"


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig(DetectorConfig):
    """RetinaNet: Lin et al. 2017 (arXiv:1708.02002).

    Attributes:
        anchor_size: side of an anchor in strides, before scales: 32 pixels at stride 8.
        scales: anchors of each octave.
        ratios: height over width of the anchors.
    """

    kind = "retinanet"

    anchor_size: float = ANCHOR_SIZE
    scales: tuple[float, ...] = SCALES
    ratios: tuple[float, ...] = RATIOS

    def __post_init__(self):
        super().__post_init__()
        Places.of((PADDED_TO, PADDED_TO), self.kind, (3,), **self.anchors)  # which checks the anchors

    @property
    def head_bias(self) -> bool:
        """Torchvision's convolutions in front of a normalisation have none."""
        return self.head_norm is None

    @property
    def anchors(self) -> dict[str, Any]:
        return dict(anchor_size=self.anchor_size, scales=self.scales, ratios=self.ratios)

    @property
    def anchors_at_position(self) -> int:
        return len(self.scales) * len(self.ratios)


def features(x, config: DetectorConfig) -> dict:
    """Runs backbone and pyramid on normalised images of known size.

    Args:
        x: (batch, height, width, channels), height and width known.
        config: which detector.

    Returns:
        The image as `image`, the backbone's taps, finest first, and the pyramid as `fpn`: a dict from `fpn_p3`, ... to
        maps of `config.channels` channels.

    Raises:
        InvalidValueError: images of unknown size.
        UnknownNameError: the backbone lacks one of `config.levels`.
    """
    places = Places.of(x.shape[1:3], config.kind, (5,))  # which refuses unknown sizes
    height, width = places.padded
    bottom, right = height - x.shape[1], width - x.shape[2]
    padded = keras.layers.ZeroPadding2D(((0, bottom), (0, right)), name="image_pad")(x) if bottom or right else x
    taps = backbone_maps(padded, config)
    chosen = choose_levels(taps, config, usual=range(3, 6))
    fitted = {level: _fit(each, level, (height, width)) for level, each in chosen.items()}
    neck = FPNConfig(
        backbone=config.backbone,
        levels=tuple(f"p{level}" for level in fitted),
        channels=config.channels,
        extra_levels=config.extra_levels,
        extra=config.extra,
    )
    maps = {"image": x} | {f"p{level}": each for level, each in taps.items()}
    return maps | {"fpn": {f"fpn_p{level}": each for level, each in pyramid_maps(padded, fitted, neck).items()}}


def _fit(x, level: int, size: tuple[int, int]):
    """A tap at the size of its level's grid: zeros around a map that lost pixels to convolutions without padding."""
    missing = [side // 2**level - have for side, have in zip(size, x.shape[1:3], strict=True)]
    if not any(missing):
        return x
    around = tuple((each // 2, each - each // 2) for each in missing)
    return keras.layers.ZeroPadding2D(around, name=f"fpn_p{level}_around")(x)


def head(maps: dict, num_classes: int, activation, config: DetectorConfig) -> dict:
    """Boxes and scores of all places, or with `activation=None` the raw tensors that training takes.

    The convolutions of a head are the same on all levels (arXiv:1708.02002, section 4); boxes and centerness share a
    tower (arXiv:2006.09214).

    Returns:
        `boxes` (batch, places, 4), relative to the image, and `scores` (batch, places, num_classes); or `logits`,
        `offsets` and, of FCOS, `centerness`, see `raw_outputs`.

    Raises:
        InvalidValueError: another activation than that of the scores, which are sigmoids.
    """
    check_choice("classifier_activation", activation, ("softmax", "sigmoid", None))  # the first is everybody's default
    pyramid = {int(name.removeprefix("fpn_p")): each for name, each in maps["fpn"].items()}
    count = config.anchors_at_position
    class_tower, box_tower = (_tower(f"head_{name}", config) for name in ("class", "box"))
    to_logits = _conv(count * num_classes, "head_class_logits", bias=-math.log((1 - PRIOR) / PRIOR))
    to_offsets = _conv(4 * count, "head_box_offsets")
    outputs: dict[str, dict[int, Any]] = {"logits": {}, "offsets": {}}
    to_centerness = None
    if config.kind == "fcos":
        to_centerness, outputs["centerness"] = _conv(1, "head_box_centerness"), {}
        rectify = keras.layers.ReLU(name="head_box_relu")
    for level, x in pyramid.items():
        classes, boxes = class_tower(x, level), box_tower(x, level)
        outputs["logits"][level] = to_logits(classes)
        outputs["offsets"][level] = to_offsets(boxes) if to_centerness is None else rectify(to_offsets(boxes))
        if to_centerness is not None:
            outputs["centerness"][level] = to_centerness(boxes)
    widths = {"logits": num_classes, "offsets": 4, "centerness": 1}
    joined = {name: _join(levels, widths[name], f"head_{name}") for name, levels in outputs.items()}
    if activation is None:
        return {name: _flat(each, name) for name, each in joined.items()}
    return _predictions(joined, maps["image"].shape[1:3], tuple(pyramid), config)


def _predictions(joined: Mapping[str, Any], image: tuple[int, int], levels: tuple[int, ...], config) -> dict:
    """Boxes and scores from the raw tensors, computed in float32 at least."""
    dtype = precise_dtype()
    decode = DecodeBoxes(image, config.kind, levels, **config.anchors, dtype=dtype, name="head_boxes")
    if "centerness" in joined:
        score = CenternessScores(dtype=dtype, name="head_activation")
        scores = score([joined["logits"], joined["centerness"]])
    else:
        scores = keras.layers.Activation("sigmoid", dtype=dtype, name="head_activation")(joined["logits"])
    return {"boxes": _flat(decode(joined["offsets"]), "boxes", dtype), "scores": _flat(scores, "scores", dtype)}


def raw_outputs(model: keras.Model) -> keras.Model:
    """What a detector's losses take, as a model on the same graph and weights.

    Args:
        model: a detector from `kzoo.build`, or from a file of one.

    Returns:
        A `keras.Model` from the same input to a dict: `logits` (batch, places, classes), `offsets` (batch, places, 4)
        in the coding of `kzoo.layers.DecodeBoxes`, and, of FCOS, `centerness` (batch, places, 1), a logit too. Places
        are in the order of `kzoo.places`.

    Raises:
        InvalidValueError: the model is no detector of the zoo.

    Example:
        >>> model = kzoo.build("fcos", backbone="resnet18", num_classes=3, input_shape=(96, 128, 3))
        >>> raw = raw_outputs(model)
        >>> {name: output.shape for name, output in raw.output.items()}
        {'logits': (None, 255, 3), 'offsets': (None, 255, 4), 'centerness': (None, 255, 1)}
    """
    joined = {
        layer.name.removeprefix("head_"): layer.output
        for layer in model.layers
        if layer.name in {f"head_{name}" for name in RAW}
    }
    if not {"logits", "offsets"} <= joined.keys():
        raise InvalidValueError(f"{model.name} is no detector of the zoo; pass what kzoo.build gives for 'fcos', say")
    outputs = {name: _flat(joined[name], name) for name in RAW if name in joined}
    return keras.Model(model.input, outputs, name=model.name)


def places_of(model: keras.Model) -> Places:
    """The places of a finished detector, in the order of its outputs.

    Raises:
        InvalidValueError: the model decodes no boxes.
    """
    decoder = next((layer for layer in all_layers(model) if isinstance(layer, DecodeBoxes)), None)
    if decoder is None:
        raise InvalidValueError(f"{model.name} decodes no boxes; pass what kzoo.build gives for 'fcos', say")
    return decoder.places


def _tower(name: str, config: DetectorConfig) -> Callable[[Any, int], Any]:
    """Convolutions that all levels share, each with its normalisation and ReLU."""
    numbers = range(1, config.head_depth + 1)
    convs = [_conv(config.channels, f"{name}_conv{number}", use_bias=config.head_bias) for number in numbers]
    relus = [keras.layers.ReLU(name=f"{name}_relu{number}") for number in numbers]
    norms = [
        keras.layers.GroupNormalization(config.head_groups, epsilon=1e-5, name=f"{name}_norm{number}")
        for number in (numbers if config.head_norm == "group" else ())
    ]

    def call(x, level: int):
        for index, (conv, relu) in enumerate(zip(convs, relus, strict=True)):
            x = conv(x)
            if config.head_norm == "group":
                x = norms[index](x)
            elif config.head_norm == "batch":
                x = batch_norm(x, name=f"{name}_p{level}_bn{index + 1}")
            x = relu(x)
        return x

    return call


def _conv(filters: int, name: str, *, use_bias: bool = True, bias: float = 0.0) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomNormal(stddev=KERNEL_DEVIATION),
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
    )


def _join(levels: Mapping[int, Any], width: int, name: str):
    """Maps of all levels as one tensor (batch, 1, places, width)."""
    rows = [keras.layers.Reshape((1, -1, width), name=f"{name}_p{level}")(x) for level, x in levels.items()]
    join = keras.layers.Concatenate(axis=2, name=name) if len(rows) > 1 else keras.layers.Identity(name=name)
    return join(rows if len(rows) > 1 else rows[0])


def _flat(x, name: str, dtype=None):
    """(batch, 1, places, width) as (batch, places, width)."""
    return keras.layers.Reshape(x.shape[2:], dtype=dtype, name=name)(x)
