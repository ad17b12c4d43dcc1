"""Random functional models for property-based tests: every layer kind that folding knows, and what gets in its way."""

import itertools

import keras
import numpy as np
from helpers import computes_dilated_transposed_convolutions, randomise
from hypothesis import strategies as st
from keras import layers


class RandomModel:
    """Draws a model of small maps with random weights.

    Args:
        draw: the `draw` method of Hypothesis' `st.data()`.
        images: whether the model begins with pixel normalisation.
    """

    def __init__(self, draw, images: bool = False):
        self.draw = draw
        self.names = itertools.count(1)
        self.rank = self.one_of(2, 2, 2, 1, 3)
        self.centred: list[layers.Layer] = []
        shape = (self.one_of(6, 7, 9),) + (5,) * (self.rank - 1) + (3 if images else self.one_of(2, 4, 6),)
        self.inputs = keras.Input(shape, name="image")
        x = self.preprocessing(self.inputs) if images else self.inputs
        outputs = [y := self.blocks(x, depth=self.one_of(2, 3, 4, 5, 6))]
        if y is not x and self.one_of(False, False, False, True):
            outputs.append(self.block(y, depth=0))
        if self.one_of(False, True):
            outputs[0] = self.head(outputs[0])
        self.model = randomise(self.make(outputs))
        for norm in self.centred:  # no offset, which zero padding lets pass
            norm.moving_mean.assign(0 * norm.moving_mean)

    def make(self, outputs: list) -> keras.Model:
        return keras.Model(self.inputs, outputs)

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def kind(self, name: str):
        """The layer class of this rank, such as Conv2D for "Conv"."""
        return getattr(layers, name.replace("#", f"{self.rank}D"))

    def blocks(self, x, depth: int):
        for _ in range(depth):
            x = self.block(x, depth)
        return x

    def block(self, x, depth: int):
        blocks = [self.linear, self.norm, self.norm, self.commuting, self.other]
        blocks += [self.behind, self.behind, self.ahead, self.ahead]
        if depth > 1:
            blocks += [self.branch, self.shared, self.nested]
        return self.one_of(*blocks)(x)

    def linear(self, x, filters: int | None = None, like_input: bool = False):
        """A linear layer; `like_input` keeps the shape of the map."""
        return self.linear_layer(x.shape, filters, like_input)(x)

    def linear_layer(self, shape, filters: int | None = None, like_input: bool = False):
        small = min(shape[1:-1]) < 5  # a dilated kernel would not fit
        kinds = ["Conv#", "Conv#", "Conv#Transpose", "Dense"]
        kinds += ["DepthwiseConv#", "SeparableConv#"] if self.rank < 3 else []
        kind = self.one_of(*kinds)
        options = dict(use_bias=self.one_of(True, False), activation=self.one_of(None, None, None, "relu"))
        filters = filters or self.one_of(2, 4)
        if kind == "DepthwiseConv#" and not like_input:
            options["depth_multiplier"] = self.one_of(1, 2)
        if kind == "Dense":
            return layers.Dense(filters, **options)
        options["kernel_size"] = self.one_of(1, 2, 3)
        options["padding"] = "same" if like_input or small else self.one_of("valid", "same")
        if kind == "Conv#" and self.rank == 1 and self.one_of(False, True):
            options["padding"] = "causal"
        if like_input:
            kind = "Conv#" if kind == "DepthwiseConv#" else kind
        elif self.one_of(False, True):
            options["strides"] = 2
        elif self.one_of(False, True) and (kind != "Conv#Transpose" or computes_dilated_transposed_convolutions()):
            options["dilation_rate"] = 2
        if kind == "Conv#" and shape[-1] % 2 == filters % 2 == 0:
            options["groups"] = self.one_of(1, 2)
        if kind == "DepthwiseConv#":
            return self.kind(kind)(**options)
        return self.kind(kind)(filters, **options)

    def norm_layer(self, shape):
        centred = self.one_of(False, False, False, True)
        axis = self.one_of(-1, len(shape) - 1)
        norm = layers.BatchNormalization(axis, epsilon=0.01, center=not centred, scale=self.one_of(True, True, False))
        if centred:
            self.centred.append(norm)
        return norm

    def norm(self, x):
        mode = self.one_of(*[None] * 8, True)
        return self.norm_layer(x.shape)(x) if mode is None else self.norm_layer(x.shape)(x, training=mode)

    def behind(self, x):
        """A linear layer, something, and a normalisation."""
        return self.norm(self.between(self.linear(x)))

    def ahead(self, x):
        """A normalisation that cannot go back, something, and a linear layer."""
        return self.linear(self.between(self.norm(layers.ReLU()(x))))

    def between(self, x):
        return self.one_of(self.commuting, self.commuting, self.kind("ZeroPadding#")(1), self.tap)(x)

    def tap(self, x):
        return layers.Identity(name=f"p{next(self.names)}")(x)

    def commuting(self, x):
        """What a scale and an offset may pass, and zero padding, which an offset may not."""
        room = min(x.shape[1:-1]) >= 4
        choices = [
            layers.Identity(),
            layers.Activation("linear"),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.5),
            self.kind("SpatialDropout#")(0.5),
            self.kind("ZeroPadding#")(1),
            self.kind("ZeroPadding#")(1),
            self.kind("AveragePooling#")(2, strides=1, padding="same"),
        ]
        if room:
            choices += [self.kind("Cropping#")(1), self.kind("AveragePooling#")(2)]
        elif self.rank == 2:
            choices += [layers.UpSampling2D(2, interpolation=self.one_of("nearest", "bilinear"))]
        else:
            choices += [self.kind("UpSampling#")(2)]
        return self.one_of(*choices)(x)

    def other(self, x):
        """What nothing folds through."""
        kind = self.one_of("relu", "max", "tap", "operation", "lambda", "twice")
        if kind == "tap":
            return self.tap(x)
        if kind == "operation":
            return x * 0.5
        if kind == "twice":
            return layers.Add()([x, x])
        if kind == "lambda":
            return layers.Lambda(lambda t: keras.ops.abs(t))(x)
        return layers.ReLU()(x) if kind == "relu" else self.kind("MaxPooling#")(2, strides=1, padding="same")(x)

    def branch(self, x):
        """Two ways to one sum or stack, with their normalisations."""
        channels = x.shape[-1]
        left = self.norm(self.linear(x, channels, like_input=True))
        right = self.one_of(lambda: x, lambda: self.norm(x), lambda: self.linear(left, channels, like_input=True))()
        return self.one_of(layers.Add, layers.Concatenate)()([left, right])

    def shared(self, x):
        """A convolution and a normalisation that are called twice, in pairs or not."""
        channels = x.shape[-1]
        linear, norm = self.linear_layer(x.shape, channels, like_input=True), self.norm_layer(x.shape)
        first = norm(linear(x))
        second = self.one_of(lambda t: norm(linear(t)), linear, norm)(first)
        return layers.Add()([first, second])

    def nested(self, x):
        """A model inside, functional or Sequential, called once or twice, in training mode or not."""
        inner_input = keras.Input(x.shape[1:])
        if self.one_of(False, True):
            linear = self.linear_layer(x.shape, x.shape[-1], like_input=True)
            model = keras.Sequential([inner_input, linear, self.norm_layer(x.shape)])
        else:
            y = self.one_of(self.norm, self.linear)(inner_input)
            model = keras.Model(inner_input, self.norm(self.linear(y, x.shape[-1], like_input=True)))
        y = model(x, training=True) if self.one_of(*[False] * 4, True) else model(x)
        return model(y) if y.shape == x.shape and self.one_of(False, True) else y

    def preprocessing(self, x):
        """Pixels of 0 to 255 to about -1 to 1, in one or several steps."""
        mean, deviation = np.float32([120, 110, 100]), np.float32([60, 65, 70])
        kind = self.one_of("rescaling", "normalization", "steps", "operations")
        if kind == "rescaling":
            return layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist())(x)
        if kind == "normalization":
            return layers.Normalization(mean=mean, variance=deviation**2)(x)
        if kind == "steps":
            x = layers.Normalization(mean=mean / 255, variance=(deviation / 255) ** 2)(layers.Rescaling(1 / 255)(x))
            return layers.Rescaling([1.1, 1.2, 1.3])(x)
        return (x[..., ::-1] - mean) / 60.0

    def head(self, x):
        """The map to a vector, and on."""
        x = self.one_of(self.kind("GlobalAveragePooling#"), layers.Flatten)()(x)
        for _ in range(self.one_of(1, 2)):
            x = self.one_of(self.norm, self.norm, layers.Dense(3), layers.Dropout(0.5))(x)
        return layers.Dense(2)(x)
