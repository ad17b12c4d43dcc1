"""Inception v3: Szegedy et al. 2015 (arXiv:1512.00567), with factorised convolutions.

| name | layout |
| --- | --- |
| `inception_v3` | torchvision's and timm's: batch normalisation with a scale, averages that count the padding |
| `inception_v3_keras` | keras.applications': batch normalisation without a scale, averages of the pixels alone |
| `inception_v3_se`, `inception_v3_cbam` | the first with attention after each module |

Both follow the network that was published (Table 1 and Figures 5 to 7 of the paper, except where said below) and
want 299×299 images. `auxiliary=True` adds the training head; `kzoo.models.inception` tells how to train with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from kzoo.models.blocks import BN_MOMENTUM, INITIALIZER, relu
from kzoo.models.inception import check_config, check_known_size, check_modules, classifier, join, main_head, scaled
from kzoo.models.slots import papers_of
from kzoo.registry import Entry, register
from kzoo.taps import mark

BN_EPSILON = 1e-3
Spec = tuple[int, int | tuple[int, int]]  # filters and kernel size


@dataclass(frozen=True, kw_only=True)
class InceptionV3Config:
    """What distinguishes one Inception v3 from another.

    Attributes:
        bn_scale: whether batch normalisation has a scale (gamma).
        count_padding: whether average pooling inside modules counts the zeros around the map.
        auxiliary: whether there is an auxiliary head for training; the outputs are then a dict.
        dropout: rate before the classifier.
        modules: which modules there are, in the order of `MODULES`; the reductions 6a and 7a must be.
        width: multiplier of every number of filters.
        attention: name in `kzoo.layers.ATTENTION` whose slot is `"branch"`, a callable `(x, name) -> x`, or
            None. It weighs the concatenated maps of each module and reduction.
    """

    bn_scale: bool = True
    count_padding: bool = True
    auxiliary: bool = False
    dropout: float = 0.0
    modules: tuple[str, ...] = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    width: float = 1.0
    attention: str | Callable | None = None

    def __post_init__(self):
        check_config(self)
        check_modules(self.modules, tuple(MODULES), ("6a", "7a"))

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 32

    @property
    def smallest_input(self) -> int:
        """The least height and width: convolutions without padding leave one pixel of 75.

        The auxiliary head's 5×5 convolution behind 5×5 pooling with stride 3 needs the 17×17 map of 299 pixels.
        """
        return 299 if self.auxiliary else 75


def features(x, config: InceptionV3Config) -> dict:
    """Runs the trunk on normalised images.

    Stem and reductions do not pad, so maps are a little smaller than the image over their stride: 147, 71, 35, 17
    and 8 pixels of 299.

    Args:
        x: (batch, height, width, channels).
        config: which Inception v3.

    Returns:
        The taps `p1` ... `p5`, finest first, and among them the map that the auxiliary head reads.
    """
    if config.auxiliary:
        check_known_size(x)
    maps = {}

    def tap(x, level: int):
        maps[f"p{level}"] = mark(x, level)
        return maps[f"p{level}"]

    def modules(x, stage: str):
        for name in (name for name in config.modules if name.startswith(stage)):
            block, filters = MODULES[name]
            x = block(x, config, f"mixed{name}", *filters)
        return x

    x = conv_unit(x, 32, 3, config, "stem", "1", strides=2, padding="valid")
    x = conv_unit(x, 32, 3, config, "stem", "2", padding="valid")
    x = tap(conv_unit(x, 64, 3, config, "stem", "3"), 1)  # (B, 147, 147, 64)
    x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool1")(x)
    x = conv_unit(x, 80, 1, config, "stem", "4")
    x = tap(conv_unit(x, 192, 3, config, "stem", "5", padding="valid"), 2)  # (B, 71, 71, 192)
    x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool2")(x)
    x = tap(modules(x, "5"), 3)  # (B, 35, 35, 288)
    x = tap(modules(x, "6"), 4)  # (B, 17, 17, 768)
    if config.auxiliary:
        maps["auxiliary1"] = x
    tap(modules(x, "7"), 5)  # (B, 8, 8, 2048)
    return maps


def conv_unit(
    x, filters: int, kernel_size, config: InceptionV3Config, name: str, number="", *, strides=1, padding="same"
):
    """Convolution, batch normalisation and ReLU."""
    x = keras.layers.Conv2D(
        scaled(filters, config.width),
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=INITIALIZER,
        name=f"{name}_conv{number}",
    )(x)
    x = keras.layers.BatchNormalization(
        momentum=BN_MOMENTUM, epsilon=BN_EPSILON, scale=config.bn_scale, name=f"{name}_bn{number}"
    )(x)
    return relu(x, name=f"{name}_relu{number}")


def chain(x, specs: list[Spec], config: InceptionV3Config, name: str, reduce: bool = False):
    """A branch of convolutions one after the other; with `reduce` the last has stride 2 and does not pad."""
    for index, (filters, kernel_size) in enumerate(specs, start=1):
        last = dict(strides=2, padding="valid") if reduce and index == len(specs) else {}
        x = conv_unit(x, filters, kernel_size, config, name, str(index) if len(specs) > 1 else "", **last)
    return x


def pool_branch(x, filters: int, config: InceptionV3Config, name: str):
    """3×3 average pooling with stride 1 and a 1×1 projection."""
    if config.count_padding:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_branch_pool_pad")(x)
    padding = "valid" if config.count_padding else "same"
    x = keras.layers.AveragePooling2D(3, strides=1, padding=padding, name=f"{name}_branch_pool")(x)
    return chain(x, [(filters, 1)], config, f"{name}_branch_pool")


def inception_a(x, config: InceptionV3Config, name: str, projection: int):
    """The module for 35×35 maps (Figure 5). The published networks have one 5×5 where the figure has one 3×3.

    Args:
        x: (batch, height, width, channels).
        config: which Inception v3.
        name: of the module.
        projection: filters behind the pool.

    Returns:
        (batch, height, width, 224 + projection).
    """
    branches = [
        chain(x, [(64, 1)], config, f"{name}_branch1x1"),
        chain(x, [(48, 1), (64, 5)], config, f"{name}_branch5x5"),
        chain(x, [(64, 1), (96, 3), (96, 3)], config, f"{name}_branch3x3dbl"),
        pool_branch(x, projection, config, name),
    ]
    return join(branches, config.attention, name)


def reduction_a(x, config: InceptionV3Config, name: str):
    """From 35×35 to 17×17 by strided convolutions beside a pool (Figure 10): 480 filters and the map's own."""
    branches = [
        chain(x, [(384, 3)], config, f"{name}_branch3x3", reduce=True),
        chain(x, [(64, 1), (96, 3), (96, 3)], config, f"{name}_branch3x3dbl", reduce=True),
        keras.layers.MaxPooling2D(3, strides=2, name=f"{name}_branch_pool")(x),
    ]
    return join(branches, config.attention, name)


def inception_b(x, config: InceptionV3Config, name: str, inner: int):
    """The module for 17×17 maps: n×n convolutions factorised into 1×n and n×1 with n = 7 (Figure 6).

    Args:
        x: (batch, height, width, channels).
        config: which Inception v3.
        name: of the module.
        inner: filters of the convolutions between the first and the last of a branch.

    Returns:
        (batch, height, width, 768).
    """
    wide, tall = (1, 7), (7, 1)
    twice: list[Spec] = [(inner, 1), (inner, tall), (inner, wide), (inner, tall), (192, wide)]
    branches = [
        chain(x, [(192, 1)], config, f"{name}_branch1x1"),
        chain(x, [(inner, 1), (inner, wide), (192, tall)], config, f"{name}_branch7x7"),
        chain(x, twice, config, f"{name}_branch7x7dbl"),
        pool_branch(x, 192, config, name),
    ]
    return join(branches, config.attention, name)


def reduction_b(x, config: InceptionV3Config, name: str):
    """From 17×17 to 8×8 (section 5 and Figure 10, with a factorised 7×7): 512 filters and the map's own."""
    branches = [
        chain(x, [(192, 1), (320, 3)], config, f"{name}_branch3x3", reduce=True),
        chain(x, [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)], config, f"{name}_branch7x7x3", reduce=True),
        keras.layers.MaxPooling2D(3, strides=2, name=f"{name}_branch_pool")(x),
    ]
    return join(branches, config.attention, name)


def inception_c(x, config: InceptionV3Config, name: str):
    """The module for 8×8 maps with expanded filter banks: 1×3 and 3×1 side by side (Figure 7).

    Returns:
        (batch, height, width, 2048).
    """
    single = conv_unit(x, 384, 1, config, f"{name}_branch3x3", "1")
    double = chain(x, [(448, 1), (384, 3)], config, f"{name}_branch3x3dbl")
    branches = [
        chain(x, [(320, 1)], config, f"{name}_branch1x1"),
        fork(single, config, f"{name}_branch3x3", 2),
        fork(double, config, f"{name}_branch3x3dbl", 3),
        pool_branch(x, 192, config, name),
    ]
    return join(branches, config.attention, name)


def fork(x, config: InceptionV3Config, name: str, number: int):
    """A 1×3 and a 3×1 convolution of one map, side by side: (batch, height, width, 768)."""
    wide = conv_unit(x, 384, (1, 3), config, name, f"{number}a")
    tall = conv_unit(x, 384, (3, 1), config, name, f"{number}b")
    return join([wide, tall], None, name)


MODULES: dict[str, tuple[Callable, tuple[int, ...]]] = {  # with the filters that change from one to the next
    "5b": (inception_a, (32,)),
    "5c": (inception_a, (64,)),
    "5d": (inception_a, (64,)),
    "6a": (reduction_a, ()),
    "6b": (inception_b, (128,)),
    "6c": (inception_b, (160,)),
    "6d": (inception_b, (160,)),
    "6e": (inception_b, (192,)),
    "7a": (reduction_b, ()),
    "7b": (inception_c, ()),
    "7c": (inception_c, ()),
}


def head(maps: dict, num_classes: int, activation, config: InceptionV3Config):
    """The classifier, or a dict of it and the auxiliary one."""
    *_, last = maps.values()
    main = main_head(last, num_classes, activation, config.dropout)
    if not config.auxiliary:
        return main
    return {"head": main, "auxiliary1": auxiliary_head(maps["auxiliary1"], num_classes, activation, config)}


def auxiliary_head(x, num_classes: int, activation, config: InceptionV3Config):
    """Average pooling, 1×1 to 128, 5×5 to 768, classifier (section 4 and Figure 8), on the 17×17 map."""
    x = keras.layers.AveragePooling2D(5, strides=3, name="auxiliary1_pool")(x)  # (B, 5, 5, 768)
    x = conv_unit(x, 128, 1, config, "auxiliary1", "1")
    x = conv_unit(x, 768, 5, config, "auxiliary1", "2", padding="valid")  # (B, 1, 1, 768)
    x = keras.layers.GlobalAveragePooling2D(name="auxiliary1_global_pool")(x)
    return classifier(x, num_classes, activation, "auxiliary1_head")


VARIANTS: dict[str, InceptionV3Config] = {
    "inception_v3": InceptionV3Config(),
    "inception_v3_keras": InceptionV3Config(bn_scale=False, count_padding=False),
    "inception_v3_se": InceptionV3Config(attention="se"),
    "inception_v3_cbam": InceptionV3Config(attention="cbam"),
}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="inception_v3",
            config=_config,
            features=features,
            head=head,
            input_shape=(299, 299, 3),
            num_classes=1000,
            preprocessing="tf",
            papers=("1512.00567", *papers_of(_config.attention)),
            narrow=dict(modules=("5b", "6a", "6b", "7a", "7b"), width=0.125),
            narrow_size=80,
        )
    )
