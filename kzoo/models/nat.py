"""Neighborhood attention transformers: Hassani et al. 2022 (arXiv:2204.07143), `nat_mini/tiny/small/base`."""

from dataclasses import dataclass

from kzoo.errors import InvalidValueError
from kzoo.layers import NeighborhoodAttention
from kzoo.layers.checks import check_flag, check_odd
from kzoo.models.blocks import classifier_head, conv
from kzoo.models.transformer_blocks import TransformerConfig, known_size, layer_norm, trunk
from kzoo.registry import Entry, register


@dataclass(frozen=True, kw_only=True)
class NATConfig(TransformerConfig):
    """What distinguishes one NAT from another; see `TransformerConfig` for the other options.

    Attributes:
        kernel_size: k, an odd number: every pixel attends to its k × k nearest ones.
        clamp_kernel: whether a stage whose map is smaller than the kernel takes the largest odd kernel that fits, and
            with it a smaller table of position biases. Without it such images are refused; the authors' code pads
            these maps with zeros instead. At 224×224 no map is smaller.
    """

    kernel_size: int = 7
    clamp_kernel: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_odd("kernel_size", self.kernel_size)
        check_flag("clamp_kernel", self.clamp_kernel)
        if self.width % 2:
            raise InvalidValueError(
                f"width={self.width} must be even: the tokenizer's first convolution has half of it"
            )


def features(x, config: NATConfig) -> dict:
    """Runs the trunk on normalised images of known size.

    Args:
        x: (batch, height, width, channels).
        config: which NAT.

    Returns:
        The taps, finest first: `p2` ... `p5`, the last one normalised. The map inside the tokenizer has no name.

    Raises:
        InvalidValueError: images of unknown size, or too small for the kernel without `clamp_kernel`.
    """
    height, width = known_size(x, "NAT")

    def mix(x, stage: int, block: int, name: str):
        return NeighborhoodAttention(config.num_heads[stage - 1], kernel_for(x), name=name)

    def kernel_for(x) -> int:
        fitting = min(config.kernel_size, *x.shape[1:3])
        fitting -= 1 - fitting % 2
        if fitting < config.kernel_size and not config.clamp_kernel:
            raise InvalidValueError(
                f"images of {height}×{width} pixels give a map of {x.shape[1]}×{x.shape[2]}, smaller than "
                f"kernel_size={config.kernel_size}; use images of at least "
                f"{smallest_image(config)}×{smallest_image(config)}, a smaller kernel_size, or clamp_kernel=True"
            )
        return fitting

    return trunk(tokenizer(x, config), config, mix, downsampler)


def smallest_image(config: NATConfig) -> int:
    """The side of the smallest image whose last map holds the kernel: every convolution rounds halves up."""
    return config.total_stride * (config.kernel_size - 1) + 1


def tokenizer(x, config: NATConfig):
    """Two overlapping convolutions to a quarter of the size, with nothing between them."""
    x = conv(x, config.width // 2, 3, 2, use_bias=True, name="stem_conv1")
    x = conv(x, config.width, 3, 2, use_bias=True, name="stem_conv2")
    return layer_norm(x, "stem_norm")


def downsampler(x, name: str):
    """An overlapping convolution to half the size and twice the channels, without a bias."""
    x = conv(x, 2 * x.shape[-1], 3, 2, name=f"{name}_conv")
    return layer_norm(x, f"{name}_norm")


def _nat(depth: int, heads: int, mlp_ratio: float, drop_path_rate: float, layer_scale=None) -> NATConfig:
    """Heads of 32 channels; the third stage has the depth."""
    return NATConfig(
        depths=(3, 4, depth, 5),
        num_heads=tuple(heads * factor for factor in (1, 2, 4, 8)),
        width=32 * heads,
        mlp_ratio=mlp_ratio,
        drop_path_rate=drop_path_rate,
        layer_scale=layer_scale,
    )


VARIANTS: dict[str, NATConfig] = {
    "nat_mini": _nat(6, 2, 3, 0.2),
    "nat_tiny": _nat(18, 2, 3, 0.2),
    "nat_small": _nat(18, 3, 2, 0.3, layer_scale=1e-5),
    "nat_base": _nat(18, 4, 2, 0.5, layer_scale=1e-5),
}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="nat",
            config=_config,
            features=features,
            head=classifier_head,
            input_shape=(224, 224, 3),
            num_classes=1000,
            preprocessing="torch",
            papers=("2204.07143",),
            narrow=dict(
                depths=(2, 1, 1, 1),
                num_heads=(2, 2, 4, 4),
                width=16,
                kernel_size=3,
                clamp_kernel=True,
                drop_path_rate=0.0,
                layer_scale=_config.layer_scale and 0.1,  # 1e-5 would hide a branch's gradient in rounding
            ),
            narrow_size=96,  # the last map is as large as the kernel
        )
    )
