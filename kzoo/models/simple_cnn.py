"""The two-convolution network that introductions to digit recognition use, after LeNet-5 (LeCun et al. 1998)."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import keras

from kzoo.errors import InvalidValueError
from kzoo.layers import ATTENTION
from kzoo.layers.checks import check_odd, check_positive
from kzoo.models.blocks import INITIALIZER, conv, head_activation, relu
from kzoo.models.slots import attend, check_attention, slot_of
from kzoo.registry import Entry, register
from kzoo.taps import mark


@dataclass(frozen=True, kw_only=True)
class SimpleCNNConfig:
    """What can be chosen about the network.

    Attributes:
        widths: channels of the convolutions; 2×2 max-pooling follows each.
        kernel_size: of the convolutions, an odd number.
        dense_units: width of the hidden dense layer.
        dropout: rate after the hidden dense layer, in training.
        attention: name of a mechanism in `kzoo.layers.ATTENTION` whose slot is `"branch"`, a callable
            `(x, name) -> x`, or None. It goes after the ReLU of every convolution.

    Raises:
        InvalidValueError: a value that a field cannot take.

    Example:
        >>> kzoo.build("simple_cnn").count_params()
        3274634
    """

    widths: tuple[int, ...] = (32, 64)
    kernel_size: int = 5
    dense_units: int = 1024
    dropout: float = 0.5
    attention: str | Callable | None = None

    def __post_init__(self):
        if not isinstance(self.widths, (tuple, list)) or not all(type(w) is int and w > 0 for w in self.widths):
            raise InvalidValueError(f"widths={self.widths!r} must be a tuple of positive integers")
        if not self.widths:
            raise InvalidValueError("widths=() must have one number for each convolution")
        check_odd("kernel_size", self.kernel_size)
        check_positive("dense_units", self.dense_units)
        if not (isinstance(self.dropout, Real) and 0 <= self.dropout < 1):
            raise InvalidValueError(f"dropout={self.dropout!r} must be a number of at least 0 and below 1")
        check_attention(self.attention)
        if slot_of(self.attention) not in (None, "branch"):
            names = ", ".join(name for name, entry in ATTENTION.items() if entry.slot == "branch")
            raise InvalidValueError(f"attention={self.attention!r} does not fit a network this small; use {names}")

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 2 ** len(self.widths)


def features(x, config: SimpleCNNConfig) -> dict:
    """Runs the trunk on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: of the network.

    Returns:
        The taps, finest first: `p0` and `p1` before each max-pooling, `p2` after the last one.
    """
    taps = {}
    for number, width in enumerate(config.widths, start=1):
        x = conv(x, width, config.kernel_size, use_bias=True, name=f"conv{number}")
        x = relu(x, name=f"relu{number}")
        if config.attention is not None:
            x = attend(x, config.attention, f"attention{number}")
        taps[f"p{number - 1}"] = x = mark(x, number - 1)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    taps[f"p{number}"] = mark(x, number)
    return taps


def head(maps: dict, num_classes: int, activation, config: SimpleCNNConfig):
    """A hidden dense layer on all pixels of the last map, dropout, and the classifier.

    Raises:
        InvalidValueError: images of unknown size.
    """
    x = list(maps.values())[-1]
    if None in x.shape[1:3]:
        raise InvalidValueError("simple_cnn needs a fixed image size; give input_shape=(height, width, channels)")
    x = keras.layers.Flatten(name="head_flatten")(x)
    x = keras.layers.Dense(int(config.dense_units), kernel_initializer=INITIALIZER, name="head_fc1")(x)
    x = relu(x, name="head_relu1")
    x = keras.layers.Dropout(config.dropout, name="head_dropout1")(x)
    x = keras.layers.Dense(num_classes, name="head_dense")(x)
    return head_activation(x, activation)


VARIANTS: dict[str, SimpleCNNConfig] = {"simple_cnn": SimpleCNNConfig()}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="simple_cnn",
            config=_config,
            features=features,
            head=head,
            input_shape=(28, 28, 1),
            num_classes=10,
            preprocessing="tf",
            papers=(),
            narrow=dict(widths=(8, 12), dense_units=24, dropout=0.0),
        )
    )
