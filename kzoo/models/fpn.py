"""Feature pyramids: Lin et al. 2016 (arXiv:1612.03144) on any backbone, with the semantic head of Panoptic FPN.

`fpn` is built on `backbone=`, by default `resnet50`. Its maps are the taps `fpn_p2`, `fpn_p3`, ...:
`kzoo.pyramid(model, ["fpn_p3", "fpn_p4"])` gives them, `include_top=False` a dict of all. `design=` chooses between
the network and what the paper compares it with:

| design | figure | maps |
| --- | --- | --- |
| `feature_pyramid` | 1 (d) | top-down: each level is added to the coarser one, doubled |
| `image_pyramid` | 1 (a) | the backbone's last map for the image at several sizes |
| `single_map` | 1 (b) | the backbone's last map alone |
| `pyramidal_hierarchy` | 1 (c) | the backbone's maps as they are, without a way down |
| `finest_level` | 2, top | top-down, predicting on the finest level alone |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers import MatchSize, Subsample, Upsample
from kzoo.layers.checks import check_positive, is_integer
from kzoo.models import resnet  # noqa: F401  registers the default backbone
from kzoo.models.backbone import BackboneConfig, backbone_maps, choose_levels
from kzoo.models.blocks import INITIALIZER, batch_norm, conv, head_activation, relu
from kzoo.registry import SEGMENTATION, Entry, register

DESIGNS = ("feature_pyramid", "image_pyramid", "single_map", "pyramidal_hierarchy", "finest_level")
TOP_DOWN = ("feature_pyramid", "finest_level")


@dataclass(frozen=True, kw_only=True)
class FPNConfig(BackboneConfig):
    """What distinguishes one feature pyramid from another.

    Attributes:
        backbone: a classification network of `kzoo.list_models()`.
        design: see the table above. An image pyramid enlarges the image by two for every level above the coarsest, as
            the backbone's last map has the coarsest level's stride; that costs 4, 16, ... times the multiply-adds.
        channels: of every map of the pyramid.
        extra_levels: how many coarser maps follow the last level.
        extra: how they are made: `"pool"`: every second pixel of the level before (the paper's p6); `"stride"`: 3×3
            convolutions with stride 2, the first one of the backbone's last map, with ReLU between them (RetinaNet,
            arXiv:1708.02002, section 4); `"stride_fpn"`: the same, the first one of the pyramid's last map.
        head_width: channels of the semantic head's convolutions.
    """

    backbone: str = "resnet50"
    design: str = "feature_pyramid"
    channels: int = 256
    extra_levels: int = 0
    extra: str = "pool"
    head_width: int = 128

    def __post_init__(self):
        super().__post_init__()
        if self.backbone is None:
            raise InvalidValueError(
                "backbone=None is not accepted; a feature pyramid stands on one, such as 'resnet50'"
            )
        check_choice("design", self.design, DESIGNS)
        check_choice("extra", self.extra, ("pool", "stride", "stride_fpn"))
        check_positive("channels", self.channels)
        check_positive("head_width", self.head_width)
        if not is_integer(self.extra_levels, 0):
            raise InvalidValueError(f"extra_levels={self.extra_levels!r} must be an integer, 0 or more")
        if self.extra_levels and self.design == "finest_level":
            raise InvalidValueError(
                f"extra_levels={self.extra_levels} are coarser maps, and design='finest_level' predicts on the finest"
            )


def features(x, config: FPNConfig) -> dict:
    """Runs backbone and pyramid on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: which pyramid.

    Returns:
        The image as `image`, the backbone's taps, finest first, and the pyramid as `fpn`: a dict from `fpn_p2`, ... to
        maps of `config.channels` channels.

    Raises:
        UnknownNameError: the backbone lacks one of `config.levels`.
    """
    taps = backbone_maps(x, config)
    maps = {"image": x} | {f"p{level}": each for level, each in taps.items()}
    return maps | {"fpn": {f"fpn_p{level}": each for level, each in pyramid_maps(x, taps, config).items()}}


def pyramid_maps(x, taps: Mapping[int, Any], config: FPNConfig) -> dict[int, Any]:
    """The pyramid, level -> map, finest first."""
    chosen = choose_levels(taps, config, usual=range(2, 6))
    coarsest = list(chosen)[-1]
    if config.design == "image_pyramid":
        chosen = image_pyramid(x, chosen, config)
    elif config.design == "single_map":
        chosen = {coarsest: chosen[coarsest]}
    maps = {level: lateral(each, level, config) for level, each in chosen.items()}
    if config.design in TOP_DOWN:
        maps = top_down(maps)
    if config.design == "finest_level":
        maps = dict([next(iter(maps.items()))])
    maps = {level: _conv(each, config.channels, f"fpn_p{level}_smooth") for level, each in maps.items()}
    maps = extend(maps, chosen[coarsest], config)
    return {level: keras.layers.Identity(name=f"fpn_p{level}")(each) for level, each in maps.items()}


def _conv(x, filters: int, name: str, strides: int = 1):
    """A 3×3 convolution with a bias."""
    return conv(x, filters, 3, strides, use_bias=True, name=name)


def lateral(x, level: int, config: FPNConfig):
    """The 1×1 convolution that gives every level the same channels."""
    return conv(x, config.channels, 1, use_bias=True, name=f"fpn_p{level}_lateral")


def top_down(maps: Mapping[int, Any]) -> dict[int, Any]:
    """Adds to each level the coarser one, enlarged by repetition (section 3)."""
    merged, coarser = {}, None
    for level in sorted(maps, reverse=True):
        x = maps[level]
        if coarser is not None:
            factor = 2 ** (coarser - level)
            up = Upsample(factor, name=f"fpn_p{level}_up")(merged[coarser])
            up = MatchSize(factor - 1, name=f"fpn_p{level}_fit")([up, x])
            x = keras.layers.Add(name=f"fpn_p{level}_add")([x, up])
        merged[level], coarser = x, level
    return dict(sorted(merged.items()))


def image_pyramid(x, chosen: Mapping[int, Any], config: FPNConfig) -> dict[int, Any]:
    """The backbone's last map of the image at one size for each level, all with the same weights."""
    coarsest = list(chosen)[-1]
    trunk = keras.Model(x, chosen[coarsest])
    maps = {}
    for level in chosen:
        if level == coarsest:
            maps[level] = chosen[coarsest]
            continue
        image = Upsample(2 ** (coarsest - level), "bilinear", name=f"fpn_p{level}_image")(x)
        maps[level] = call_again(trunk, image, f"p{coarsest}")
    return maps


def call_again(trunk: keras.Model, x, name: str):
    """What the layer `name` gives if the layers of `trunk` are called on `x` too: shared, and not nested."""
    tensors = {}

    def call(layer, *args, **kwargs):
        tensors[layer.name] = layer(*args, **kwargs)
        return tensors[layer.name]

    keras.models.clone_model(trunk, input_tensors=x, clone_function=lambda layer: layer, call_function=call)
    return tensors[name]


def extend(maps: dict[int, Any], last, config: FPNConfig) -> dict[int, Any]:
    """Adds the coarser levels; `last` is the backbone's last map."""
    level = list(maps)[-1]
    for number in range(config.extra_levels):
        name = f"fpn_p{level + number + 1}"
        if config.extra == "pool":
            x = Subsample(2, name=f"{name}_pool")(maps[level + number])
        elif number == 0:
            source = last if config.extra == "stride" else maps[level]
            x = _conv(source, config.channels, f"{name}_conv", strides=2)
        else:
            x = _conv(relu(maps[level + number], name=f"{name}_relu"), config.channels, f"{name}_conv", strides=2)
        maps[level + number + 1] = x
    return maps


def head(maps: dict, num_classes: int, activation, config: FPNConfig):
    """The semantic head of Panoptic FPN (arXiv:1901.02446, Figure 3), with batch normalisation, which folds away.

    Each level goes through a 3×3 convolution, batch normalisation, ReLU and an enlargement by two for each level
    above the finest; the sum of all through a 1×1 convolution to the classes, enlarged to the image.
    """
    levels = {int(name.removeprefix("fpn_p")): each for name, each in maps["fpn"].items()}
    finest = next(iter(levels))
    branches = []
    for level, x in levels.items():
        fitted = level  # the level at which x last had the size of another map
        for number, target in enumerate(range(max(level - 1, finest), finest - 1, -1), start=1):
            name = f"head_p{level}"
            x = conv(x, config.head_width, 3, name=f"{name}_conv{number}")
            x = batch_norm(x, name=f"{name}_bn{number}")
            x = relu(x, name=f"{name}_relu{number}")
            if level > finest:
                x = Upsample(2, "bilinear", name=f"{name}_up{number}")(x)
                if target in levels:
                    x = MatchSize(2 ** (fitted - target) - 1, name=f"{name}_fit{number}")([x, levels[target]])
                    fitted = target
        branches.append(x)
    x = keras.layers.Add(name="head_sum")(branches) if len(branches) > 1 else branches[0]
    x = keras.layers.Conv2D(num_classes, 1, kernel_initializer=INITIALIZER, name="head_conv")(x)
    x = Upsample(2**finest, "bilinear", name="head_up")(x)
    x = MatchSize(2**finest - 1, name="head_fit")([x, maps["image"]])
    return head_activation(x, activation)


VARIANTS: dict[str, FPNConfig] = {"fpn": FPNConfig()}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="fpn",
            task=SEGMENTATION,
            config=_config,
            features=features,
            head=head,
            input_shape=(256, 256, 3),
            num_classes=21,
            preprocessing="torch",
            papers=("1612.03144", "1901.02446"),
            narrow=dict(
                backbone="resnet18", backbone_options=dict(widths=(8, 12, 16, 24)), channels=16, head_width=12
            ),
        )
    )
