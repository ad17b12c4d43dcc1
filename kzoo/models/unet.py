"""U-Net: Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597), and its decoder on any backbone.

| names | layout |
| --- | --- |
| `unet` | Figure 1: two unpadded 3×3 convolutions a level, 2×2 max-pooling, transposed convolutions, cropped skips |
| `unet_padded` | the same with padding, so that the output has the size of the image, and batch normalisation |
| `unet` with `backbone=` | the encoder is a network of the zoo; the decoder goes up to the size of the image |

`unet_padded` also ends in `_se` and `_cbam`.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers import MatchSize, Upsample
from kzoo.layers.checks import check_flag, check_number, is_integer
from kzoo.models.backbone import BackboneConfig, backbone_maps, choose_levels
from kzoo.models.blocks import INITIALIZER, batch_norm, head_activation, relu
from kzoo.models.slots import attend, check_attention, papers_of
from kzoo.registry import SEGMENTATION, Entry, register
from kzoo.taps import mark

WIDTHS = (64, 128, 256, 512, 1024)  # of the paper


@dataclass(frozen=True, kw_only=True)
class UNetConfig(BackboneConfig):
    """What distinguishes one U-Net from another. None stands for the paper's choice without a backbone.

    Attributes:
        widths: channels of each level of the encoder, from the finest; None for 64 to 1024. A backbone has its own.
        decoder_widths: channels of the decoder at each level, from the coarsest; None for the encoder's widths or, on
            a backbone, 256, 128, ... down to at least 16.
        padding: `"valid"`: convolutions without padding, so that the output is smaller than the image; `"same"`; None
            for valid, or same on a backbone, which knows no other.
        batch_norm: whether batch normalisation follows the 3×3 convolutions; None for no, or yes on a backbone.
        upsampling: `"transposed"`: 2×2 convolutions with stride 2 that double the map; `"nearest"`: repeated pixels
            and a 2×2 convolution, with padding alone.
        dropout: rate behind the encoder in training; None for 0.5, or 0 on a backbone.
        decoder_attention: at the end of each level of the decoder: name in `kzoo.layers.ATTENTION`, a callable
            `(x, name) -> x`, or None.
        skip_attention: the same on each skip connection.
    """

    widths: tuple[int, ...] | None = None
    decoder_widths: tuple[int, ...] | None = None
    padding: str | None = None
    batch_norm: bool | None = None
    upsampling: str = "transposed"
    dropout: float | None = None
    decoder_attention: str | Callable | None = None
    skip_attention: str | Callable | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("widths", "decoder_widths"):
            sizes = getattr(self, name)
            if sizes is None:
                continue
            if not isinstance(sizes, (tuple, list)) or not sizes or not all(is_integer(size, 1) for size in sizes):
                raise InvalidValueError(f"{name}={sizes!r} must be a tuple of positive integers, one per level")
        check_choice("padding", self.padding, ("valid", "same", None))
        check_choice("upsampling", self.upsampling, ("transposed", "nearest"))
        if self.batch_norm is not None:
            check_flag("batch_norm", self.batch_norm)
        if self.dropout is not None:
            check_number("dropout", self.dropout, lambda value: 0 <= value < 1, "of at least 0 and below 1")
        if self.upsampling == "nearest" and self.unpadded:
            raise InvalidValueError(
                "upsampling='nearest' has a 2×2 convolution that pads, which an unpadded U-Net must not; use "
                "padding='same' or upsampling='transposed'"
            )
        check_attention(self.decoder_attention)
        check_attention(self.skip_attention)
        if self.backbone is None:
            if len(self.widths or WIDTHS) < 2:
                raise InvalidValueError(f"widths={self.widths!r} must have two levels or more")
            if self.levels is not None:
                raise InvalidValueError(f"levels={self.levels!r} are taps of a backbone; give its name too")
        elif self.widths is not None:
            raise InvalidValueError(
                f"widths={self.widths!r} are the encoder's, and backbone={self.backbone!r} has its own; change them "
                "with backbone_options, the decoder's with decoder_widths"
            )
        elif self.padding == "valid":
            raise InvalidValueError(f"padding='valid' is not accepted with backbone={self.backbone!r}, which pads")

    @property
    def unpadded(self) -> bool:
        """Whether the output is smaller than the image."""
        return (self.padding or ("same" if self.backbone else "valid")) == "valid"

    @property
    def normalised(self) -> bool:
        """Whether batch normalisation follows the convolutions."""
        return self.backbone is not None if self.batch_norm is None else self.batch_norm

    @property
    def dropout_rate(self) -> float:
        """Dropout rate of the encoder's last map."""
        return (0.0 if self.backbone else 0.5) if self.dropout is None else self.dropout

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the encoder's last map, along one axis."""
        return super().total_stride if self.backbone else 2 ** (len(self.widths or WIDTHS) - 1)

    @property
    def smallest_input(self) -> int:
        """The least height and width of an image."""
        if self.backbone:
            return super().smallest_input
        return (
            next(size for size in itertools.count(1) if self.output_size(size)) if self.unpadded else self.total_stride
        )

    def output_size(self, size: int) -> int | None:
        """Height or width of the output for that of an image; None where unpadded maps cannot be halved.

        >>> UNetConfig().output_size(572)
        388
        """
        if not self.unpadded:
            return size
        depth = len(self.widths or WIDTHS) - 1
        for _ in range(depth):
            size -= 4
            if size < 2 or size % 2:
                return None
            size //= 2
        size -= 4
        for _ in range(depth):
            size = 2 * size - 4
        return size if size > 0 else None


def features(x, config: UNetConfig) -> dict:
    """Runs encoder and decoder on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: which U-Net.

    Returns:
        The image as `image`, the encoder's taps, finest first, and the decoder's last map as `unet`, of the size of
        the image, or smaller without padding.

    Raises:
        InvalidValueError: an image of a size that an unpadded network cannot halve, or decoder widths that do not
            fit the levels.
    """
    if config.backbone is None:
        taps = encoder(x, config)
        chosen = taps
    else:
        taps = backbone_maps(x, config)
        chosen = choose_levels(taps, config)
    maps = {"image": x} | {f"p{level}": each for level, each in taps.items()}
    return maps | {"unet": decoder(x, chosen, config)}


def encoder(x, config: UNetConfig) -> dict:
    """The contracting path: two convolutions a level, max-pooling between levels; level -> map."""
    _check_size(x, config)
    taps = {}
    for level, width in enumerate(config.widths or WIDTHS):
        name = f"stage{level + 1}"
        if level:
            x = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)
        x = double_conv(x, width, config, name)
        if config.attention is not None:
            x = attend(x, config.attention, f"{name}_attention")
        taps[level] = x = mark(x, level)
    return taps


def _check_size(x, config: UNetConfig) -> None:
    for size in x.shape[1:3]:
        if size is None or not config.unpadded or config.output_size(size):
            continue
        near = range(size - config.total_stride, size + config.total_stride + 1)
        fitting = " or ".join(str(each) for each in near if config.output_size(each))
        raise InvalidValueError(
            f"an image of {x.shape[1]}×{x.shape[2]} does not fit the unpadded U-Net, which halves maps of even sizes "
            f"alone; use {fitting} instead of {size}, or padding='same'"
        )


def decoder(image, maps: Mapping, config: UNetConfig):
    """The expanding path: from the coarsest map up to stride 1, past the finer maps of the encoder."""
    levels = list(maps)
    steps = list(range(levels[-1] - 1, -1, -1))
    widths = config.decoder_widths or _decoder_widths(config, len(steps))
    if len(widths) != len(steps):
        raise InvalidValueError(
            f"decoder_widths={config.decoder_widths!r} must have {len(steps)} numbers, one for each level from "
            f"p{levels[-1] - 1} to p0"
        )
    x = maps[levels[-1]]
    if config.dropout_rate:
        x = keras.layers.Dropout(config.dropout_rate, name="unet_dropout")(x)
    fitted = levels[-1]  # the level at which x last had the size of another map
    for level, width in zip(steps, widths, strict=True):
        name = f"unet_p{level}"
        x = upsample(x, width, config, name)
        if level in maps:
            x = join(x, maps[level], 2 ** (fitted - level) - 1, config, name)
            fitted = level
        elif level == 0:
            x = MatchSize(2**fitted - 1, name=f"{name}_fit")([x, image])
        x = double_conv(x, width, config, name)
        if config.decoder_attention is not None:
            x = attend(x, config.decoder_attention, f"{name}_attention")
    return x


def _decoder_widths(config: UNetConfig, steps: int) -> list[int]:
    if config.backbone is None:
        return list(reversed((config.widths or WIDTHS)[:-1]))
    return [max(16, 256 >> step) for step in range(steps)]


def upsample(x, width: int, config: UNetConfig, name: str):
    """Doubles height and width, to `width` channels."""
    options = dict(kernel_initializer=INITIALIZER, name=f"{name}_up_conv")
    if config.upsampling == "transposed":
        return keras.layers.Conv2DTranspose(width, 2, strides=2, **options)(x)
    x = Upsample(2, name=f"{name}_up")(x)
    return keras.layers.Conv2D(width, 2, padding="same", **options)(x)


def join(x, skip, rounding: int, config: UNetConfig, name: str):
    """The encoder's map in front of the decoder's, both of one size.

    Without padding the skip's centre is taken; else `x` differs by `rounding` pixels at most.
    """
    if config.skip_attention is not None:
        skip = attend(skip, config.skip_attention, f"{name}_skip_attention")
    if config.unpadded:
        skip = MatchSize(rounding=0, name=f"{name}_crop")([skip, x])
    else:
        x = MatchSize(rounding, name=f"{name}_fit")([x, skip])
    return keras.layers.Concatenate(name=f"{name}_concat")([skip, x])


def double_conv(x, width: int, config: UNetConfig, name: str):
    """Two 3×3 convolutions, each with ReLU, and batch normalisation before it where the config says so."""
    for number in (1, 2):
        x = keras.layers.Conv2D(
            width,
            3,
            padding="valid" if config.unpadded else "same",
            use_bias=not config.normalised,
            kernel_initializer=INITIALIZER,
            name=f"{name}_conv{number}",
        )(x)
        if config.normalised:
            x = batch_norm(x, name=f"{name}_bn{number}")
        x = relu(x, name=f"{name}_relu{number}")
    return x


def head(maps: dict, num_classes: int, activation, config: UNetConfig):
    """A 1×1 convolution to the classes of every pixel, and the activation."""
    x = keras.layers.Conv2D(num_classes, 1, name="head_conv")(maps["unet"])
    return head_activation(x, activation)


_PADDED = UNetConfig(padding="same", batch_norm=True)
VARIANTS: dict[str, UNetConfig] = {"unet": UNetConfig(), "unet_padded": _PADDED}
VARIANTS |= {f"unet_padded_{name}": replace(_PADDED, attention=name) for name in ("se", "cbam")}

for _name, _config in VARIANTS.items():
    _side = 572 if _config.unpadded else 256
    register(
        Entry(
            name=_name,
            family="unet",
            task=SEGMENTATION,
            config=_config,
            features=features,
            head=head,
            input_shape=(_side, _side, 3),
            num_classes=2,
            preprocessing="tf",
            papers=("1505.04597", *papers_of(_config.attention)),
            narrow=dict(widths=(16, 24, 32), dropout=0.0),
            narrow_size=44 if _config.unpadded else 32,
        )
    )
