"""The small network of the fastest training runs on CIFAR-10: Jordan 2024, arXiv:2404.00498.

A 2×2 convolution to 24 channels, made to hold filters that whiten patches of the training images (a recipe's
`whiten_stem`), and three stages of two 3×3 convolutions, the first of which ends in max-pooling. Where the author's
code trains a bias on the filters for some epochs and no scale in its normalisations, these are ordinary ones here.
"""

from dataclasses import dataclass

import keras

from kzoo.errors import InvalidValueError
from kzoo.models.blocks import batch_norm, conv, head_activation
from kzoo.registry import Entry, register
from kzoo.taps import mark

STEM_KERNEL = 2


@dataclass(frozen=True, kw_only=True)
class AirbenchConfig:
    """What can be chosen about the network.

    Attributes:
        widths: channels of each stage.

    Raises:
        InvalidValueError: a value that a field cannot take.

    Example:
        >>> kzoo.describe("airbench94").trainable_parameters
        1972826
    """

    widths: tuple[int, ...] = (64, 256, 256)

    def __post_init__(self):
        widths = self.widths
        if not isinstance(widths, (tuple, list)) or not widths or not all(type(w) is int and w > 0 for w in widths):
            raise InvalidValueError(f"widths={widths!r} must be a tuple of positive integers, one for each stage")

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one axis."""
        return 2 ** len(self.widths)

    @property
    def smallest_input(self) -> int:
        """The least height and width, as the stem does not pad."""
        return self.total_stride + STEM_KERNEL - 1


def features(x, config: AirbenchConfig) -> dict:
    """Runs the trunk on normalised images.

    Args:
        x: (batch, height, width, channels).
        config: of the network.

    Returns:
        The taps `p0`, behind the stem, and one for each stage: of 32 pixels 31, 15, 7 and 3.
    """
    x = keras.layers.Conv2D(
        2 * STEM_KERNEL**2 * x.shape[-1], STEM_KERNEL, padding="valid", use_bias=False, name="stem_conv"
    )(x)
    x = gelu(batch_norm(x, name="stem_bn"), name="stem_gelu")
    taps = {"p0": mark(x, 0)}
    x = taps["p0"]
    for number, width in enumerate(config.widths, start=1):
        name = f"stage{number}"
        x = conv(x, width, 3, name=f"{name}_conv1")
        x = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)
        x = gelu(batch_norm(x, name=f"{name}_bn1"), name=f"{name}_gelu1")
        x = conv(x, width, 3, name=f"{name}_conv2")
        x = gelu(batch_norm(x, name=f"{name}_bn2"), name=f"{name}_gelu2")
        taps[f"p{number}"] = x = mark(x, number)
    return taps


def gelu(x, *, name: str):
    """The Gaussian error linear unit (arXiv:1606.08415)."""
    return keras.layers.Activation("gelu", name=name)(x)


def head(maps: dict, num_classes: int, activation, config: AirbenchConfig):
    """The largest value of each channel of the last map, and the classifier."""
    x = keras.layers.GlobalMaxPooling2D(name="head_pool")(list(maps.values())[-1])
    x = keras.layers.Dense(num_classes, name="head_dense")(x)
    return head_activation(x, activation)


VARIANTS: dict[str, AirbenchConfig] = {"airbench94": AirbenchConfig()}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="airbench",
            config=_config,
            features=features,
            head=head,
            input_shape=(32, 32, 3),
            num_classes=10,
            preprocessing="torch",
            papers=("2404.00498",),
            narrow=dict(widths=(8, 12)),
        )
    )
