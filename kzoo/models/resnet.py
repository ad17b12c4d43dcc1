"""Residual networks: He et al. 2015 (arXiv:1512.03385) and their pre-activation form (arXiv:1603.05027).

| names | layout |
| --- | --- |
| `resnet18/34/50/101/152` | Table 1 of the paper with the bottleneck's stride on its 3×3 convolution |
| `resnet50/101/152_v1` | the stride on the first 1×1, biases in the convolutions: keras.applications' ResNet |
| `resnet50/101/152_v2` | pre-activation, the stride in a stage's last block: keras.applications' ResNetV2 |
| `cifar_resnet20/32/44/56/110` | section 4.2, for 32×32 images; `shortcut="projection"` gives option B |
| `plain18/34`, `cifar_plain20/56` | the same without shortcuts, which the paper compares with |
| `resnet50/101_nl`, `_nl5` | one non-local block, or five in stages 2 and 3 (arXiv:1711.07971, Table 2) |
| `resnet26/38/50_sasa` | every 3×3 convolution is stand-alone self-attention (arXiv:1906.05909, Table 1) |
| `resnet26/38/50_sasa_full` | and the stem is attention too |

All but the last three rows also end in `_se` and `_cbam`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers import ATTENTION, AttentionStem, Subsample
from kzoo.layers.checks import check_flag, check_number, is_integer
from kzoo.models.blocks import INITIALIZER, batch_norm, classifier_head, conv, relu
from kzoo.models.slots import attend, check_attention, papers_of, replace_conv, slot_of, stage_positions
from kzoo.registry import Entry, register
from kzoo.taps import mark

EXPANSION = 4  # a bottleneck's output over its inner width


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """What distinguishes one ResNet from another.

    Attributes:
        depths: residual blocks per stage.
        widths: inner width per stage.
        block: `"basic"` (two 3×3) or `"bottleneck"` (1×1, 3×3, 1×1 to 4 × the width).
        stem: `"imagenet"` (7×7 with stride 2 and a 3×3 max-pool), `"attention"` (an `AttentionStem` of stride 4)
            or `"cifar"` (3×3).
        shortcut: `"projection"` (option B), `"padding"` (option A) or `"none"` (a plain network).
        preactivation: normalisation and ReLU before each convolution; bottlenecks only.
        stride_conv: which convolution of a bottleneck has the stride, 1 or 2.
        stride_block: which block of a stage has the stride, `"first"` (of the stages after the first) or
            `"last"` (of the stages before the last).
        conv_bias: whether convolutions that batch normalisation follows have biases.
        bn_epsilon: of every batch normalisation.
        initializer: of the convolutions' kernels, Keras' name; `"he_normal"` takes longer to draw than `"he_uniform"`.
        attention: name in `kzoo.layers.ATTENTION`, or None. Its slot is at the end of every residual branch
            (`"branch"`), in place of the 3×3 convolution of every bottleneck or the second one of every basic
            block (`"spatial"`), or between blocks (`"stage"`). A callable `(x, name) -> x` fills the branch.
        stage_attention: how many attention blocks each stage gets if their slot is `"stage"`; None for one in
            the last stage but one, before its last block.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    block: str = "basic"
    stem: str = "imagenet"
    shortcut: str = "projection"
    preactivation: bool = False
    stride_conv: int = 2
    stride_block: str = "first"
    conv_bias: bool = False
    bn_epsilon: float = 1e-5
    initializer: str = INITIALIZER
    attention: str | Callable | None = None
    stage_attention: tuple[int, ...] | None = None

    def __post_init__(self):
        for field in ("depths", "widths"):
            sizes = getattr(self, field)
            if not isinstance(sizes, (tuple, list)) or not all(type(size) is int and size > 0 for size in sizes):
                raise InvalidValueError(f"{field}={sizes!r} must be a tuple of positive integers, one per stage")
        if len(self.depths) != len(self.widths) or not self.depths:
            raise InvalidValueError(f"depths={self.depths} and widths={self.widths} must have one number per stage")
        check_choice("block", self.block, ("basic", "bottleneck"))
        check_choice("stem", self.stem, ("imagenet", "attention", "cifar"))
        check_choice("shortcut", self.shortcut, ("projection", "padding", "none"))
        check_choice("stride_conv", self.stride_conv, (1, 2))
        check_choice("stride_block", self.stride_block, ("first", "last"))
        check_flag("preactivation", self.preactivation)
        check_flag("conv_bias", self.conv_bias)
        check_number("bn_epsilon", self.bn_epsilon, lambda value: 0 < value < 1, "above 0 and below 1, such as 1e-5")
        if self.preactivation and (self.block != "bottleneck" or self.shortcut != "projection"):
            raise InvalidValueError("preactivation=True needs block='bottleneck' and shortcut='projection'")
        check_choice("initializer", self.initializer, ("he_uniform", "he_normal", "glorot_uniform", "glorot_normal"))
        check_attention(self.attention)
        self._check_stage_attention()

    def _check_stage_attention(self):
        counts = self.stage_attention
        if counts is None:
            return
        if slot_of(self.attention) != "stage":
            names = [name for name, entry in ATTENTION.items() if entry.slot == "stage"]
            raise InvalidValueError(
                f"stage_attention={counts!r} needs an attention that goes between blocks ({', '.join(names)}), got "
                f"attention={self.attention!r}"
            )
        listed = isinstance(counts, (tuple, list)) and all(is_integer(count, 0) for count in counts)
        if not listed or len(counts) != len(self.depths):
            raise InvalidValueError(f"stage_attention={counts!r} must have one number, 0 or more, for each stage")
        for depth, count in zip(self.depths, counts, strict=True):
            stage_positions(depth, count)

    def stage_slots(self, stage: int) -> list[int]:
        """After which blocks of `stage`, both from 1, an attention block goes."""
        if slot_of(self.attention) != "stage":
            return []
        if self.stage_attention is None:
            count = int(stage == max(1, len(self.depths) - 1))
        else:
            count = self.stage_attention[stage - 1]
        return stage_positions(self.depths[stage - 1], count)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 2 ** (len(self.depths) - 1) * (1 if self.stem == "cifar" else 4)

    @property
    def expansion(self) -> int:
        """Output channels of a block over its inner width."""
        return EXPANSION if self.block == "bottleneck" else 1


def features(x, config: ResNetConfig) -> dict:
    """Runs the trunk on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: which ResNet.

    Returns:
        The taps, finest first: `p1` ... `p5` for the ImageNet stem, `p2` ... `p5` for attention's, `p0` ... `p2`
        for the CIFAR one.
    """
    taps: dict[str, Any] = {}

    def tap(x):
        level = len(taps) + {"imagenet": 1, "attention": 2, "cifar": 0}[config.stem]
        taps[f"p{level}"] = mark(x, level)
        return taps[f"p{level}"]

    x = stem(x, config)
    if config.stem == "imagenet":
        x = tap(x)
        # zeros stand in for -inf: exact after ReLU, and what keras.applications' V2 does without one
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    block = preactivation_block if config.preactivation else residual_block
    for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True), start=1):
        slots = config.stage_slots(stage)
        for index in range(1, depth + 1):
            if config.stride_block == "first":
                strided = index == 1 and stage > 1
            else:
                strided = index == depth and stage < len(config.depths)
            if strided:
                x = tap(x)
            x = block(x, width, 2 if strided else 1, config, f"stage{stage}_block{index}", index)
            if index in slots:
                x = attend(x, config.attention, f"stage{stage}_attention{slots.index(index) + 1}")
    if config.preactivation:
        x = batch_norm(x, epsilon=config.bn_epsilon, name="final_bn")
        x = relu(x, name="final_relu")
    tap(x)
    return taps


def stem(x, config: ResNetConfig):
    """The first convolution, or attention. In a pre-activation network nothing follows it."""
    if config.stem == "attention":
        x = AttentionStem(config.widths[0], name="stem_attention")(x)
    else:
        kernel_size, strides = (7, 2) if config.stem == "imagenet" else (3, 1)
        use_bias = config.conv_bias or config.preactivation
        x = conv(
            x,
            config.widths[0],
            kernel_size,
            strides,
            use_bias=use_bias,
            initializer=config.initializer,
            name="stem_conv",
        )
    if config.preactivation:
        return x
    x = batch_norm(x, epsilon=config.bn_epsilon, name="stem_bn")
    return relu(x, name="stem_relu")


def branch_convs(width: int, strides: int, config: ResNetConfig) -> list[tuple[int, int, int]]:
    """(filters, kernel size, stride) of each convolution in a residual branch."""
    if config.block == "basic":
        return [(width, 3, strides), (width, 3, 1)]
    first, second = (strides, 1) if config.stride_conv == 1 else (1, strides)
    return [(width, 1, first), (width, 3, second), (width * EXPANSION, 1, 1)]


def branch_conv(x, spec: tuple[int, int, int], number: int, config: ResNetConfig, name: str, block: int, bias: bool):
    """One convolution of a residual branch, or the attention that takes its place."""
    filters, kernel_size, strides = spec
    if number == 2 and slot_of(config.attention) == "spatial":
        return replace_conv(x, config.attention, strides, block, f"{name}_attention")
    return conv(
        x,
        filters,
        kernel_size,
        strides,
        use_bias=bias,
        initializer=config.initializer,
        name=f"{name}_conv{number}",
    )


def residual_block(x, width: int, strides: int, config: ResNetConfig, name: str, block: int):
    """`relu(shortcut(x) + branch(x))` with conv-bn-relu inside the branch (arXiv:1512.03385, equation 1)."""
    y = x
    convs = branch_convs(width, strides, config)
    for index, spec in enumerate(convs, start=1):
        y = branch_conv(y, spec, index, config, name, block, config.conv_bias)
        y = batch_norm(y, epsilon=config.bn_epsilon, name=f"{name}_bn{index}")
        if index < len(convs):
            y = relu(y, name=f"{name}_relu{index}")
    if slot_of(config.attention) == "branch":
        y = attend(y, config.attention, f"{name}_attention")
    if config.shortcut != "none":
        y = keras.layers.Add(name=f"{name}_add")([shortcut(x, y.shape[-1], strides, config, name), y])
    return relu(y, name=f"{name}_relu{len(convs)}")


def shortcut(x, channels: int, strides: int, config: ResNetConfig, name: str):
    """The identity where the shapes agree, else option A (padding) or B (projection) of the paper."""
    if strides == 1 and x.shape[-1] == channels:
        return x
    if config.shortcut == "padding":
        return Subsample(strides, channels, name=f"{name}_shortcut")(x)
    x = _projection(x, channels, strides, config.conv_bias, config, name)
    return batch_norm(x, epsilon=config.bn_epsilon, name=f"{name}_shortcut_bn")


def _projection(x, channels: int, strides: int, bias: bool, config: ResNetConfig, name: str):
    """The 1×1 convolution of a shortcut."""
    initializer = config.initializer
    return conv(x, channels, 1, strides, use_bias=bias, initializer=initializer, name=f"{name}_shortcut_conv")


def preactivation_block(x, width: int, strides: int, config: ResNetConfig, name: str, block: int):
    """`shortcut(x) + branch(x)` with bn-relu-conv inside the branch (arXiv:1603.05027, Figure 4e).

    A projection reads the activated input; where only the size changes the shortcut picks every second pixel.
    """
    active = batch_norm(x, epsilon=config.bn_epsilon, name=f"{name}_bn1")
    active = relu(active, name=f"{name}_relu1")
    y = active
    convs = branch_convs(width, strides, config)
    for index, spec in enumerate(convs, start=1):
        last = index == len(convs)
        y = branch_conv(y, spec, index, config, name, block, last or config.conv_bias)
        if not last:
            y = batch_norm(y, epsilon=config.bn_epsilon, name=f"{name}_bn{index + 1}")
            y = relu(y, name=f"{name}_relu{index + 1}")
    if slot_of(config.attention) == "branch":
        y = attend(y, config.attention, f"{name}_attention")
    channels = y.shape[-1]
    if x.shape[-1] != channels:
        x = _projection(active, channels, strides, True, config, name)
    elif strides > 1:
        x = Subsample(strides, name=f"{name}_shortcut")(x)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _cifar(blocks: int, **options) -> ResNetConfig:
    return ResNetConfig(
        depths=(blocks,) * 3, widths=(16, 32, 64), stem="cifar", shortcut="padding", initializer="he_normal", **options
    )


_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_v1 = partial(ResNetConfig, block="bottleneck", stride_conv=1, conv_bias=True, bn_epsilon=1.001e-5)
_v2 = partial(ResNetConfig, block="bottleneck", preactivation=True, stride_block="last", bn_epsilon=1.001e-5)

VARIANTS: dict[str, ResNetConfig] = (
    {f"resnet{n}": ResNetConfig(depths=_DEPTHS[n]) for n in (18, 34)}
    | {f"resnet{n}": ResNetConfig(depths=_DEPTHS[n], block="bottleneck") for n in (50, 101, 152)}
    | {f"resnet{n}_v1": _v1(depths=_DEPTHS[n]) for n in (50, 101, 152)}
    | {f"resnet{n}_v2": _v2(depths=_DEPTHS[n]) for n in (50, 101, 152)}
    | {f"plain{n}": ResNetConfig(depths=_DEPTHS[n], shortcut="none") for n in (18, 34)}
    | {f"cifar_resnet{6 * n + 2}": _cifar(n) for n in (3, 5, 7, 9, 18)}
    | {f"cifar_plain{6 * n + 2}": replace(_cifar(n), shortcut="none") for n in (3, 9)}
)
VARIANTS |= {
    f"{name}_{attention}": replace(config, attention=attention)
    for name, config in VARIANTS.items()
    for attention in ("se", "cbam")
}
VARIANTS |= {f"resnet{n}_nl": replace(VARIANTS[f"resnet{n}"], attention="non_local") for n in (50, 101)}
VARIANTS |= {f"resnet{n}_nl5": replace(VARIANTS[f"resnet{n}_nl"], stage_attention=(0, 2, 3, 0)) for n in (50, 101)}
VARIANTS |= {
    f"resnet{n}_sasa{suffix}": ResNetConfig(depths=depths, block="bottleneck", stem=stem, attention="stand_alone")
    for n, depths in ((26, (1, 2, 4, 1)), (38, (2, 3, 5, 2)), (50, (3, 4, 6, 3)))
    for suffix, stem in (("", "imagenet"), ("_full", "attention"))
}


def _preprocessing(config: ResNetConfig) -> str:
    if config.preactivation:
        return "tf"
    return "caffe" if config.conv_bias else "torch"


def _narrow(config: ResNetConfig) -> dict:
    if config.stem == "cifar":
        return dict(depths=(2, 1, 1), widths=(8, 12, 16))
    if slot_of(config.attention) == "spatial":  # 8 heads of two channels and more
        return dict(depths=(2, 1, 1, 1), widths=(16, 16, 16, 32))
    if slot_of(config.attention) == "stage":
        return dict(depths=(1, 4, 6, 1) if config.stage_attention else (1, 1, 2, 1), widths=(8, 8, 12, 16))
    return dict(depths=(2, 1, 1, 1), widths=(8, 8, 12, 16))


for _name, _config in VARIANTS.items():
    _imagenet = _config.stem != "cifar"
    _papers = ("1603.05027" if _config.preactivation else "1512.03385",)
    register(
        Entry(
            name=_name,
            family="resnet",
            config=_config,
            features=features,
            head=classifier_head,
            input_shape=(224, 224, 3) if _imagenet else (32, 32, 3),
            num_classes=1000 if _imagenet else 10,
            preprocessing=_preprocessing(_config),
            papers=_papers + papers_of(_config.attention),
            narrow=_narrow(_config),
            narrow_size=64 if slot_of(_config.attention) == "stage" else 32,  # several keys after subsampling
        )
    )
