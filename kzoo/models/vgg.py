"""VGG: Simonyan and Zisserman 2014 (arXiv:1409.1556).

| names | layout |
| --- | --- |
| `vgg11/13/16/19` | Table 1, columns A, B, D and E: stages of 3×3 convolutions, 2×2 max-pooling, three dense layers |
| `vgg11/13/16/19_bn` | the same with batch normalisation before each ReLU of a convolution, as torchvision and timm |

Each also ends in `_se` and `_cbam`. `head="average"` puts global average pooling in place of the hidden dense
layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers.checks import check_flag, check_positive
from kzoo.models.blocks import INITIALIZER, batch_norm, classifier_head, head_activation, relu
from kzoo.models.slots import attend, check_attention, papers_of, replace_conv, slot_of
from kzoo.registry import Entry, register
from kzoo.taps import mark


@dataclass(frozen=True, kw_only=True)
class VGGConfig:
    """What distinguishes one VGG from another.

    Attributes:
        depths: 3×3 convolutions per stage; 2×2 max-pooling ends each stage.
        widths: channels per stage.
        batch_norm: whether batch normalisation follows every convolution; the convolutions keep their biases.
        attention: name in `kzoo.layers.ATTENTION`, or None. Its slot is after the ReLU of every convolution
            (`"branch"`; arXiv:1709.01507, section 3.3), in place of every convolution but the first of a stage
            (`"spatial"`), or after the last ReLU of the last stage, where the stride is 16 (`"stage"`). A
            callable `(x, name) -> x` fills the branch.
        head: `"dense"`, two hidden dense layers and the classifier, or `"average"`, global average pooling and
            the classifier, for any image size.
        map_size: height and width of the last map that the dense head takes, 7 for images of 224×224 and for
            all public weights; None for whatever a fixed image size gives.
        dense_units: width of the hidden dense layers.
        dropout: rate after each hidden dense layer, in training.

    Raises:
        InvalidValueError: a value that a field cannot take.

    Example:
        >>> kzoo.build("vgg16_bn", head="average", input_shape=(None, None, 3), num_classes=10)
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    batch_norm: bool = False
    attention: str | Callable | None = None
    head: str = "dense"
    map_size: int | None = 7
    dense_units: int = 4096
    dropout: float = 0.5

    def __post_init__(self):
        for field in ("depths", "widths"):
            sizes = getattr(self, field)
            if not isinstance(sizes, (tuple, list)) or not all(type(size) is int and size > 0 for size in sizes):
                raise InvalidValueError(f"{field}={sizes!r} must be a tuple of positive integers, one per stage")
        if len(self.depths) != len(self.widths) or not self.depths:
            raise InvalidValueError(f"depths={self.depths} and widths={self.widths} must have one number per stage")
        check_flag("batch_norm", self.batch_norm)
        check_choice("head", self.head, ("dense", "average"))
        if self.map_size is not None:
            check_positive("map_size", self.map_size)
        check_positive("dense_units", self.dense_units)
        if not (isinstance(self.dropout, Real) and 0 <= self.dropout < 1):
            raise InvalidValueError(f"dropout={self.dropout!r} must be a number of at least 0 and below 1")
        check_attention(self.attention)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 2 ** len(self.depths)


def features(x, config: VGGConfig) -> dict:
    """Runs the trunk on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: which VGG.

    Returns:
        The taps, finest first: `p0` ... `p4` before each max-pooling, `p5` after the last one. Odd sizes are
        rounded down.
    """
    taps = {}
    for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True), start=1):
        for number in range(1, depth + 1):
            x = conv_block(x, width, number, config, f"stage{stage}")
        if stage == len(config.depths) and slot_of(config.attention) == "stage":
            x = attend(x, config.attention, f"stage{stage}_attention1")
        taps[f"p{stage - 1}"] = x = mark(x, stage - 1)
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    taps[f"p{stage}"] = mark(x, stage)
    return taps


def conv_block(x, width: int, number: int, config: VGGConfig, name: str):
    """The convolution `number` of a stage, from 1, its batch normalisation, ReLU and attention."""
    if number > 1 and slot_of(config.attention) == "spatial":
        x = replace_conv(x, config.attention, 1, number, f"{name}_attention{number}")
    else:
        options = dict(padding="same", kernel_initializer=INITIALIZER, name=f"{name}_conv{number}")
        x = keras.layers.Conv2D(width, 3, **options)(x)
    if config.batch_norm:
        x = batch_norm(x, name=f"{name}_bn{number}")
    x = relu(x, name=f"{name}_relu{number}")
    if slot_of(config.attention) == "branch":
        x = attend(x, config.attention, f"{name}_attention{number}")
    return x


def head(maps: dict, num_classes: int, activation, config: VGGConfig):
    """The dense or the average head, as the config says.

    Raises:
        InvalidValueError: a dense head on a map of unknown size, or of another one than `config.map_size`.
    """
    if config.head == "average":
        return classifier_head(maps, num_classes, activation)
    return dense_head(list(maps.values())[-1], num_classes, activation, config)


def dense_head(x, num_classes: int, activation, config: VGGConfig):
    """Three dense layers, with ReLU and dropout after the first two (sections 2.1 and 3.1 of the paper).

    The map is flattened in torch's order, channels first; keras.applications flattens them last.
    """
    _check_map_size(x.shape[1:3], config)
    x = keras.layers.Permute((3, 1, 2), name="head_permute")(x)
    x = keras.layers.Flatten(name="head_flatten")(x)
    for number in (1, 2):
        x = keras.layers.Dense(int(config.dense_units), kernel_initializer=INITIALIZER, name=f"head_fc{number}")(x)
        x = relu(x, name=f"head_relu{number}")
        x = keras.layers.Dropout(config.dropout, name=f"head_dropout{number}")(x)
    x = keras.layers.Dense(num_classes, name="head_dense")(x)
    return head_activation(x, activation)


def _check_map_size(size: tuple, config: VGGConfig) -> None:
    advice = "use head='average', which takes any image size"
    if None in size:
        raise InvalidValueError(f"the dense head needs a fixed image size; give input_shape numbers, or {advice}")
    if config.map_size is not None and size != (config.map_size,) * 2:
        pixels = config.map_size * config.total_stride
        raise InvalidValueError(
            f"the dense head takes a map of {config.map_size}×{config.map_size}, which images of {pixels}×{pixels} "
            f"give, not {size[0]}×{size[1]}; {advice}, or map_size=None for a dense head of this size, which no "
            "public weights fit"
        )


VARIANTS: dict[str, VGGConfig] = {
    "vgg11": VGGConfig(depths=(1, 1, 2, 2, 2)),
    "vgg13": VGGConfig(depths=(2, 2, 2, 2, 2)),
    "vgg16": VGGConfig(depths=(2, 2, 3, 3, 3)),
    "vgg19": VGGConfig(depths=(2, 2, 4, 4, 4)),
}
VARIANTS |= {f"{name}_bn": replace(config, batch_norm=True) for name, config in VARIANTS.items()}
VARIANTS |= {
    f"{name}_{attention}": replace(config, attention=attention)
    for name, config in VARIANTS.items()
    for attention in ("se", "cbam")
}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="vgg",
            config=_config,
            features=features,
            head=head,
            input_shape=(224, 224, 3),
            num_classes=1000,
            # keras.applications has the authors' weights, which want their mean; torchvision's want its constants
            preprocessing="caffe" if _name in ("vgg16", "vgg19") else "torch",
            papers=("1409.1556", *papers_of(_config.attention)),
            narrow=dict(depths=(1, 2, 1, 1, 1), widths=(8, 8, 12, 16, 16), map_size=None, dense_units=24, dropout=0.0),
        )
    )
