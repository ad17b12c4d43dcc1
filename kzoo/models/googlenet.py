"""GoogLeNet: Szegedy et al. 2014 (arXiv:1409.4842), with an Inception module and auxiliary classifiers.

| name | layout |
| --- | --- |
| `googlenet` | Table 1 of the paper: local response normalisation, biases, 5×5 branches |
| `googlenet_bn` | torchvision's: batch normalisation, 3×3 where the paper has 5×5, a 2×2 last max-pool |
| `googlenet_bn_se`, `googlenet_bn_cbam` | the same with attention after each module |

`auxiliary=True` adds the two training heads at 4a and 4d; `kzoo.models.inception` tells how to train with them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from kzoo.errors import check_choice
from kzoo.layers import LocalResponseNormalization, Subsample
from kzoo.models.blocks import batch_norm, conv, relu
from kzoo.models.inception import (
    check_config,
    check_known_size,
    check_modules,
    classifier,
    dropout,
    join,
    main_head,
    scaled,
)
from kzoo.models.slots import papers_of
from kzoo.registry import Entry, register
from kzoo.taps import mark

BN_EPSILON = 1e-3
MODULES = {  # Table 1: #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY_AT = ("4a", "4d")


@dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig:
    """What distinguishes one GoogLeNet from another.

    Attributes:
        normalisation: `"response"` (local response normalisation twice in the stem, biases in every convolution)
            or `"batch"` (batch normalisation behind every convolution).
        large_kernel: kernel size of the module's third branch, 5 in the paper.
        last_pool: size of the max-pool before 5a, 3 in the paper.
        auxiliary: whether there are two auxiliary heads for training; the outputs are then a dict.
        auxiliary_pool: `"strided"` (5×5 with stride 3: 4×4 of the paper's 14×14) or `"adaptive"` (to 4×4 always).
        dropout: rate before the classifier.
        auxiliary_dropout: rate before the auxiliary classifiers.
        modules: which modules of Table 1 there are, in its order; `auxiliary` needs 4a and 4d.
        width: multiplier of every number of filters.
        attention: name in `kzoo.layers.ATTENTION` whose slot is `"branch"`, a callable `(x, name) -> x`, or
            None. It weighs the concatenated maps of each module.
    """

    normalisation: str = "response"
    large_kernel: int = 5
    last_pool: int = 3
    auxiliary: bool = False
    auxiliary_pool: str = "strided"
    dropout: float = 0.4
    auxiliary_dropout: float = 0.7
    modules: tuple[str, ...] = tuple(MODULES)
    width: float = 1.0
    attention: str | Callable | None = None

    def __post_init__(self):
        check_choice("normalisation", self.normalisation, ("response", "batch"))
        check_choice("large_kernel", self.large_kernel, (3, 5))
        check_choice("last_pool", self.last_pool, (2, 3))
        check_choice("auxiliary_pool", self.auxiliary_pool, ("strided", "adaptive"))
        check_config(self)
        check_modules(self.modules, tuple(MODULES), AUXILIARY_AT if self.auxiliary else ())

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 32

    @property
    def smallest_input(self) -> int:
        """The least height and width: 5×5 pooling of the stride-16 map needs 79 pixels."""
        return 79 if self.auxiliary and self.auxiliary_pool == "strided" else self.total_stride


def features(x, config: GoogLeNetConfig) -> dict:
    """Runs the trunk on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: which GoogLeNet.

    Returns:
        The taps `p1` ... `p5`, finest first, and among them the maps that auxiliary heads read.
    """
    if config.auxiliary:
        check_known_size(x)
    maps = {}

    def tap(x, level: int):
        maps[f"p{level}"] = mark(x, level)
        return maps[f"p{level}"]

    def modules(x, stage: str):
        for name in (name for name in config.modules if name.startswith(stage)):
            x = inception_module(x, MODULES[name], config, f"inception{name}")
            if config.auxiliary and name in AUXILIARY_AT:
                maps[f"auxiliary{AUXILIARY_AT.index(name) + 1}"] = x
        return x

    x = tap(conv_unit(x, 64, 7, config, "stem", "1", strides=2), 1)  # (B, 112, 112, 64)
    x = response_norm(ceil_pool(x, 3, "stem_pool1"), config, "stem_norm1")
    x = conv_unit(x, 64, 1, config, "stem", "2")
    x = conv_unit(x, 192, 3, config, "stem", "3")
    x = tap(response_norm(x, config, "stem_norm2"), 2)  # (B, 56, 56, 192)
    x = tap(modules(ceil_pool(x, 3, "stem_pool2"), "3"), 3)  # (B, 28, 28, 480)
    x = tap(modules(ceil_pool(x, 3, "stage3_pool"), "4"), 4)  # (B, 14, 14, 832)
    tap(modules(ceil_pool(x, config.last_pool, "stage4_pool"), "5"), 5)  # (B, 7, 7, 1024)
    return maps


def conv_unit(x, filters: int, kernel_size: int, config: GoogLeNetConfig, name: str, number: str = "", strides=1):
    """Convolution, batch normalisation if there is any, and ReLU."""
    batch = config.normalisation == "batch"
    x = conv(x, scaled(filters, config.width), kernel_size, strides, use_bias=not batch, name=f"{name}_conv{number}")
    if batch:
        x = batch_norm(x, epsilon=BN_EPSILON, name=f"{name}_bn{number}")
    return relu(x, name=f"{name}_relu{number}")


def response_norm(x, config: GoogLeNetConfig, name: str):
    """Local response normalisation with the constants of AlexNet as Caffe writes them; the paper states none."""
    return (
        LocalResponseNormalization(5, k=1.0, alpha=1e-4 / 5, name=name)(x) if config.normalisation == "response" else x
    )


def ceil_pool(x, size: int, name: str):
    """Max-pooling with stride 2 whose last window may reach over the bottom and right edges, as Caffe's and torch's
    `ceil_mode` have it: 112 pixels become 56, as in Table 1. What lies beyond an edge never is the maximum.

    Args:
        x: (batch, height, width, channels), sizes known or not.
        size: of the window, 2 or 3.
        name: of the layer.

    Returns:
        (batch, ceil((height - size) / 2) + 1, ceil((width - size) / 2) + 1, channels).
    """
    odd = [None if side is None else side % 2 == 1 for side in x.shape[1:3]]
    # "same" pads nothing at the top and left but for windows of 3 on odd sides, and these need no padding at all
    if size == 2 or odd == [False, False]:
        return keras.layers.MaxPooling2D(size, strides=2, padding="same", name=name)(x)
    if odd == [True, True]:
        return keras.layers.MaxPooling2D(size, strides=2, padding="valid", name=name)(x)
    x = keras.layers.MaxPooling2D(size, strides=1, padding="same", name=f"{name}_stride1")(x)  # around each pixel
    x = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(x)  # the first one wanted is around pixel 1
    return Subsample(2, name=name)(x)


def inception_module(x, filters: tuple[int, ...], config: GoogLeNetConfig, name: str):
    """The Inception module with dimension reductions (arXiv:1409.4842, Figure 2b).

    Args:
        x: (batch, height, width, channels).
        filters: of the 1×1, of the reduction before the 3×3, of the 3×3, of the reduction before the 5×5, of the
            5×5, and of the projection behind the pool.
        config: which GoogLeNet.
        name: of the module.

    Returns:
        (batch, height, width, sum of the four branches' filters).
    """
    ones, reduce3, threes, reduce5, fives, projection = filters
    branch1 = conv_unit(x, ones, 1, config, f"{name}_branch1")
    branch2 = conv_unit(x, reduce3, 1, config, f"{name}_branch2", "1")
    branch2 = conv_unit(branch2, threes, 3, config, f"{name}_branch2", "2")
    branch3 = conv_unit(x, reduce5, 1, config, f"{name}_branch3", "1")
    branch3 = conv_unit(branch3, fives, config.large_kernel, config, f"{name}_branch3", "2")
    branch4 = keras.layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_branch4_pool")(x)
    branch4 = conv_unit(branch4, projection, 1, config, f"{name}_branch4")
    return join([branch1, branch2, branch3, branch4], config.attention, name)


def head(maps: dict, num_classes: int, activation, config: GoogLeNetConfig):
    """The classifier, or a dict of it and the auxiliary ones."""
    *_, last = maps.values()
    main = main_head(last, num_classes, activation, config.dropout)
    if not config.auxiliary:
        return main
    return {"head": main} | {
        name: auxiliary_head(x, num_classes, activation, config, name)
        for name, x in maps.items()
        if name.startswith("auxiliary")
    }


def auxiliary_head(x, num_classes: int, activation, config: GoogLeNetConfig, name: str):
    """Average pooling, 1×1 convolution to 128, dense 1024, dropout, classifier (arXiv:1409.4842, section 5)."""
    if config.auxiliary_pool == "adaptive":
        x = keras.layers.AdaptiveAveragePooling2D(4, data_format="channels_last", name=f"{name}_pool")(x)
    else:
        x = keras.layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
    x = conv_unit(x, 128, 1, config, name)
    x = keras.layers.Permute((3, 1, 2), name=f"{name}_permute")(x)  # flattened in torch's order, for its weights
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)
    x = keras.layers.Dense(scaled(1024, config.width), name=f"{name}_dense")(x)
    x = relu(x, name=f"{name}_dense_relu")
    x = dropout(x, config.auxiliary_dropout, f"{name}_dropout")
    return classifier(x, num_classes, activation, f"{name}_head")


_BATCH = GoogLeNetConfig(normalisation="batch", large_kernel=3, last_pool=2, auxiliary_pool="adaptive", dropout=0.2)
VARIANTS: dict[str, GoogLeNetConfig] = {"googlenet": GoogLeNetConfig(), "googlenet_bn": _BATCH} | {
    f"googlenet_bn_{attention}": replace(_BATCH, attention=attention) for attention in ("se", "cbam")
}

for _name, _config in VARIANTS.items():
    _batch = _config.normalisation == "batch"
    register(
        Entry(
            name=_name,
            family="googlenet",
            config=_config,
            features=features,
            head=head,
            input_shape=(224, 224, 3),
            num_classes=1000,
            # torchvision's weights turn its usual normalisation into this one with transform_input=True
            preprocessing="tf" if _batch else "caffe",
            papers=("1409.4842", *papers_of(_config.attention)),
            narrow=dict(modules=("3a", "4a", "4d", "5a"), width=0.25, dropout=0.0, auxiliary_dropout=0.0),
        )
    )
