"""What hierarchical vision transformers share: a trunk of stages, their blocks, and the options of both.

Each stage works on maps of half the size and twice the channels of the one before. Swin (arXiv:2103.14030) and NAT
(arXiv:2204.07143) differ in how pixels attend to each other, in how maps shrink, and in the first convolutions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.layers import DropPath, LayerNormalization, LayerScale, SideOutput
from kzoo.layers.checks import check_flag, check_number
from kzoo.models.slots import attend, check_attention, slot_of
from kzoo.taps import mark

EPSILON = 1e-5  # of every layer normalisation, torch's default


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Options that the families share.

    Attributes:
        depths: blocks per stage.
        num_heads: of the attention, per stage.
        width: channels of the first stage; each later one has twice those of the stage before.
        mlp_ratio: hidden width of the MLPs over the channels.
        drop_path_rate: with which the last block's branches are dropped in training (stochastic depth); it rises
            linearly over the blocks from 0.
        layer_scale: what the factor of every channel of a branch starts as; None leaves the factors out.
        attention: a further mechanism at the end of every MLP branch: name in `kzoo.layers.ATTENTION` whose slot is
            `"branch"`, a callable `(x, name) -> x`, or None.
        normalise_taps: whether every tap but the last, which always is, goes through a layer normalisation of its
            own, as dense predictors on these trunks want it (the authors' detection code). The trunk itself and so
            the predictions stay as they are; the taps are branches beside it. Classification checkpoints have no
            weights for them: load those with `kzoo.load_weights(model, source, strict=False)`.
    """

    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    width: int
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.0
    layer_scale: float | None = None
    attention: str | Callable | None = None
    normalise_taps: bool = False

    def __post_init__(self):
        for field in ("depths", "num_heads"):
            sizes = getattr(self, field)
            if not isinstance(sizes, (tuple, list)) or not all(type(size) is int and size > 0 for size in sizes):
                raise InvalidValueError(f"{field}={sizes!r} must be a tuple of positive integers, one per stage")
        if len(self.depths) != len(self.num_heads) or not self.depths:
            raise InvalidValueError(
                f"depths={self.depths} and num_heads={self.num_heads} must have one number per stage"
            )
        if type(self.width) is not int or self.width < 1 or self.width % self.num_heads[0]:
            raise InvalidValueError(
                f"width={self.width!r} must be a positive integer that num_heads[0]={self.num_heads[0]} divides"
            )
        check_number(
            "mlp_ratio",
            self.mlp_ratio,
            lambda value: value * self.width >= 1 and value <= 64,
            f"of at most 64 that gives {self.width} channels a hidden unit, such as 4",
        )
        check_number("drop_path_rate", self.drop_path_rate, lambda value: 0 <= value < 1, "of at least 0 and below 1")
        if self.layer_scale is not None:
            check_number("layer_scale", self.layer_scale, lambda value: value > 0, "above 0, such as 1e-5, or None")
        check_flag("normalise_taps", self.normalise_taps)
        check_attention(self.attention)
        if slot_of(self.attention) not in (None, "branch"):
            raise InvalidValueError(
                f"attention={self.attention!r} fills a {slot_of(self.attention)!r} slot; these blocks have only a "
                "'branch' slot, such as 'se' or 'cbam' fill"
            )

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 2 ** (len(self.depths) + 1)


def trunk(x, config: TransformerConfig, mix: Callable, downsample: Callable) -> dict:
    """Runs the stages on the embedded pixels.

    Args:
        x: (batch, height / 4, width / 4, config.width).
        config: which network.
        mix: `(x, stage, block, name) -> layer`, the attention of a block; numbers from 1.
        downsample: `(x, name) -> x` between two stages.

    Returns:
        The taps, finest first: `p2`, `p3`, ...; the last one is normalised.
    """
    taps = {}
    rates = drop_path_rates(config)
    for stage, depth in enumerate(config.depths, start=1):
        for block in range(1, depth + 1):
            name = f"stage{stage}_block{block}"
            x = transformer_block(x, mix(x, stage, block, f"{name}_attention"), next(rates), config, name)
        level = stage + 1
        if stage == len(config.depths):
            x = taps[f"p{level}"] = mark(layer_norm(x, "final_norm"), level)
            break
        if config.normalise_taps:
            taps[f"p{level}"] = mark(layer_norm(x, f"stage{stage}_tap_norm"), level)
            x = SideOutput(name=f"stage{stage}_trunk")([x, taps[f"p{level}"]])
        else:
            x = taps[f"p{level}"] = mark(x, level)
        x = downsample(x, f"stage{stage + 1}_downsample")
    return taps


def drop_path_rates(config: TransformerConfig) -> Iterator[float]:
    """The rate of each block, from 0 in the first to `drop_path_rate` in the last (arXiv:1603.09382, equation 4)."""
    return iter(np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist())


def transformer_block(x, attention: keras.layers.Layer, rate: float, config: TransformerConfig, name: str):
    """`y = x + attention(norm(x))`, then `y + mlp(norm(y))` (arXiv:2103.14030, equation 3)."""
    y = attention(layer_norm(x, f"{name}_norm1"))
    x = add_branch(x, y, rate, config, f"{name}_attention")
    y = mlp(layer_norm(x, f"{name}_norm2"), config.mlp_ratio, f"{name}_mlp")
    if config.attention is not None:
        y = attend(y, config.attention, f"{name}_mlp_attention")
    return add_branch(x, y, rate, config, f"{name}_mlp")


def add_branch(x, branch, rate: float, config: TransformerConfig, name: str):
    """Adds a residual branch, scaled where the config says so, and sometimes dropped in training."""
    if config.layer_scale is not None:
        branch = LayerScale(config.layer_scale, name=f"{name}_scale")(branch)
    if rate > 0:
        branch = DropPath(rate, name=f"{name}_drop_path")(branch)
    return keras.layers.Add(name=f"{name}_add")([x, branch])


def mlp(x, ratio: float, name: str):
    """Two dense layers on every pixel with the exact GELU between them."""
    channels = x.shape[-1]
    x = dense(x, int(channels * ratio), f"{name}_dense1")
    x = keras.layers.Activation("gelu", name=f"{name}_gelu")(x)
    return dense(x, channels, f"{name}_dense2")


def dense(x, units: int, name: str, use_bias: bool = True):
    """A dense layer on every pixel, with these networks' initial weights."""
    initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    return keras.layers.Dense(units, use_bias=use_bias, kernel_initializer=initializer, name=name)(x)


def layer_norm(x, name: str):
    """Layer normalisation of every pixel's channels."""
    return LayerNormalization(epsilon=EPSILON, name=name)(x)


def known_size(x, family: str) -> tuple[int, int]:
    """(height, width) of a map; raises `InvalidValueError` where one is unknown."""
    if None in x.shape[1:3]:
        raise InvalidValueError(
            f"a {family} needs images of known height and width, as its windows are laid out for them; pass an "
            "input_shape without None"
        )
    return tuple(x.shape[1:3])
