"""Layers that plug into any `keras.Model`, written with `keras.ops` alone.

`ATTENTION` names the mechanisms that `kzoo.build(..., attention=NAME)` accepts, and where each one goes.

map: a tensor (batch, height, width, channels).
slot: where a mechanism goes in a network: `branch`, `spatial` or `stage`.
mechanism: a layer that has a name in `ATTENTION`, which `attention=` takes.
`macs`: multiply-adds for one image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras

from kzoo.layers.attention_stem import AttentionStem
from kzoo.layers.boxes import CenternessScores, DecodeBoxes
from kzoo.layers.cbam import CBAM, SpatialAttention
from kzoo.layers.depth_concat import DepthConcat
from kzoo.layers.kernel_regression import KernelRegressionAttention
from kzoo.layers.layer_normalization import LayerNormalization
from kzoo.layers.layer_scale import LayerScale
from kzoo.layers.meaning import Meaning
from kzoo.layers.merge_pixels import MergePixels
from kzoo.layers.neighborhood_attention import NeighborhoodAttention
from kzoo.layers.non_local import NonLocal
from kzoo.layers.position import LearnedPositionEncoding, RelativePositionBias, SinusoidalPositionEncoding
from kzoo.layers.residual_attention import ResidualAttention
from kzoo.layers.response_norm import LocalResponseNormalization
from kzoo.layers.self_attention import MultiHeadSelfAttention
from kzoo.layers.side_output import SideOutput
from kzoo.layers.squeeze_excite import ChannelAttention, SqueezeExcite
from kzoo.layers.stand_alone_attention import StandAloneSelfAttention
from kzoo.layers.stochastic_depth import DropPath
from kzoo.layers.subsample import Subsample
from kzoo.layers.upsample import MatchSize, Upsample
from kzoo.layers.window_attention import WindowAttention

__all__ = [
    "ATTENTION",
    "CBAM",
    "Attention",
    "AttentionStem",
    "CenternessScores",
    "ChannelAttention",
    "DecodeBoxes",
    "DepthConcat",
    "DropPath",
    "KernelRegressionAttention",
    "LayerNormalization",
    "LayerScale",
    "LearnedPositionEncoding",
    "LocalResponseNormalization",
    "MatchSize",
    "Meaning",
    "MergePixels",
    "MultiHeadSelfAttention",
    "NeighborhoodAttention",
    "NonLocal",
    "RelativePositionBias",
    "ResidualAttention",
    "SideOutput",
    "SinusoidalPositionEncoding",
    "SpatialAttention",
    "SqueezeExcite",
    "StandAloneSelfAttention",
    "Subsample",
    "Upsample",
    "WindowAttention",
]


@dataclass(frozen=True)
class Attention:
    """One mechanism under its name.

    Attributes:
        slot: `"branch"`: after the last batch normalisation of a residual branch, before the addition;
            `"spatial"`: in place of a 3×3 convolution; `"stage"`: a residual block of its own between blocks.
        layer: called as `layer(name=...)`, gives the Keras layer.
        paper: arXiv number, or authors and year.
        alternate: the same for every second block, where the mechanism alternates.
    """

    slot: str
    layer: Callable[..., keras.layers.Layer]
    paper: str
    alternate: Callable[..., keras.layers.Layer] | None = None


ATTENTION: dict[str, Attention] = {
    "se": Attention("branch", SqueezeExcite, "1709.01507"),
    "cbam": Attention("branch", CBAM, "1807.06521"),
    "channel_attention": Attention("branch", ChannelAttention, "1807.06521"),
    "spatial_attention": Attention("branch", SpatialAttention, "1807.06521"),
    "residual_attention": Attention("branch", ResidualAttention, "1704.06904"),
    "kernel_regression": Attention(
        "branch", partial(KernelRegressionAttention, width=None, learn_width=True), "Nadaraya 1964, Watson 1964"
    ),
    "self_attention": Attention("spatial", partial(MultiHeadSelfAttention, 4, "sinusoidal"), "1706.03762"),
    "window": Attention(
        "spatial", partial(WindowAttention, 4, 7), "2103.14030", alternate=partial(WindowAttention, 4, 7, 3)
    ),
    "neighborhood": Attention("spatial", partial(NeighborhoodAttention, 4, 7), "2204.07143"),
    "stand_alone": Attention("spatial", StandAloneSelfAttention, "1906.05909"),
    "non_local": Attention("stage", NonLocal, "1711.07971"),
}
