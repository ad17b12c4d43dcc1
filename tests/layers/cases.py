"""One example of every layer, with the size of a map that it takes: what each of them must do is tested on these."""

import keras

from kzoo import layers


class Case:
    """How a layer is made and used inside a small model.

    Args:
        make: called without arguments, gives the layer.
        size: (height, width) of the map.
        apply: `(layer, x) -> y` on a map of `CHANNELS` channels, where `layer(x)` will not do.
        idle: ends of the paths of weights whose gradient is zero by mathematics.
    """

    def __init__(self, make, size=(9, 13), apply=None, idle=()):
        self.make = make
        self.size = size
        self.idle = idle
        self.is_plain = apply is None  # takes one map
        self.apply = apply or (lambda layer, x: layer(x))

    def model(self) -> keras.Model:
        """The layer between two 1×1 convolutions."""
        inputs = keras.Input((*self.size, 3), name="image")
        x = keras.layers.Conv2D(CHANNELS, 1, name="before")(inputs)
        y = self.apply(self.make(), x)
        return keras.Model(inputs, keras.layers.Conv2D(5, 1, name="after")(y))


CHANNELS = 16


# A softmax over the keys takes out what all keys share; batch normalisation takes out every constant before it.
NON_LOCAL_IDLE = ("/phi/bias", "/g/bias", "/out/bias")


def _concatenate(layer, x):
    small = keras.layers.MaxPooling2D(2, name="pool")(x)
    return layer([small, x, keras.layers.Conv2D(4, 3, name="valid")(x)])


def _set_aside(layer, x):
    return layer([x, keras.layers.MaxPooling2D(2, name="aside")(x)])


def _match(layer, x):
    return layer([x, keras.layers.MaxPooling2D(4, 1, name="smaller")(x)])


def _match_larger(layer, x):
    return layer([keras.layers.Conv2D(CHANNELS, 4, name="smaller")(x), x])


def _regress(layer, x):
    keys = keras.layers.Conv2D(3, 1, name="keys")(x)
    return layer(keras.layers.Conv2D(3, 1, name="queries")(x), keys, x)


def _logits(layer, x):
    """A map of 3 × 4 pixels whose 12 channels become the logits of one window with 4 heads of 3 × 3 pixels."""
    x = keras.layers.Conv2D(27, 1, name="logits")(x)
    x = keras.layers.Reshape((4, 9, 9), name="windows")(x)
    x = layer(x)
    return keras.layers.Reshape((3, 4, 27), name="map")(x)


def _boxes(layer, x):
    """Boxes of the positions of a map at stride 8, as a map."""
    x = keras.layers.Conv2D(4, 1, name="offsets")(x)
    x = keras.layers.Reshape((1, -1, 4), name="places")(x)
    return keras.layers.Reshape((12, 16, 4), name="map")(layer(x))


def _anchors(layer, x):
    x = keras.layers.Conv2D(36, 1, name="offsets")(x)
    x = keras.layers.Reshape((1, -1, 4), name="places")(x)
    return keras.layers.Reshape((12, 16, 36), name="map")(layer(x))


def _scores(layer, x):
    return layer([x, keras.layers.Conv2D(1, 1, name="centerness")(x)])


CASES: dict[str, Case] = {
    "decode_points": Case(lambda: layers.DecodeBoxes((90, 120), "fcos", (3,)), size=(12, 16), apply=_boxes),
    "decode_anchors": Case(lambda: layers.DecodeBoxes((90, 120), "retinanet", (3,)), size=(12, 16), apply=_anchors),
    "centerness_scores": Case(layers.CenternessScores, apply=_scores),
    "squeeze_excite": Case(layers.SqueezeExcite),
    "channel_attention": Case(lambda: layers.ChannelAttention(4)),
    "spatial_attention": Case(layers.SpatialAttention),
    "cbam": Case(lambda: layers.CBAM(4)),
    "residual_attention": Case(lambda: layers.ResidualAttention(depth=2)),
    "residual_attention_spatial": Case(lambda: layers.ResidualAttention(gate="spatial", residual_learning=False)),
    "residual_attention_channel": Case(lambda: layers.ResidualAttention(gate="channel")),
    "non_local_gaussian": Case(lambda: layers.NonLocal("gaussian"), idle=NON_LOCAL_IDLE),
    "non_local_embedded_gaussian": Case(lambda: layers.NonLocal(), idle=NON_LOCAL_IDLE),
    "non_local_dot_product": Case(lambda: layers.NonLocal("dot_product", subsample=False), idle=NON_LOCAL_IDLE),
    "non_local_concatenation": Case(lambda: layers.NonLocal("concatenation"), idle=NON_LOCAL_IDLE),
    "kernel_regression": Case(lambda: layers.KernelRegressionAttention(width=None, learn_width=True)),
    "kernel_regression_of_keys": Case(lambda: layers.KernelRegressionAttention(width=0.5), apply=_regress),
    "self_attention": Case(lambda: layers.MultiHeadSelfAttention(4, "learned")),
    "self_attention_relative_bias": Case(lambda: layers.MultiHeadSelfAttention(2, "relative_bias")),
    "window": Case(lambda: layers.WindowAttention(4, 4)),
    "window_shifted": Case(lambda: layers.WindowAttention(4, 4, 2)),
    "neighborhood": Case(lambda: layers.NeighborhoodAttention(4, 3)),
    "neighborhood_dilated": Case(lambda: layers.NeighborhoodAttention(2, 3, 2)),
    "stand_alone": Case(lambda: layers.StandAloneSelfAttention(kernel_size=3, num_heads=4)),
    "stand_alone_strided": Case(lambda: layers.StandAloneSelfAttention(24, 5, 4, 2)),
    "attention_stem": Case(lambda: layers.AttentionStem(16)),
    "sinusoidal_position": Case(layers.SinusoidalPositionEncoding),
    "learned_position": Case(layers.LearnedPositionEncoding),
    "relative_position_bias": Case(lambda: layers.RelativePositionBias(4, 3), (3, 4), _logits),
    "drop_path": Case(lambda: layers.DropPath(0.3, seed=1)),
    "layer_normalization": Case(layers.LayerNormalization, idle=("before/bias",)),
    "merge_pixels": Case(layers.MergePixels, (8, 6)),
    "layer_scale": Case(lambda: layers.LayerScale(0.1)),
    "meaning": Case(lambda: layers.Meaning({"class_names": ["a", "b"]}, {"crop": 0.875})),
    "side_output": Case(layers.SideOutput, apply=_set_aside),
    "local_response_normalization": Case(layers.LocalResponseNormalization),
    "depth_concat": Case(layers.DepthConcat, apply=_concatenate),
    "subsample": Case(lambda: layers.Subsample(2, 32)),
    "upsample": Case(lambda: layers.Upsample(3)),
    "upsample_bilinear": Case(lambda: layers.Upsample(8, "bilinear")),
    "match_size": Case(layers.MatchSize, apply=_match),
    "match_size_larger": Case(lambda: layers.MatchSize(2), apply=_match_larger),
}
