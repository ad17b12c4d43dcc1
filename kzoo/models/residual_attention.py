"""Residual attention networks: Wang et al. 2017 (arXiv:1704.06904), Table 2.

| names | attention modules per stage |
| --- | --- |
| `residual_attention56` | 1, 1, 1 |
| `residual_attention92` | 1, 2, 3 |

The number counts the layers of the trunk: 12 for each module, and 20.

Where the paper is silent, the authors' Caffe definitions decide: the stem has batch normalisation and ReLU, no
convolution has a bias, a projection reads the activated input, a mask begins behind its module's first residual
units, pools until 7×7 is left of 224×224, and has a residual unit in every skip connection. Two things are not
theirs: masks end in a sigmoid, as the paper says in equation 4 (in the definitions it is tanh), and upsampling takes
pixel centres at half integers (theirs aligns the corners). They published no weights.

The mask is the layer `kzoo.layers.ResidualAttention`; everything around it is a flat graph. The layer folds its own
batch normalisations exactly, those that read a sum or a pooling too, which a graph cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers import ResidualAttention
from kzoo.layers.checks import check_flag, is_integer
from kzoo.layers.residual_attention import GATES
from kzoo.models.blocks import batch_norm, classifier_head, conv, relu
from kzoo.models.slots import attend, check_attention, slot_of
from kzoo.registry import Entry, register
from kzoo.taps import mark

EXPANSION = 4  # a unit's output over its inner width
STAGES = 3  # those with attention; one without follows


@dataclass(frozen=True, kw_only=True)
class ResidualAttentionConfig:
    """What distinguishes one residual attention network from another.

    Attributes:
        modules: attention modules in each of the three stages, 0 or more.
        widths: inner width of the residual units in each stage, and behind the last one; the first is the stem's too.
        mask_depths: poolings inside each stage's masks.
        outer_units: residual units before the split of a module into trunk and mask, and behind it (p).
        trunk_units: residual units of a module's trunk branch (t).
        mask_units: residual units between two poolings of a mask (r).
        last_units: residual units behind the last stage.
        gate: what a mask ends in, `"mixed"`, `"channel"` or `"spatial"` (section 3.2); see `ResidualAttention`.
        residual_learning: `(1 + M) * T` (equation 3) if true, else the naive `M * T` (equation 1).
        attention: name in `kzoo.layers.ATTENTION` whose slot is `"branch"`, a callable `(x, name) -> x`, or
            None. It is at the end of every residual branch outside of the masks.
    """

    modules: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    mask_depths: tuple[int, ...] = (3, 2, 1)
    outer_units: int = 1
    trunk_units: int = 2
    mask_units: int = 1
    last_units: int = 3
    gate: str = "mixed"
    residual_learning: bool = True
    attention: str | Callable | None = None

    def __post_init__(self):
        for field, length, least in (("modules", STAGES, 0), ("widths", STAGES + 1, 1), ("mask_depths", STAGES, 1)):
            numbers = getattr(self, field)
            right = isinstance(numbers, (tuple, list)) and len(numbers) == length
            if not right or not all(is_integer(number, least) for number in numbers):
                raise InvalidValueError(f"{field}={numbers!r} must be a tuple of {length} integers, {least} or more")
        for field, least in (("outer_units", 0), ("trunk_units", 0), ("mask_units", 1), ("last_units", 1)):
            number = getattr(self, field)
            if not is_integer(number, least):
                raise InvalidValueError(f"{field}={number!r} must be an integer, {least} or more")
        check_choice("gate", self.gate, GATES)
        check_flag("residual_learning", self.residual_learning)
        check_attention(self.attention)
        if slot_of(self.attention) not in (None, "branch"):
            raise InvalidValueError(
                f"attention={self.attention!r} has the slot {slot_of(self.attention)!r}; residual attention networks "
                "have the slot 'branch' alone"
            )

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 32

    @property
    def smallest_input(self) -> int:
        """The least height and width: the map before the last pooling of a mask has two pixels and more."""
        stages = zip(self.modules, self.mask_depths, strict=True)
        sides = [2 ** (stage + 2) * 2 ** (depth - 1) + 1 for stage, (count, depth) in enumerate(stages) if count]
        return max([self.total_stride, *sides])


def features(x, config: ResidualAttentionConfig) -> dict:
    """Runs the trunk on normalised images.

    Args:
        x: (batch, height, width, channels), height and width known.
        config: which network.

    Returns:
        The taps `p1` ... `p5`, finest first.

    Raises:
        InvalidValueError: images of unknown size.
    """
    if None in x.shape[1:3]:
        raise InvalidValueError(
            f"residual attention networks need images of known height and width, got shape {tuple(x.shape)}: their "
            "masks are resized to the maps they weigh; build with an input_shape"
        )
    taps: dict[str, Any] = {}

    def tap(x):
        level = len(taps) + 1
        taps[f"p{level}"] = mark(x, level)
        return taps[f"p{level}"]

    x = conv(x, config.widths[0], 7, 2, name="stem_conv")
    x = batch_norm(x, name="stem_bn")
    x = tap(relu(x, name="stem_relu"))  # (B, 112, 112, 64)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)  # Caffe's on even sides
    for stage, (count, width, depth) in enumerate(
        zip(config.modules, config.widths[:STAGES], config.mask_depths, strict=True), start=1
    ):
        x = residual_unit(x, width, 1 if stage == 1 else 2, config, f"stage{stage}_unit1")
        for index in range(1, count + 1):
            x = attention_module(x, width, depth, config, f"stage{stage}_module{index}")
        x = tap(x)  # (B, 56, 56, 256), (B, 28, 28, 512), (B, 14, 14, 1024)
    for index in range(1, config.last_units + 1):
        strides = 2 if index == 1 else 1
        x = residual_unit(x, config.widths[STAGES], strides, config, f"stage{STAGES + 1}_unit{index}")
    x = batch_norm(x, name="final_bn")
    tap(relu(x, name="final_relu"))  # (B, 7, 7, 2048)
    return taps


def residual_unit(x, width: int, strides: int, config: ResidualAttentionConfig, name: str):
    """`x + branch(x)` with bn-relu-conv three times: 1×1, 3×3 with the stride, 1×1 to 4 × the width.

    Where the shape changes, a 1×1 convolution of the activated input takes the place of x.
    """
    y = x
    for index, (filters, size, step) in enumerate(
        ((width, 1, 1), (width, 3, strides), (width * EXPANSION, 1, 1)), start=1
    ):
        y = relu(batch_norm(y, name=f"{name}_bn{index}"), name=f"{name}_relu{index}")
        if index == 1 and (strides > 1 or x.shape[-1] != width * EXPANSION):
            x = conv(y, width * EXPANSION, 1, strides, name=f"{name}_shortcut_conv")
        y = conv(y, filters, size, step, name=f"{name}_conv{index}")
    if config.attention is not None:
        y = attend(y, config.attention, f"{name}_attention")
    return keras.layers.Add(name=f"{name}_add")([x, y])


def attention_module(x, width: int, depth: int, config: ResidualAttentionConfig, name: str):
    """Residual units, trunk and mask side by side, residual units (arXiv:1704.06904, Figure 2).

    Args:
        x: (batch, height, width, channels) with 4 × `width` channels.
        width: inner width of the residual units.
        depth: poolings inside the mask.
        config: which network.
        name: of the module; its mask is the layer `{name}_mask`.

    Returns:
        A map of the shape of x.
    """

    def units(x, count: int, part: str):
        for index in range(1, count + 1):
            x = residual_unit(x, width, 1, config, f"{name}_{part}{index}")
        return x

    x = units(x, config.outer_units, "before")
    trunk = units(x, config.trunk_units, "trunk")
    mask = ResidualAttention(depth, config.mask_units, config.gate, config.residual_learning, name=f"{name}_mask")
    return units(mask(x, trunk), config.outer_units, "after")


VARIANTS: dict[str, ResidualAttentionConfig] = {
    "residual_attention56": ResidualAttentionConfig(modules=(1, 1, 1)),
    "residual_attention92": ResidualAttentionConfig(modules=(1, 2, 3)),
}

_NARROW = {"residual_attention56": (1, 1, 1), "residual_attention92": (0, 0, 2)}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="residual_attention",
            config=_config,
            features=features,
            head=classifier_head,
            input_shape=(224, 224, 3),
            num_classes=1000,
            preprocessing="torch",
            papers=("1704.06904",),
            narrow=dict(modules=_NARROW[_name], widths=(4, 4, 6, 8), trunk_units=1, last_units=1),
        )
    )
