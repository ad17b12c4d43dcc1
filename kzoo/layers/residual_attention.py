"""The mask branch of the residual attention network."""

import itertools
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers.checks import check_feature_map, check_flag, check_positive
from kzoo.layers.resize import resize_bilinear

EPSILON = 1e-5


class _PreActivation(keras.layers.Layer):
    """BN, ReLU, convolution, as often as there are kernel sizes; C channels in and out, C / reduction between.

    No convolution has a bias. Without batch normalisation the first one becomes a factor and an offset for each
    channel, kept as a 1×1 depthwise convolution, and the others become biases of the convolutions before them.
    """

    def __init__(self, kernel_sizes: tuple[int, ...], reduction: int, use_batch_norm: bool, **kwargs):
        super().__init__(**kwargs)
        self.kernel_sizes = kernel_sizes
        self.reduction = reduction
        self.use_batch_norm = check_flag("use_batch_norm", use_batch_norm)

    def widths(self, channels: int) -> list[int]:
        """Channels of the input and of every convolution's output."""
        between = max(1, channels // self.reduction)
        return [channels, *[between] * (len(self.kernel_sizes) - 1), channels]

    def build(self, input_shape):
        widths = self.widths(input_shape[-1])
        last = len(self.kernel_sizes) - 1
        options = dict(dtype=self.dtype_policy)
        if self.use_batch_norm:
            self.norms = [
                keras.layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, name=f"bn{i + 1}", **options)
                for i in range(last + 1)
            ]
        else:
            self.norms = [keras.layers.DepthwiseConv2D(1, depthwise_initializer="ones", name="affine", **options)]
        self.convs = [
            keras.layers.Conv2D(
                widths[i + 1],
                size,
                padding="same",
                use_bias=not self.use_batch_norm and i < last,
                kernel_initializer="he_normal",
                name=f"conv{i + 1}",
                **options,
            )
            for i, size in enumerate(self.kernel_sizes)
        ]
        for layers in (self.norms, self.convs):
            for layer, width in zip(layers, widths, strict=False):
                layer.build((*input_shape[:3], width))

    def call(self, x):
        for norm, conv in itertools.zip_longest(self.norms, self.convs):
            x = conv(ops.relu(norm(x) if norm else x))
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs_per_position(self, channels: int) -> int:
        """Multiply-adds of the convolutions for one position."""
        pairs = itertools.pairwise(self.widths(channels))
        return sum(size**2 * a * b for size, (a, b) in zip(self.kernel_sizes, pairs, strict=True))

    def folded_weights(self) -> list[np.ndarray]:
        """The weights of an equal layer without batch normalisation."""
        if not self.use_batch_norm:
            return self.get_weights()
        (scale, shift), *others = (_scale_and_shift(norm) for norm in self.norms)
        weights = [scale[None, None, :, None], shift]
        kernels = [_float64(conv.kernel) for conv in self.convs]
        for kernel, (scale, shift) in zip(kernels, others, strict=False):
            weights += [kernel * scale, shift]
        return [*weights, kernels[-1]]


def _float64(variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), "float64")


def _scale_and_shift(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """`norm(x)` at inference is `scale * x + shift`."""
    gamma, beta, mean, variance = map(_float64, (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _spatial_gate(logits):
    """Equation 6: every channel's map has mean 0 and deviation 1 before the sigmoid."""
    logits = logits - ops.mean(logits, axis=(1, 2), keepdims=True)
    variance = ops.mean(ops.square(logits), axis=(1, 2), keepdims=True)
    return ops.sigmoid(logits * ops.rsqrt(variance + EPSILON))


def _channel_gate(logits):
    """Equation 5: the channels at a position have length 1."""
    return ops.normalize(logits, axis=-1, order=2)


GATES = {"mixed": ops.sigmoid, "channel": _channel_gate, "spatial": _spatial_gate}


@keras.saving.register_keras_serializable(package="kzoo")
class ResidualAttention(keras.layers.Layer):
    """Scales a map by a mask that saw it at several resolutions (arXiv:1704.06904, Figure 2, equations 1 to 6).

    The output is `(1 + M(x)) * T` (attention residual learning, equation 3) or `M(x) * T` (naive, equation 1),
    with the trunk branch's map T, or x itself. The mask M is computed bottom-up, top-down:

    - down, `depth` times: 3×3 max-pooling with stride 2, then `units` residual units;
    - up, `depth` times: `units` residual units, then bilinear upsampling to the size before the pooling. There,
      except at the full size, a residual unit of the bottom-up map is added (the skip connection);
    - two 1×1 convolutions and the gate f.

    A residual unit is a pre-activation bottleneck (1×1 to C/4, 3×3, 1×1 to C, batch normalisation and ReLU before
    each) plus its input. Batch normalisation and ReLU also precede the two last convolutions. Upsampling takes
    pixel centres at half integers. A network makes T with two residual units of its own; the mask begins
    from the same x.

    Args:
        depth: number of poolings; the paper has 3, 2 and 1 in the stages of 56, 28 and 14 pixels.
        units: residual units between two poolings (r in the paper).
        gate: `"mixed"`: sigmoid (equation 4, the paper's choice: Table 1); `"channel"`: the channels at a position
            are divided by their L2 norm (equation 5), which gives gates of -1 to 1; `"spatial"`: each channel's
            map is normalised to mean 0 and deviation 1, then sigmoid (equation 6).
        residual_learning: whether 1 is added to the mask.
        use_batch_norm: whether the convolutions are preceded by batch normalisation. Without it each has a bias
            in its place, and where a normalisation reads a sum or a pooling, there is a 1×1 depthwise
            convolution with bias: what `folded` makes of a trained layer.

    Input shape: (batch, height, width, channels), height and width known and above 2^(depth - 1); `trunk`, if
    given, has the same. Output shape: the same.

    Raises:
        InvalidValueError: a depth or number of units below 1, an unknown gate, a map too small for the depth,
            a trunk of another shape.

    Example:
        >>> x, trunk = keras.ops.ones((2, 14, 14, 64)), keras.ops.ones((2, 14, 14, 64))
        >>> ResidualAttention(depth=2)(x, trunk).shape
        TensorShape([2, 14, 14, 64])
    """

    def __init__(
        self,
        depth: int = 1,
        units: int = 1,
        gate: str = "mixed",
        residual_learning: bool = True,
        use_batch_norm: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("gate", gate, GATES)
        self.depth = check_positive("depth", depth)
        self.units = check_positive("units", units)
        self.gate = gate
        self.residual_learning = check_flag("residual_learning", residual_learning)
        self.use_batch_norm = check_flag("use_batch_norm", use_batch_norm)
        grid = list(itertools.product(range(1, depth + 1), range(1, units + 1)))
        self.down = [self._unit(f"down{level}_unit{i}") for level, i in grid]
        self.up = [self._unit(f"up{level}_unit{i}") for level, i in grid]
        self.skips = [self._unit(f"skip{level}") for level in range(1, depth)]
        self.head = _PreActivation((1, 1), 1, use_batch_norm, name="head", dtype=self.dtype_policy)

    def _unit(self, name: str) -> _PreActivation:
        return _PreActivation((1, 3, 1), 4, self.use_batch_norm, name=name, dtype=self.dtype_policy)

    def _at(self, level: int, layers: list) -> list:
        """The residual units of a level, which counts from 0."""
        return layers[level * self.units : (level + 1) * self.units]

    def _sublayers(self) -> list[_PreActivation]:
        return [*self.down, *self.up, *self.skips, self.head]

    def build(self, x_shape, trunk_shape=None):
        self._check_input(x_shape, trunk_shape)
        for layer in self._sublayers():
            layer.build((None, None, None, x_shape[-1]))

    def _check_input(self, x_shape, trunk_shape):
        check_feature_map(self, x_shape, static=True)
        if trunk_shape is not None and tuple(trunk_shape[1:]) != tuple(x_shape[1:]):
            raise InvalidValueError(
                f"ResidualAttention {self.name!r}: the trunk has shape {tuple(trunk_shape)}, but the mask has the "
                f"input's, {tuple(x_shape)}; they must be equal"
            )
        deepest = (min(x_shape[1:3]) - 1).bit_length()  # poolings until a side is 1
        if self.depth > deepest:
            advice = f"use depth={deepest} or less, or larger maps" if deepest else "use larger maps"
            raise InvalidValueError(
                f"ResidualAttention {self.name!r}: a map of shape {tuple(x_shape)} is too small to be pooled "
                f"depth={self.depth} times; {advice}"
            )

    def gates(self, x):
        """The mask M of a map, of the same shape."""
        maps = [ops.cast(x, self.compute_dtype)]
        for level in range(self.depth):
            pooled = ops.max_pool(maps[-1], 3, strides=2, padding="same")  # (B, ⌈H / 2⌉, ⌈W / 2⌉, C)
            maps.append(_residual(pooled, self._at(level, self.down)))
        y = maps.pop()
        for level in reversed(range(self.depth)):
            y = _residual(y, self._at(level, self.up))
            before = maps.pop()
            y = resize_bilinear(y, before.shape[1:3])
            if level:
                y = y + _residual(before, [self.skips[level - 1]])
        logits = self.head(y)
        wide = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
        return ops.cast(GATES[self.gate](wide), logits.dtype)

    def call(self, x, trunk=None):
        self._check_input(x.shape, None if trunk is None else trunk.shape)
        trunk = x if trunk is None else trunk
        scaled = self.gates(x) * trunk
        return trunk + scaled if self.residual_learning else scaled

    def compute_output_shape(self, x_shape, trunk_shape=None):
        return x_shape

    def macs(self, input_shape: tuple) -> int:
        """Multiply-adds of the convolutions for one image, without normalisations in any form."""
        channels = check_feature_map(self, input_shape, static=True)
        _, height, width, _ = input_shape
        total = height * width * self.head.macs_per_position(channels)
        for level in range(self.depth):
            height, width = -(-height // 2), -(-width // 2)
            layers = [*self._at(level, self.down), *self._at(level, self.up), *self.skips[level : level + 1]]
            total += height * width * sum(layer.macs_per_position(channels) for layer in layers)
        return total

    def folded(self) -> tuple[keras.layers.Layer, list[np.ndarray]]:
        """An equal layer without batch normalisation, and the weights to set once it is built."""
        layer = type(self).from_config(self.get_config() | {"use_batch_norm": False})
        return layer, [weight for sublayer in self._sublayers() for weight in sublayer.folded_weights()]

    def neutral(self) -> tuple[float, list[keras.Variable]]:
        """(factor, weights): with these weights at zero the layer multiplies the trunk's map by the factor."""
        gate = float(ops.squeeze(GATES[self.gate](ops.zeros((1, 1, 1, 1)))))
        return gate + self.residual_learning, [self.head.convs[-1].kernel]

    def get_config(self):
        return super().get_config() | {
            "depth": self.depth,
            "units": self.units,
            "gate": self.gate,
            "residual_learning": self.residual_learning,
            "use_batch_norm": self.use_batch_norm,
        }


def _residual(x, units: Iterable[_PreActivation]):
    """x through residual units."""
    for unit in units:
        x = x + unit(x)
    return x
