"""Layers that plug into any `keras.Model`, written with `keras.ops` alone.

`ATTENTION` names the mechanisms that `kzoo.build(..., attention=NAME)` accepts, and where each one goes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from kzoo.layers.attention_stem import AttentionStem
from kzoo.layers.cbam import CBAM, SpatialAttention
from kzoo.layers.neighborhood_attention import NeighborhoodAttention
from kzoo.layers.self_attention import MultiHeadSelfAttention
from kzoo.layers.squeeze_excite import ChannelAttention, SqueezeExcite
from kzoo.layers.stand_alone_attention import StandAloneSelfAttention
from kzoo.layers.subsample import Subsample
from kzoo.layers.window_attention import WindowAttention

__all__ = [
    "ATTENTION",
    "CBAM",
    "Attention",
    "AttentionStem",
    "ChannelAttention",
    "MultiHeadSelfAttention",
    "NeighborhoodAttention",
    "SpatialAttention",
    "SqueezeExcite",
    "StandAloneSelfAttention",
    "Subsample",
    "WindowAttention",
]


@dataclass(frozen=True)
class Attention:
    """One mechanism under its name.

    Attributes:
        slot: `"branch"`: after the last batch normalisation of a residual branch, before the addition.
        layer: called as `layer(name=...)`, gives the Keras layer.
        paper: arXiv number.
    """

    slot: str
    layer: Callable[..., keras.layers.Layer]
    paper: str


ATTENTION: dict[str, Attention] = {
    "se": Attention("branch", SqueezeExcite, "1709.01507"),
    "cbam": Attention("branch", CBAM, "1807.06521"),
}
