"""Blocks that every family is built from, each written once.

All maps are channels last. Strided convolutions pad symmetrically, as the papers and torch do; Keras'
`padding="same"` would pad bottom and right only.
"""

from dataclasses import dataclass

import keras

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import activation as check_activation
from kzoo.layers.checks import is_integer

BN_MOMENTUM = 0.9


@dataclass(frozen=True)
class Preprocessing:
    """Pixel normalisation `(pixel - mean) / std`, in RGB order, on pixels of 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PREPROCESSING = {
    # ImageNet mean and standard deviation; torch states them on pixels of 0 to 1
    "torch": Preprocessing((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    # mean subtraction alone; where a checkpoint wants BGR, its first kernel is reordered when it is loaded
    "caffe": Preprocessing((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    # pixels to -1 ... 1
    "tf": Preprocessing((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}


def pixel_scale_and_offset(name: str, channels: int) -> tuple[list[float], list[float]]:
    """What pixels are multiplied by, and what is then added, for each channel.

    Images that are not RGB get the average constants in every channel.
    """
    spec = PREPROCESSING[name]
    mean: tuple[float, ...] = spec.mean
    std: tuple[float, ...] = spec.std
    if channels != 3:
        mean, std = (sum(mean) / 3,) * channels, (sum(std) / 3,) * channels
    return [1 / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]


def preprocess(x, name: str):
    """Normalises pixels of 0 to 255, see `pixel_scale_and_offset`."""
    scale, offset = pixel_scale_and_offset(name, x.shape[-1])
    return keras.layers.Rescaling(
        scale=scale,
        offset=offset,
        name="preprocessing",
        dtype="float32",  # a half-precision pixel would lose up to 3 of its 8 bits
    )(x)


# He et al. 2015 (arXiv:1502.01852) with a uniform distribution: drawing the truncated normal one of Keras' "he_normal"
# would make the build of a large network take half as long again.
INITIALIZER = "he_uniform"


def conv(
    x,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    use_bias: bool = False,
    initializer: str = INITIALIZER,
    name: str,
):
    """A square convolution with symmetric padding of kernel_size // 2."""
    padding = "same"
    if strides > 1 and kernel_size > 1:
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=initializer,
        name=name,
    )(x)


def batch_norm(x, *, epsilon: float = 1e-5, name: str):
    """Batch normalisation over the channels with the zoo's momentum."""
    return keras.layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=epsilon, name=name)(x)


def relu(x, *, name: str):
    """The rectifier."""
    return keras.layers.ReLU(name=name)(x)


def check_classifier(num_classes, classifier_activation) -> int:
    """The number of classes; raises `InvalidValueError` for a classifier that cannot be."""
    function = check_activation("classifier_activation", classifier_activation)
    if not is_integer(num_classes, 1):
        raise InvalidValueError(
            f"num_classes={num_classes!r} must be a positive integer; for features without a classifier build with "
            "include_top=False and pooling='avg'"
        )
    if num_classes == 1 and function is keras.activations.softmax:
        raise InvalidValueError("num_classes=1 under a softmax is always 1; pass classifier_activation='sigmoid'")
    return int(num_classes)


def pool(x):
    """The mean of a map over all positions, as a head reads it."""
    return keras.layers.GlobalAveragePooling2D(name="head_pool")(x)


def classifier_head(maps: dict, num_classes: int, activation, config=None):
    """Global average pooling of the last map, a dense layer, and the activation."""
    x = pool(list(maps.values())[-1])
    x = keras.layers.Dense(num_classes, name="head_dense")(x)
    return head_activation(x, activation)


def head_activation(x, activation, name: str = "head_activation"):
    """The last activation, computed in float32 at least."""
    return keras.layers.Activation(activation or "linear", dtype=precise_dtype(), name=name)(x)


def precise_dtype() -> str:
    """What the last layers of a model compute in: float32 under mixed precision, else the policy's own."""
    compute_dtype = keras.config.dtype_policy().compute_dtype
    return "float32" if compute_dtype in ("float16", "bfloat16") else compute_dtype
