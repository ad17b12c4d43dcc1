"""U-Nets give the logits of two public packages with the same weights, and those of loops in NumPy."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from dense_loops import convolve, fit, normalise, transpose_convolve, upsample_nearest
from goldens.seeded import seeded, seeded_map
from helpers import pixels, randomise, relative_error

import kzoo
from kzoo.zoo import count_parameters

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "unet.npz")
VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def crop_package(layer: str, levels: int) -> str:
    """What the package `unet` calls a layer."""
    if layer == "head_conv":
        return "classifier.conv_layer"
    side, level, kind, number = re.fullmatch(r"(stage|unet_p)(\d)_(conv|bn|up_conv)(\d?)", layer).groups()
    if side == "stage":
        place = "bottom_block" if int(level) == levels else f"encoder.encoding_blocks.{int(level) - 1}"
    else:
        place = f"decoder.decoding_blocks.{levels - 2 - int(level)}"
    kinds = {"conv": f"conv{number}.conv_layer", "bn": f"conv{number}.norm_layer", "up_conv": "upsample"}
    return f"{place}.{kinds[kind]}"


def padding_package(layer: str, nearest: bool) -> str:
    """What MONAI's `BasicUNet` calls a layer."""
    if layer == "head_conv":
        return "final_conv"
    side, level, kind, number = re.fullmatch(r"(stage|unet_p)(\d)_(conv|bn|up_conv)(\d?)", layer).groups()
    if side == "stage":
        place = "conv_0" if level == "1" else f"down_{int(level) - 1}.convs"
    else:
        place = f"upcat_{int(level) + 1}"
        if kind == "up_conv":
            return f"{place}.upsample.postconv.1" if nearest else f"{place}.upsample.deconv"
        place = f"{place}.convs"
    return f"{place}.conv_{int(number) - 1}.{'conv' if kind == 'conv' else 'adn.N'}"


def with_seeded_weights(model: keras.Model, torch_name) -> keras.Model:
    """The weights of the goldens, whose kernels are (out, in, h, w) in torch, transposed ones (in, out, h, w)."""
    for variable in model.weights:
        layer, kind = variable.path.split("/")
        name, shape = f"{torch_name(layer)}.{VARIABLES[kind]}", tuple(variable.shape)
        if kind == "kernel":
            array = seeded(name, (shape[3], shape[2], *shape[:2])) * np.float32(2**0.5)
            variable.assign(array.transpose(2, 3, 1, 0))
        else:
            variable.assign(seeded(name, shape))
    return model


def build(shape: tuple[int, ...], **options) -> keras.Model:
    return kzoo.build(
        "unet", input_shape=shape[1:], classifier_activation=None, include_preprocessing=False, **options
    )


def check(name: str, model: keras.Model, shape: tuple[int, ...]) -> None:
    assert count_parameters(model) == GOLDENS[f"{name}_parameters"]
    error = relative_error(model(seeded_map(*shape)), GOLDENS[name])
    print(f"{name}: {error:.2g}")
    assert error < 1e-5


@pytest.mark.parametrize(
    ("name", "shape", "widths", "options"),
    [
        ("unpadded_grey", (2, 60, 68, 1), (4, 8, 16), {}),
        ("unpadded_bn", (2, 68, 60, 3), (4, 8, 16), dict(batch_norm=True)),
        ("unpadded_figure", (2, 188, 220, 3), (2, 4, 8, 16, 32), {}),
    ],
)
def test_unpadded_equals_the_package_that_crops(name, shape, widths, options):
    model = build(shape, widths=widths, **options)
    check(name, with_seeded_weights(model, lambda layer: crop_package(layer, len(widths))), shape)


@pytest.mark.parametrize(
    ("name", "shape", "widths", "options"),
    [
        ("padded", (2, 32, 48, 1), (4, 6, 8, 10, 12), {}),
        ("padded_odd", (2, 37, 51, 3), (4, 6, 8, 10, 12), {}),
        ("padded_bn", (2, 48, 32, 3), (4, 8, 6, 12, 10), dict(batch_norm=True)),
        ("padded_bn_odd", (2, 41, 27, 1), (4, 8, 6, 12, 10), dict(batch_norm=True)),
        ("nearest", (2, 48, 32, 3), (4, 8, 6, 12, 10), dict(batch_norm=True, upsampling="nearest")),
        ("nearest_odd", (2, 29, 35, 1), (4, 6, 8, 10, 12), dict(upsampling="nearest")),
    ],
)
def test_padded_equals_the_package_that_pads(name, shape, widths, options):
    model = build(shape, widths=widths, padding="same", **options)
    nearest = options.get("upsampling") == "nearest"
    check(name, with_seeded_weights(model, lambda layer: padding_package(layer, nearest)), shape)


def test_size_of_the_paper_s_network():
    """Figure 1: 572×572 pixels to 388×388 of two classes, and 31.0 million parameters."""
    model = build((1, 572, 572, 1), num_classes=2)
    assert model.output.shape == (None, *GOLDENS["paper_shape"][1:]) == (None, 388, 388, 2)
    assert count_parameters(model) == GOLDENS["paper_parameters"] == parameters_of_the_figure(1, 2) == 31_030_658


@pytest.mark.slow
def test_the_paper_s_network_equals_the_package_that_crops():
    """167 billion multiply-adds, of which every 32nd pixel is compared."""
    model = with_seeded_weights(build((1, 572, 572, 1), num_classes=2), lambda layer: crop_package(layer, 5))
    error = relative_error(model(seeded_map(1, 572, 572, 1))[:, 3::32, 3::32], GOLDENS["paper"])
    print(f"paper: {error:.2g}")
    assert error < 1e-5


def parameters_of_the_figure(channels: int, classes: int) -> int:
    """Kernels and biases of Figure 1, added up."""

    def double_conv(before: int, width: int) -> int:
        return 9 * before * width + width + 9 * width**2 + width

    widths = (64, 128, 256, 512, 1024)
    encoder = sum(double_conv(*pair) for pair in zip((channels, *widths), widths, strict=False))
    up_convs = sum(4 * (2 * width) * width + width for width in widths[:-1])
    decoder = sum(double_conv(2 * width, width) for width in widths[:-1])
    return encoder + up_convs + decoder + 64 * classes + classes


def decode(model: keras.Model, maps: dict[int, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The decoder of `model` by loops, from the encoder's maps by level to logits.

    Args:
        model: a U-Net, for its weights.
        maps: by level, finest first.
        size: height and width of the image.
    """
    *finer, level = maps
    x = maps[level]
    present = {layer.name: layer for layer in model.layers}
    fitted = level  # the level at which the map last had another map's size
    padding = 1 if present["unet_p0_conv1"].padding == "same" else 0
    while level:
        level -= 1
        name = f"unet_p{level}"
        up_conv = present[f"{name}_up_conv"]
        if isinstance(up_conv, keras.layers.Conv2DTranspose):
            x = transpose_convolve(x, *up_conv.get_weights())
        else:
            x = np.pad(upsample_nearest(x, 2), [(0, 0), (0, 1), (0, 1), (0, 0)])
            x = convolve(x, *up_conv.get_weights())
        if level in finer:
            skip = maps[level]
            if padding:
                x, fitted = fit(x, *skip.shape[1:3], rounding=2 ** (fitted - level) - 1), level
            else:
                skip = fit(skip, *x.shape[1:3], rounding=0)
            x = np.concatenate([skip, x], axis=-1)
        elif level == 0 and padding:
            x = fit(x, *size, rounding=2**fitted - 1)
        for number in (1, 2):
            conv, norm = present[f"{name}_conv{number}"], present.get(f"{name}_bn{number}")
            kernel, *bias = conv.get_weights()
            x = convolve(x, kernel, bias[0] if bias else 0, padding)
            x = np.maximum(normalise(x, norm) if norm else x, 0)
    return convolve(x, *present["head_conv"].get_weights())


def check_decoder(model: keras.Model, images: np.ndarray, levels: tuple[int, ...]) -> None:
    taps = kzoo.pyramid(model, [f"p{level}" for level in levels])(images)
    expected = decode(model, {level: np.array(taps[f"p{level}"]) for level in levels}, images.shape[1:3])
    mean = expected.mean(axis=(0, 1, 2))  # the largest part of random logits
    error = relative_error(model(images) - mean, expected - mean)
    print(f"{error:.2g}")
    assert error < 1e-5


def test_decoder_by_loops():
    model = randomise(build((2, 44, 60, 1), widths=(4, 8, 16), num_classes=3))
    check_decoder(model, seeded_map(2, 44, 60, 1), (0, 1, 2))


@pytest.mark.parametrize(
    ("size", "levels", "options"),
    [
        ((51, 37), (1, 2, 3, 4, 5), {}),  # every level is rounded somewhere
        ((51, 37), (1, 2, 3, 4, 5), dict(upsampling="nearest", batch_norm=False, decoder_widths=(9, 7, 6, 5, 4))),
        ((33, 37), (2, 4, 5), {}),  # p4 is 3×3, four times it 12×12, and p2 9×10, four times that 36×40
    ],
)
def test_decoder_on_a_backbone_by_loops(size, levels, options):
    """The backbone's taps end at stride 2; the last level has the image's size and no skip."""
    backbone = dict(backbone="resnet18", backbone_options=dict(widths=(8, 12, 16, 20), depths=(1, 1, 1, 1)))
    options = dict(decoder_widths=(12, 8, 8, 6, 4), num_classes=3) | backbone | options
    if len(levels) < 5:
        options["levels"] = tuple(f"p{level}" for level in levels)
    model = kzoo.build("unet", input_shape=(*size, 3), classifier_activation=None, **options)
    assert [layer.name for layer in model.layers if layer.name.endswith("_concat")] == [
        f"unet_p{level}_concat" for level in reversed(levels[:-1])
    ]
    check_decoder(randomise(model), pixels(2, *size, 3), levels)
