"""Swin transformers: Liu et al. 2021 (arXiv:2103.14030), as section 3.3 lists them.

| names | images | window |
| --- | --- | --- |
| `swin_tiny/small/base/large` | 224×224 | 7 |
| `swin_base_384`, `swin_large_384` | 384×384 | 12 |
"""

from dataclasses import dataclass, replace

import keras

from kzoo.layers import MergePixels, WindowAttention
from kzoo.layers.checks import pair
from kzoo.layers.windows import padding_to_multiple
from kzoo.models.blocks import INITIALIZER, classifier_head
from kzoo.models.transformer_blocks import TransformerConfig, dense, known_size, layer_norm, trunk
from kzoo.registry import Entry, register

PATCH = 4  # pixels of a patch along one axis


@dataclass(frozen=True, kw_only=True)
class SwinConfig(TransformerConfig):
    """What distinguishes one Swin transformer from another; see `TransformerConfig` for the other options.

    Attributes:
        window_size: M, one number or (height, width). A map that fits into a window along an axis has one of its
            own size there.
    """

    window_size: int | tuple[int, int] = 7

    def __post_init__(self):
        super().__post_init__()
        pair("window_size", self.window_size)


def features(x, config: SwinConfig) -> dict:
    """Runs the trunk on normalised images of any known size.

    An image whose sides are no multiples of 4 is padded with zeros at the bottom and right, as in the authors'
    detection code (torchvision cuts it off, timm refuses it).

    Args:
        x: (batch, height, width, channels).
        config: which Swin transformer.

    Returns:
        The taps, finest first: `p2` ... `p5`, the last one normalised.

    Raises:
        InvalidValueError: images of unknown height or width.
    """

    def mix(x, stage: int, block: int, name: str):
        window = pair("window_size", config.window_size)
        shift = (0, 0) if block % 2 else (window[0] // 2, window[1] // 2)
        return WindowAttention(config.num_heads[stage - 1], window, shift, name=name)

    return trunk(patch_embedding(x, config), config, mix, patch_merging)


def patch_embedding(x, config: SwinConfig):
    """Every 4×4 patch becomes one pixel of `config.width` channels."""
    bottom, right = (padding_to_multiple(size, PATCH) for size in known_size(x, "Swin transformer"))
    if bottom or right:
        x = keras.layers.ZeroPadding2D(((0, bottom), (0, right)), name="stem_pad")(x)
    x = keras.layers.Conv2D(
        config.width, PATCH, strides=PATCH, padding="valid", kernel_initializer=INITIALIZER, name="stem_conv"
    )(x)
    return layer_norm(x, "stem_norm")


def patch_merging(x, name: str):
    """Concatenates the channels of each 2×2 pixels, C to 4 C, and reduces them to 2 C (section 3.1).

    Of the four pixels those of the left column come first, each column from the top, as in the authors' code, timm
    and torchvision. A map of an odd size is padded with zeros at the bottom and right.
    """
    _, height, width, channels = x.shape
    if height % 2 or width % 2:
        x = keras.layers.ZeroPadding2D(((0, height % 2), (0, width % 2)), name=f"{name}_pad")(x)
    x = MergePixels(name=f"{name}_merge")(x)
    return dense(layer_norm(x, f"{name}_norm"), 2 * channels, f"{name}_dense", use_bias=False)


_HEADS = (1, 2, 4, 8)


def _swin(depth: int, heads: int, drop_path_rate: float) -> SwinConfig:
    """Heads of 32 channels; the third stage has the depth."""
    return SwinConfig(
        depths=(2, 2, depth, 2),
        num_heads=tuple(heads * factor for factor in _HEADS),
        width=32 * heads,
        drop_path_rate=drop_path_rate,
    )


# stochastic depth as in appendix A2.1: 0.2, 0.3, 0.5 on ImageNet-1K; the large model has the authors' for fine-tuning
VARIANTS: dict[str, SwinConfig] = {
    "swin_tiny": _swin(6, 3, 0.2),
    "swin_small": _swin(18, 3, 0.3),
    "swin_base": _swin(18, 4, 0.5),
    "swin_large": _swin(18, 6, 0.2),
}
VARIANTS |= {f"swin_{size}_384": replace(VARIANTS[f"swin_{size}"], window_size=12) for size in ("base", "large")}

for _name, _config in VARIANTS.items():
    _side = 384 if _name.endswith("_384") else 224
    register(
        Entry(
            name=_name,
            family="swin",
            config=_config,
            features=features,
            head=classifier_head,
            input_shape=(_side, _side, 3),
            num_classes=1000,
            preprocessing="torch",
            papers=("2103.14030",),
            narrow=dict(depths=(2, 1, 1, 1), num_heads=(2, 2, 4, 4), width=16, window_size=4, drop_path_rate=0.0),
            narrow_size=64,  # several keys in the last stage
        )
    )
